"""Models with masks: every size, at stride 4 or the finest there is, and what weights without masks give them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detrx.models.checkpoint import load_model, read_config, save_checkpoint
from detrx.models.head import decode_outputs
from detrx.models.segmentation import finer_strides
from detrx.models.transplant import transplant
from detrx.models.zoo import RT_MODELS, RtConfig, build
from detrx.types import ModelInfo

SMALL = RtConfig(
    name="small",
    backbone="mobilenetv2_035",
    levels=(8, 16),
    hidden=32,
    heads=4,
    neck_depth=1,
    encoder_feedforward=32,
    decoder_hidden=32,
    decoder_layers=2,
    decoder_feedforward=32,
    queries=6,
    masks=True,
)


@pytest.mark.parametrize("name", RT_MODELS)
def test_every_size_has_masks_at_stride_4(name: str) -> None:
    config = replace(RT_MODELS[name], masks=True)
    assert finer_strides(config)[0] == 4
    assert finer_strides(config)[-1] * 2 == config.levels[0]
    with torch.device("meta"):
        model = build(config, classes=3)
    assert model.backbone.strides == [*finer_strides(config), *config.levels]


@pytest.mark.parametrize("head", ["dfine", "rtdetrv2"])
def test_training_answers_for_every_layer_and_running_for_the_last(head: str) -> None:
    model = build(replace(SMALL, head=head), classes=3)
    pixels = torch.randn(2, 3, 64, 96)
    found = model(pixels)
    assert found.embeddings.shape == (2, 2, 6, 16)
    assert found.pixels.shape == (2, 16, 16, 24)
    found = model.eval()(pixels)
    assert found.embeddings.shape == (1, 2, 6, 16)
    assert decode_outputs(found, top=5)[3].shape == (2, 5, 16, 24)
    torch.testing.assert_close(model.fuse()(pixels).pixels, found.pixels, atol=1e-4, rtol=1e-4)


def test_a_level_of_stride_4_needs_no_finer_map() -> None:
    config = replace(SMALL, levels=(4, 8))
    assert finer_strides(config) == ()
    assert build(config, classes=1)(torch.randn(2, 3, 64, 64)).pixels.shape[2:] == (16, 16)


def test_weights_without_masks_keep_everything_else(tmp_path: Path) -> None:
    torch.manual_seed(0)
    plain = build(replace(SMALL, masks=False), classes=2)
    model = build(SMALL, classes=2)
    report = transplant(model, plain, names=("a", "b"), other_names=("a", "b"))
    own = model.state_dict()
    assert all(torch.equal(own[key], tensor) for key, tensor in plain.state_dict().items())
    assert {key.split(".")[0] for key, _ in report.fresh} <= {"pixels", "decoder"}
    assert all("pixels." in key or "mask_embed" in key for key, _ in report.fresh)
    assert report.unused == ()
    pixels = torch.randn(1, 3, 64, 64)
    assert torch.equal(model.eval()(pixels).boxes, plain.eval()(pixels).boxes)


def test_a_checkpoint_says_that_it_has_masks(tmp_path: Path) -> None:
    model = build(SMALL, classes=1)
    info = ModelInfo("small", ("a",), (1,), (64, 64), masks=True)
    path = tmp_path / "m.safetensors"
    save_checkpoint(path, {f"model.{k}": v for k, v in model.state_dict().items()}, info=info, config=SMALL)
    assert read_config(path) == SMALL
    loaded, said = load_model(path)
    assert said.masks
    assert loaded.config == SMALL
    assert read_config(tmp_path / "other.pth") is None
