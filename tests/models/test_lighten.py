"""Fewer decoder layers and queries answer as those layers did in the whole model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from detr_pairs import TINY
from tiny_rt import TINY_RT as RT

from detrx.errors import ConfigError
from detrx.models.checkpoint import load_model, save_checkpoint
from detrx.models.config import ModelConfig
from detrx.models.layouts import convert
from detrx.models.lighten import lighten
from detrx.models.zoo import Model, build
from detrx.types import ModelInfo

DETR = replace(TINY, decoder_layers=3, dropout=0.0, frozen_norm=True)
PIXELS = torch.linspace(-1, 1, 3 * 64 * 96).reshape(1, 3, 64, 96)


def random_model(config: ModelConfig) -> Model:
    torch.manual_seed(0)
    model = build(config, classes=2).eval()
    with torch.no_grad():
        for tensor in model.parameters():
            tensor.add_(0.05 * torch.randn_like(tensor))
    return model


@pytest.mark.parametrize("head", ["dfine", "rtdetrv2"])
@pytest.mark.parametrize("layers", [1, 2, 3])
@torch.no_grad()
def test_an_rt_answers_as_its_own_layer_did(head: str, layers: int) -> None:
    whole = random_model(replace(RT, head=head))
    before = build(replace(whole.config, eval_layer=layers - 1), classes=2).eval()
    before.load_state_dict(whole.state_dict())
    lighter = lighten(whole, layers=layers)
    assert lighter.config.decoder_layers == layers
    expected, found = before(PIXELS), lighter(PIXELS)
    assert torch.equal(found.logits, expected.logits)
    assert torch.equal(found.boxes, expected.boxes)


@torch.no_grad()
def test_a_detr_answers_as_its_own_layer_did() -> None:
    whole = random_model(DETR)
    every = whole.train()(PIXELS)
    found = lighten(whole.eval(), layers=2)(PIXELS)
    torch.testing.assert_close(found.logits[-1], every.logits[1])
    torch.testing.assert_close(found.boxes[-1], every.boxes[1])


@torch.no_grad()
def test_fewer_queries_are_the_best_cells() -> None:
    whole = random_model(RT)
    lighter = lighten(whole, queries=3)
    assert lighter(PIXELS).boxes.shape[-2] == 3
    maps = whole.encoder(whole.backbone(PIXELS))
    memory, shapes = maps[0].flatten(2).transpose(1, 2), [tuple(maps[0].shape[2:])]
    assert torch.equal(
        lighter.decoder.select(memory, shapes).boxes, whole.decoder.select(memory, shapes).boxes[:, :3]
    )


def test_layers_that_only_help_training_are_no_layers_to_keep() -> None:
    model = random_model(replace(RT, eval_layer=1))
    assert lighten(model).config.decoder_layers == 2
    with pytest.raises(ConfigError, match="layers must be from 1 to 2, got 3"):
        lighten(model, layers=3)


@pytest.mark.parametrize(
    ("config", "asked", "said"),
    [
        (RT, {"layers": 0}, "layers must be from 1 to 3, got 0"),
        (RT, {"queries": 5}, "queries must be from 1 to 4, got 5"),
        (DETR, {"queries": 3}, "learnt a place of its own"),
        (replace(DETR, auxiliary=False), {"layers": 1}, "only the last layer"),
    ],
)
def test_what_cannot_be_left_out(config: ModelConfig, asked: dict[str, int], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        lighten(random_model(config), **asked)


def test_convert_writes_a_lighter_file(tmp_path: Path) -> None:
    model, info = random_model(RT), ModelInfo("rt", ("a", "b"), (1, 2), (64, 96))
    source = tmp_path / "whole.safetensors"
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    save_checkpoint(source, tensors, info=info, config=model.config)
    done = convert(source, tmp_path / "light.safetensors", to="detrx", layers=1, queries=2)
    found, again = load_model(done.path)
    assert (found.config.decoder_layers, found.config.queries, again) == (1, 2, info)
    assert done.path.stat().st_size < source.stat().st_size
