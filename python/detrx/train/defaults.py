"""The settings that a user leaves open, chosen from the data and the model. Pure functions, free of torch.

The rules were found on small data (docs/guides/blood-cells.md says what was measured) and agree with the published
recipes at the other end: D-FINE trains 128 channels at 8e-4 and 256 or more at 2e-4 to 4e-4 (arXiv 2410.13842).
"""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, Optional, Tuple, TypeVar

from detrx.errors import ConfigError
from detrx.models.config import DetrConfig, ModelConfig, RtConfig
from detrx.train.config import TrainConfig

OPEN = ("batch", "lr", "freeze_norm", "freeze_stages", "levels", "queries")
"""The settings in question; a run that goes on keeps those that it began with."""
SMALL = 2000
"""Fewer training pictures than this are small data: it needs many steps more than smooth gradients."""
FEWEST_QUERIES = 100
DETR_RATE = 1e-4
"""The first DETR's rate (arXiv 2005.12872), from the backbone's weights and from the detector's alike."""
SMALL_CANVAS = 448
"""Pixels of the longer side up to which a model that starts at stride 16 starts at 8, for enough cells."""


T = TypeVar("T")


def fill(
    config: TrainConfig, shape: ModelConfig, *, pictures: int, most: int, keep_shape: bool = False
) -> TrainConfig:
    """Choose what is still open.

    Args:
        config: what the user said.
        shape: the zoo's model of that name.
        pictures: in the training split.
        most: objects in the fullest picture.
        keep_shape: ``shape`` is that of trained weights, so its levels and queries stay.
    """
    small = pictures < SMALL
    width = config.hidden or (shape.decoder_hidden if isinstance(shape, RtConfig) else shape.hidden)
    chosen: Dict[str, Any] = {
        "batch": 4 if small else 16,
        "lr": DETR_RATE if isinstance(shape, DetrConfig) else learning_rate(width, tune=bool(config.weights)),
        "freeze_norm": bool(config.weights or config.backbone_weights),
        "freeze_stages": 2 if small and config.backbone_weights else 0,
    }
    if not keep_shape:
        chosen["levels"] = levels_for(shape, config.canvas) if isinstance(shape, RtConfig) else None
        chosen["queries"] = min(shape.queries, max(FEWEST_QUERIES, 3 * most))
    return dataclasses.replace(config, **{k: v for k, v in chosen.items() if getattr(config, k) is None})


def learning_rate(width: int, *, tune: bool) -> float:
    """At most 8e-4, falling with the width of the decoder; a trained detector is tuned at a quarter."""
    return round(min(8e-4, 0.1024 / width) / (4 if tune else 1), 8)


def levels_for(shape: RtConfig, canvas: Tuple[int, int]) -> Optional[Tuple[int, ...]]:
    """Strides that keep enough cells on a small canvas, or None for the model's own."""
    if max(canvas) > SMALL_CANVAS or shape.levels[0] <= 8:
        return None
    return tuple(stride // 2 for stride in shape.levels)


def settled(name: str, value: Optional[T]) -> T:
    """A setting that ``fill`` has chosen.

    Raises:
        ConfigError: it is still open.
    """
    if value is None:
        raise ConfigError(
            f"[train] {name} must be chosen before training, found None; pass the settings through fill()"
        )
    return value
