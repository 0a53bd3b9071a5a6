"""A very small trained-looking model on disk."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from detrx.models import zoo
from detrx.models.checkpoint import save_checkpoint
from detrx.types import ModelInfo

CONFIG = dataclasses.replace(
    zoo.MODELS["rt-n"],
    name="tiny",
    backbone="mobilenetv3_small_050",
    hidden=32,
    heads=4,
    decoder_hidden=32,
    encoder_feedforward=32,
    decoder_feedforward=32,
    neck_depth=1,
    queries=12,
    decoder_layers=2,
)
INFO = ModelInfo("tiny", ("disc", "ring", "star"), (7, 3, 900), (64, 96), licence="test")


@pytest.fixture(scope="session")
def info() -> ModelInfo:
    return INFO


@pytest.fixture(scope="session", params=["dfine", "rtdetrv2"])
def model(request: pytest.FixtureRequest) -> nn.Module:
    """Random weights with more spread than a fresh model has, so that boxes and scores differ from each other."""
    torch.manual_seed(3)
    built = zoo.build(dataclasses.replace(CONFIG, head=request.param), classes=3).eval()
    spread(built)
    return built


def spread(model: nn.Module) -> None:
    """Give the zeroed last layers of the heads and the norms' statistics some values."""
    with torch.no_grad():
        for name, tensor in model.named_parameters():
            if tensor.abs().max() == 0 and "bias" not in name:
                nn.init.normal_(tensor, std=0.2)
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.running_mean.normal_(std=0.1)
                module.running_var.uniform_(0.7, 1.4)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of the D-FINE head."""
    torch.manual_seed(3)
    built = zoo.build(CONFIG, classes=3).eval()
    spread(built)
    path = tmp_path_factory.mktemp("weights") / "tiny.safetensors"
    tensors = {f"model.{name}": tensor for name, tensor in built.state_dict().items()}
    save_checkpoint(path, tensors, info=INFO, config=CONFIG)
    return path
