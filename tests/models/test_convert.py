"""Official layouts, made from our models by the inverse names; the key counts are those of the published files."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch
from torch import Tensor

from detrx.errors import CheckpointError
from detrx.models.checkpoint import load_model
from detrx.models.convert import from_official, official_config, official_name, transformers_name
from detrx.models.rt import RtDetr
from detrx.models.zoo import MODELS, build

# Frozen norms in the published L, X, R50 and R101 have no counter.
PUBLISHED = {
    "rt-n": (674, False),
    "rt-s": (794, False),
    "rt-m": (1053, False),
    "rt-l": (1173, True),
    "rt-x": (1441, True),
    "rtdetrv2-r18": (538, False),
    "rtdetrv2-r34": (665, False),
    "rtdetrv2-r50m": (768, True),
    "rtdetrv2-r50": (744, True),
    "rtdetrv2-r101": (999, True),
}


def official(model: RtDetr, *, frozen: bool) -> dict[str, Tensor]:
    """The model's weights as the official repositories save them."""
    out = {official_name(key): tensor for key, tensor in model.state_dict().items()}
    if frozen:
        out = {k: t for k, t in out.items() if not re.match(r"backbone\..*num_batches_tracked", k)}
    out["decoder.anchors"] = torch.zeros(1, 8400, 4)
    out["decoder.valid_mask"] = torch.zeros(1, 8400, 1)
    if model.config.head == "dfine":
        out["decoder.decoder.up"] = torch.zeros(1)
        out["decoder.decoder.reg_scale"] = torch.zeros(1)
    return out


@pytest.mark.parametrize("name", PUBLISHED)
def test_names_and_shapes_are_the_published_ones(name: str) -> None:
    count, frozen = PUBLISHED[name]
    with torch.device("meta"):
        model = build(MODELS[name], classes=80)
        theirs = official(model, frozen=frozen)
    assert len(theirs) == count
    config, classes = official_config(theirs)
    assert (config, classes) == (MODELS[name], 80)
    assert from_official(model, theirs).keys() == model.state_dict().keys()


def test_a_few_names_by_heart() -> None:
    assert official_name("backbone.net.stages_2.blocks.0.layers.1.conv.weight") == (
        "backbone.stages.2.blocks.0.layers.1.conv.weight"
    )
    assert official_name("backbone.net.layer2.0.downsample.1.weight") == (
        "backbone.res_layers.1.blocks.0.short.conv.conv.weight"
    )
    assert (
        official_name("backbone.net.layer1.0.downsample.2.bias")
        == "backbone.res_layers.0.blocks.0.short.norm.bias"
    )
    assert official_name("backbone.net.bn1.weight") == "backbone.conv1.conv1_3.norm.weight"
    assert (
        transformers_name("decoder.decoder.layers.1.norm3.bias")
        == "model.decoder.layers.1.final_layer_norm.bias"
    )


@pytest.fixture(scope="module")
def small() -> RtDetr:
    torch.manual_seed(3)
    return build(MODELS["rt-n"], classes=7).eval()


@pytest.mark.parametrize("wrapping", ["ema", "model", "ddp"])
def test_files_prefer_the_ema(tmp_path: Path, small: RtDetr, wrapping: str) -> None:
    good = official(small, frozen=False)
    bad = {key: torch.zeros_like(tensor) for key, tensor in good.items()}
    saved = {
        "ema": {"model": bad, "ema": {"module": good, "updates": 5}, "last_epoch": 9},
        "model": {"model": good, "ema": None},
        "ddp": {"model": {f"module.{key}": tensor for key, tensor in good.items()}},
    }[wrapping]
    torch.save(saved, tmp_path / "dfine_n.pth")
    model, info = load_model(tmp_path / "dfine_n.pth")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x).boxes, small(x).boxes)
    assert info.model == "rt-n"
    assert info.names[:2] == ("class 0", "class 1")
    assert (info.mean, info.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert "dfine_n.pth" in info.licence


def test_a_distilled_model_loses_its_projector(small: RtDetr) -> None:
    theirs = official(small, frozen=False)
    theirs["encoder.feature_projector.0.weight"] = torch.zeros(768, 128)
    assert official_config(theirs)[0].name == "rt-n"


def test_the_spelling_of_the_first_version() -> None:
    model = build(MODELS["rtdetrv2-r18"], classes=3)
    theirs = official(model, frozen=False)
    old = {}
    for key, tensor in theirs.items():
        key = re.sub(r"(input_proj\.\d)\.conv\.", r"\1.0.", key)
        key = re.sub(r"(input_proj\.\d)\.norm\.", r"\1.1.", key)
        key = key.replace("enc_output.proj.", "enc_output.0.").replace("enc_output.norm.", "enc_output.1.")
        if not key.endswith("num_points_scale"):
            old[key] = tensor
    assert old.keys() != theirs.keys()
    assert official_config(old)[0].name == "rtdetrv2-r18"
    back = from_official(model, old)
    assert all(torch.equal(tensor, back[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("fault", ["missing", "extra", "shape"])
def test_what_does_not_fit_is_told(small: RtDetr, fault: str) -> None:
    theirs = official(small, frozen=False)
    if fault == "missing":
        del theirs["decoder.query_pos_head.layers.0.weight"]
    elif fault == "extra":
        theirs["decoder.mask_head.weight"] = torch.ones(1)
    else:
        theirs["decoder.query_pos_head.layers.0.weight"] = torch.ones(2, 2)
    with pytest.raises(CheckpointError, match=r"query_pos_head|mask_head"):
        from_official(small, theirs)
    with pytest.raises(CheckpointError, match="fit none of"):
        official_config(theirs)


def test_coco_names_and_ids_for_eighty_classes(tmp_path: Path) -> None:
    model = build(MODELS["rt-n"], classes=80)
    torch.save({"model": official(model, frozen=False)}, tmp_path / "x.pth")
    info = load_model(tmp_path / "x.pth")[1]
    assert len(info.names) == 80
    assert (info.names[0], info.names[79]) == ("person", "toothbrush")
    assert (info.category_ids[0], info.category_ids[11], info.category_ids[79]) == (1, 13, 90)
    assert info.canvas == (640, 640)
