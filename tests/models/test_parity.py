"""Ours against transformers with the same weights: 1e-5 before top-k and after, in eval and in training mode."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers_pairs import CLASSES, DFINE, QUERIES, dfine_pair, rtdetrv2_pair

from detrx.models.rt import RtDetr
from detrx.tensors import DenoiseQueries

PAIRS = pytest.mark.parametrize("pair", [dfine_pair, rtdetrv2_pair], ids=["dfine", "rtdetrv2"])
MODES = pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
Pair = Callable[[], tuple[Any, RtDetr]]


def near(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


def pixels() -> Tensor:
    return torch.randn(2, 3, 96, 128, generator=torch.Generator().manual_seed(1))


@PAIRS
@MODES
def test_before_top_k(pair: Pair, training: bool) -> None:
    theirs, ours = pair()
    theirs.train(training)
    ours.train(training)
    x = pixels()
    with torch.no_grad():
        expected = theirs.model(x)
        features = ours.backbone(x)
        maps = ours.encoder(features)
        proj = [p(m) for p, m in zip(ours.decoder.input_proj, maps)]
        shapes = [tuple(m.shape[2:]) for m in proj]
        memory = torch.cat([m.flatten(2).transpose(1, 2) for m in proj], 1)
        anchors, valid = ours.decoder.anchors(shapes, memory)
        tokens = ours.decoder.enc_output(memory * valid)
        scores = ours.decoder.enc_score_head(tokens)
        boxes = (ours.decoder.enc_bbox_head(tokens) + anchors).sigmoid()
        their_features = theirs.model.backbone(x, torch.ones(2, 96, 128))
    for own, (other, _) in zip(features, their_features, strict=True):
        near(own, other)
    for own, other in zip(maps, expected.encoder_last_hidden_state, strict=True):
        near(own, other)
    near(scores, expected.enc_outputs_class)
    near(boxes, expected.enc_outputs_coord_logits.sigmoid())


@PAIRS
def test_eval_answers_with_the_last_layer(pair: Pair) -> None:
    theirs, ours = (model.eval() for model in pair())
    with torch.no_grad():
        expected, found = theirs(pixels()), ours(pixels())
    assert found.logits.shape == (1, 2, QUERIES, CLASSES)
    assert found.first is found.encoder is found.denoise is None
    near(found.logits[0], expected.logits)
    near(found.boxes[0], expected.pred_boxes)


def noised(theirs: Any, x: Tensor, monkeypatch: pytest.MonkeyPatch) -> tuple[Any, DenoiseQueries]:
    """Their outputs in training with denoising, and the noise that they drew."""
    module = __import__(type(theirs).__module__, fromlist=["x"])
    make, drawn = module.get_contrastive_denoising_training_group, []

    def spy(*args: Any, **kwargs: Any) -> Any:
        drawn.append(make(*args, **kwargs))
        return drawn[-1]

    monkeypatch.setattr(module, "get_contrastive_denoising_training_group", spy)
    ids: list[Tensor] = []
    hook = theirs.model.denoising_class_embed.register_forward_hook(lambda m, args, out: ids.append(args[0]))
    labels = [
        {
            "class_labels": torch.tensor([0, 3]),
            "boxes": torch.tensor([[0.3, 0.4, 0.2, 0.3], [0.6, 0.5, 0.3, 0.2]]),
        },
        {"class_labels": torch.tensor([4]), "boxes": torch.tensor([[0.5, 0.5, 0.4, 0.6]])},
    ]
    with torch.no_grad():
        out = theirs.model(x, labels=labels)
    hook.remove()
    _, boxes, mask, meta = drawn[0]
    owners = torch.full(ids[0].shape, -1)
    return out, DenoiseQueries(ids[0].long(), boxes, mask.isinf(), owners, meta["dn_num_group"])


@PAIRS
def test_training_outputs_of_every_layer(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    theirs, ours = pair()
    expected, denoise = noised(theirs, pixels(), monkeypatch)
    with torch.no_grad():
        found = ours(pixels(), denoise)
    count = denoise.labels.shape[1]
    assert found.denoise is not None
    assert found.encoder is not None
    fine = found.first is not None
    for outputs, cut in ((found.denoise, slice(0, count)), (found, slice(count, None))):
        logits = expected.intermediate_logits.transpose(0, 1)[:, :, cut]
        boxes = expected.intermediate_reference_points.transpose(0, 1)[:, :, cut]
        near(outputs.logits, logits[int(fine) :])
        near(outputs.boxes, boxes[int(fine) :])
        if fine:
            near(outputs.first.logits, logits[:1])
            near(outputs.first.boxes, boxes[:1])
            near(outputs.distributions, expected.intermediate_predicted_corners.transpose(0, 1)[:, :, cut])
            near(outputs.references, expected.initial_reference_points.transpose(0, 1)[:, :, cut])
    near(found.encoder.logits[0], expected.enc_topk_logits)
    near(found.encoder.boxes[0], expected.enc_topk_bboxes)


def test_gradients_reach_the_same_weights() -> None:
    """The choice of queries passes chosen cells twice; the gradient must be as if all had passed once."""
    theirs, ours = dfine_pair()
    expected = theirs.model(pixels())
    (
        expected.enc_topk_logits.square().sum() + expected.intermediate_reference_points[:, 1:].square().sum()
    ).backward()
    found = ours(pixels())
    (found.encoder.logits.square().sum() + found.boxes.square().sum()).backward()
    for own, other in (
        (ours.decoder.enc_score_head.weight, theirs.model.enc_score_head.weight),
        (ours.decoder.enc_output[0].weight, theirs.model.enc_output[0].weight),
        (ours.encoder.input_proj[0].conv.weight, theirs.model.encoder_input_proj[0][0].weight),
    ):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-3 * float(other.grad.abs().max()))


def test_two_levels_as_the_smallest_size_has_them() -> None:
    theirs, ours = (m.eval() for m in dfine_pair(replace(DFINE, levels=(16, 32))))
    with torch.no_grad():
        near(ours(pixels()).boxes[0], theirs(pixels()).pred_boxes)
