"""A very small DETR."""

from __future__ import annotations

from detrx.models.zoo import DetrConfig

TINY_DETR = DetrConfig(
    name="tiny-detr",
    backbone="mobilenetv3_small_050",
    hidden=32,
    heads=8,
    encoder_layers=1,
    decoder_layers=1,
    feedforward=32,
    queries=8,
    dropout=0.0,
)
