"""The same random weights in transformers' DETR and in detrx."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from transformers import DetrConfig as TheirConfig
from transformers import DetrForObjectDetection, DetrForSegmentation

from detrx.models.config import DetrConfig
from detrx.models.convert_detr import from_transformers
from detrx.models.detr import Detr
from detrx.models.zoo import build

CLASSES = 5
TINY = DetrConfig(
    name="tiny",
    backbone="resnet18",
    hidden=32,
    heads=4,
    encoder_layers=2,
    decoder_layers=2,
    feedforward=48,
    queries=6,
    masked=True,
)


def their_config(config: DetrConfig, *, classes: int = CLASSES) -> TheirConfig:
    backbone = {
        "model_type": "timm_backbone",
        "backbone": config.backbone,
        "num_channels": 3,
        "features_only": True,
        "use_pretrained_backbone": False,
        "out_indices": [1, 2, 3, 4],
    }
    if config.dilated:
        backbone["output_stride"] = 16
    return TheirConfig(
        backbone_config=backbone,
        dilation=config.dilated,
        d_model=config.hidden,
        encoder_layers=config.encoder_layers,
        decoder_layers=config.decoder_layers,
        encoder_attention_heads=config.heads,
        decoder_attention_heads=config.heads,
        encoder_ffn_dim=config.feedforward,
        decoder_ffn_dim=config.feedforward,
        num_queries=config.queries,
        position_embedding_type=config.positions,
        # Theirs feeds normalised states from layer to layer where it is on, which the original does not.
        auxiliary_loss=False,
        num_labels=classes,
    )


def shake(model: nn.Module, *, seed: int = 0) -> None:
    """Numbers as trained weights have them: norms that do something, queries and boxes that differ."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: Tensor, scale: float) -> Tensor:
        return torch.randn(tensor.shape, generator=generator) * scale

    with torch.no_grad():
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.copy_(1 + noise(tensor, 0.3).abs())
            elif "backbone" in key and tensor.dim() == 1:
                tensor.copy_(noise(tensor, 0.1) + (0.6 if key.endswith("weight") else 0.0))
            elif tensor.dim() == 1 and tensor.is_floating_point():
                tensor.add_(noise(tensor, 0.1))
            elif re.search(r"query_(embed|position)", key):
                tensor.copy_(noise(tensor, 4.0))
            elif "backbone" not in key and tensor.is_floating_point():
                tensor.copy_(noise(tensor, (2.5 / tensor[0].numel()) ** 0.5))


def pair(config: DetrConfig = TINY, *, classes: int = CLASSES) -> tuple[Any, Detr]:
    """transformers' DETR and ours, equal weights, in eval mode."""
    torch.manual_seed(0)
    kind = DetrForSegmentation if config.masks else DetrForObjectDetection
    theirs = kind(their_config(config, classes=classes))
    shake(theirs)
    ours = build(config, classes=len(config.columns) or classes)
    ours.load_state_dict(from_transformers(ours, theirs.state_dict()))
    return theirs.eval(), ours.eval()


def saved(theirs: Any, folder: Path, names: dict[int, str] | None = None) -> Path:
    """A folder as the hub has them."""
    theirs.config.id2label = names or {i: f"thing {i}" for i in range(theirs.config.num_labels)}
    theirs.save_pretrained(folder)
    return folder


def pictures(*sizes: tuple[int, int], seed: int = 1) -> tuple[Tensor, Tensor]:
    """Random pictures at the top left of a canvas that holds them all: pixels, and padding (B, h, w) around them."""
    generator = torch.Generator().manual_seed(seed)
    canvas = [max(side) for side in zip(*sizes, strict=True)]
    pixels = torch.zeros(len(sizes), 3, *canvas)
    padding = torch.ones(len(sizes), *canvas, dtype=torch.bool)
    for i, (height, width) in enumerate(sizes):
        pixels[i, :, :height, :width] = torch.randn(3, height, width, generator=generator)
        padding[i, :height, :width] = False
    return pixels, padding
