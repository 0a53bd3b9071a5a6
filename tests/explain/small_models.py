"""Small models of both families with weights that do something."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import torch
from torch import nn

from detrx.models.checkpoint import save_checkpoint
from detrx.models.config import DetrConfig
from detrx.models.zoo import MODELS, build
from detrx.types import ModelInfo

NAMES = ("cell", "speck")


def shaken(model: nn.Module) -> nn.Module:
    """Every weight moved, so that queries differ and norms do something."""
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if tensor.is_floating_point() and "backbone" not in key and tensor.dim() > 0:
                scale = 0.1 if tensor.dim() == 1 else (2.0 / tensor[0].numel()) ** 0.5
                tensor.add_(torch.randn(tensor.shape, generator=generator) * scale)
    return model.eval()


def make_detr(*, masked: bool = False) -> nn.Module:
    torch.manual_seed(0)
    config = DetrConfig(
        name="tiny",
        backbone="resnet18",
        hidden=32,
        heads=4,
        encoder_layers=2,
        decoder_layers=2,
        feedforward=48,
        queries=7,
        masked=masked,
    )
    return shaken(build(config, classes=len(NAMES)))


def make_rt(head: str = "dfine") -> nn.Module:
    torch.manual_seed(0)
    config = replace(MODELS["rt-n"], queries=12, decoder_layers=2, head=head)
    return shaken(build(config, classes=len(NAMES)))


def saved(model: nn.Module, folder: Path, *, canvas: tuple[int, int] = (64, 96)) -> Path:
    info = ModelInfo(model.config.name, NAMES, (1, 2), canvas, marked=getattr(model.config, "masked", False))
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    save_checkpoint(folder / "best.safetensors", tensors, info=info, config=model.config)
    return folder
