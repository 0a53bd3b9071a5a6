"""Every loss term of transformers' D-FINE and RT-DETRv2, from the same weights, pictures, targets and noise.

transformers lists the first (plain) head among D-FINE's layers, so that its distributions stand one layer off its
boxes: its layer i is [first, layer 0, layer 1, ...][i] with the distributions of layer i. The test lays out our outputs
the same way; the terms themselves are then compared one by one.
"""

from __future__ import annotations

import importlib.util
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.tensors import DenoiseQueries, Outputs, Targets

_SPEC = importlib.util.spec_from_file_location(
    "transformers_pairs", Path(__file__).parents[1] / "models" / "transformers_pairs.py"
)
pairs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(pairs)

COUNTS = [3, 0, 6]
KINDS = {"vfl": "vfl", "l1": "bbox", "giou": "giou", "fgl": "fgl", "ddf": "ddf"}


def batch():
    g = torch.Generator().manual_seed(3)
    pixels = torch.randn(len(COUNTS), 3, 96, 128, generator=g)
    most = max(COUNTS)
    boxes = torch.rand(len(COUNTS), most, 4, generator=g) * 0.3 + 0.2
    labels = torch.randint(pairs.CLASSES, (len(COUNTS), most), generator=g)
    targets = Targets(boxes, labels, torch.tensor(COUNTS, dtype=torch.int32))
    lists = [{"class_labels": labels[i, :n], "boxes": boxes[i, :n]} for i, n in enumerate(COUNTS)]
    return pixels, targets, lists


def their_noise(monkeypatch, module):
    """Catch the denoising queries that transformers draws, as ours."""
    caught = {}
    make = module.get_contrastive_denoising_training_group

    def spy(**keywords):
        embed = keywords["class_embed"]

        def remember(labels):
            caught["labels"] = labels.long()
            return embed(labels)

        made = make(**{**keywords, "class_embed": remember})
        caught["made"] = made
        return made

    monkeypatch.setattr(module, "get_contrastive_denoising_training_group", spy)
    return caught


def as_denoise(caught) -> DenoiseQueries:
    _, boxes, mask, meta = caught["made"]
    groups = meta["dn_num_group"]
    owners = torch.full(caught["labels"].shape, -1)
    for i, (where, count) in enumerate(zip(meta["dn_positive_idx"], COUNTS)):
        owners[i, where] = torch.arange(count).repeat(groups)
    return DenoiseQueries(caught["labels"], boxes, mask != 0, owners, groups)


def as_theirs(outputs: Outputs) -> Outputs:
    """Lay D-FINE's outputs out as transformers does; see the top of this file."""
    if outputs.first is None:
        return outputs

    def shift(layers, first):
        return torch.cat([first, layers])

    def one(o: Outputs, last: bool) -> Outputs:
        logits, boxes = shift(o.logits, o.first.logits), shift(o.boxes, o.first.boxes)
        count = len(o.logits)
        order = [*range(count - 1), count] if last else [*range(count)]
        return Outputs(logits[order], boxes[order], o.distributions, o.references)

    noise = None if outputs.denoise is None else one(outputs.denoise, last=False)
    return replace(one(outputs, last=True), encoder=outputs.encoder, denoise=noise)


def their_name(name: str, layers: int) -> str:
    kind, _, place = name.partition("_")
    where = {"": "", "encoder": f"_aux_{layers - 1}"}.get(place)
    if where is None:
        where = "_" + place.replace("denoise", "dn_").replace("aux", "aux_")
    return f"loss_{KINDS[kind]}{where}"


@pytest.mark.parametrize("family", ["dfine", "rtdetrv2"])
@pytest.mark.parametrize("noise", [False, True])
def test_every_term_equals_transformers(family, noise, monkeypatch):
    theirs, ours = pairs.dfine_pair() if family == "dfine" else pairs.rtdetrv2_pair()
    module = importlib.import_module(type(theirs).__module__)
    theirs.config.num_denoising = 30 if noise else 0
    for score in (theirs.model.enc_score_head, ours.decoder.enc_score_head):
        # Their log(p + 1e-8) and our log-sigmoid are one number up to logits of about 15; the pair's go beyond.
        score.weight.data.mul_(0.3)
    pixels, targets, lists = batch()
    caught = their_noise(monkeypatch, module)
    wanted = theirs(pixels, labels=lists)
    denoise = as_denoise(caught) if noise else None
    outputs = as_theirs(ours(pixels, denoise))
    config = LossConfig(label="vfl", union=False)
    found = Criterion(config, pairs.CLASSES)(outputs, targets, denoise)
    layers = len(outputs.logits)
    compared = 0
    for name, value in found.terms.items():
        their = wanted.loss_dict.get(their_name(name, layers))
        if name == "fgl" and their is None:  # transformers leaves the last layer's out
            continue
        if name.startswith("ddf_denoise") and family == "dfine":
            continue  # theirs weighs it by a layer that the layout leaves out
        assert their is not None, name
        torch.testing.assert_close(
            value, their.detach().reshape(()), rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
        compared += 1
    assert compared == {"dfine": (16, 28), "rtdetrv2": (12, 21)}[family][noise]
