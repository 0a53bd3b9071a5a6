"""Settings that go together, by name. A run begins with one of them, and whatever the user gives takes its place."""

from __future__ import annotations

from dataclasses import replace
from typing import Dict

from detrx.data.augment import AugmentConfig
from detrx.errors import ConfigError
from detrx.train.config import TrainConfig

_PAPER = TrainConfig(
    model="detr-r50",
    epochs=300,
    batch=16,
    lr=1e-4,
    warmup=0.0,
    flat=2 / 3,
    fall="step",
    final_lr=0.1,
    ema_decay=0.0,
    freeze_norm=True,
    freeze_stages=1,
    strong_until=0.0,
    augment=AugmentConfig(scale=(0.6, 1.0), aspect=0.0, crop=0.5, colour=0.0),
)
_PAPER_MASKS = replace(
    _PAPER, model="detr-r50-panoptic", masks=True, epochs=25, flat=0.6, learn=("bbox_attention", "mask_head")
)
_SMALL_DATA = TrainConfig(
    model="detr-r50",
    no_object=False,
    groups=4,
    encoder_head=True,
    dropout=0.0,
    lr=4e-4,
)
RECIPES: Dict[str, TrainConfig] = {
    "paper": _PAPER,
    "paper-masks": _PAPER_MASKS,
    "small-data": _SMALL_DATA,
}
"""paper: as the first DETR was trained (arXiv 2005.12872 and the code published with it): 300 epochs, or 500, a tenth
of the rate in the last third, no average of the weights.

paper-masks: its second stage: the mask head learns on the finished, frozen detector of ``weights``.

small-data: the same eval graph, taught more in each step: a sigmoid head that learns how well boxes fit, groups of
queries, and the encoder's cells as further answers."""


def recipe_for(name: str) -> TrainConfig:
    """The settings of a name.

    Raises:
        ConfigError: there is no such recipe.
    """
    if name not in RECIPES:
        raise ConfigError(f"[config] recipe must be one of {', '.join(RECIPES)}, found {name!r}")
    return RECIPES[name]
