"""What the training losses are made of. Free of torch, so that a training configuration may hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, fields
from typing import Literal, Optional

from detrx.errors import ConfigError
from detrx.ops.match_weights import MatchWeights


@dataclass(frozen=True)
class LossConfig:
    """The losses of RT-DETRv2, D-FINE and DEIM, and the denoising queries that go with them."""

    label: Literal["vfl", "mal"] = "mal"
    """Class loss: matching-aware (DEIM), or varifocal (RT-DETR, D-FINE)."""
    alpha: float = 0.75
    """Weight of the negatives in the varifocal loss; the matching-aware loss takes 1."""
    gamma: Optional[float] = None
    """Power of the class loss; None: the published 1.5 of the matching-aware loss, 2 of the varifocal one."""
    class_weight: float = 1.0
    """Weight of the class loss."""
    l1_weight: float = 5.0
    """Weight of the L1 distance of (cx, cy, w, h)."""
    giou_weight: float = 2.0
    """Weight of 1 - GIoU."""
    no_object: float = 0.1
    """Weight of a query that is matched to nothing, in the cross-entropy of the detr family; the others weigh 1."""
    fgl_weight: float = 0.15
    """Weight of the fine-grained localisation loss (D-FINE's distributions)."""
    ddf_weight: float = 1.5
    """Weight of the distillation of the last layer's distributions into the others (D-FINE)."""
    temperature: float = 5.0
    """Temperature of that distillation."""
    bins: int = 32
    """R: a distribution has R + 1 values."""
    reg_scale: float = 4.0
    """How the bins crowd around zero; the model's own value."""
    up: float = 0.5
    """The farthest bin, in sizes of the reference box over reg_scale; the model's own value."""
    union: bool = True
    """Teach boxes and distributions on the union of all layers' matches (D-FINE), where there are distributions."""
    match: MatchWeights = field(default_factory=MatchWeights)
    """What the matching cost is made of."""
    denoise: int = 100
    """About how many denoising queries an image gets; 0 for none."""
    label_noise: float = 0.5
    """Twice the share of denoising queries whose class is drawn anew, in [0, 1]."""
    box_noise: float = 1.0
    """How far denoising boxes are moved, in half sizes of the box."""
    mask_weight: float = 5.0
    """Weight of the masks' cross-entropy, for models with masks; 5 and 5 as in Mask DINO (arXiv 2206.02777). The
    detr family's, a focal loss, weighs 1 and its Dice loss 1 unless one of them is changed."""
    dice_weight: float = 5.0
    """Weight of the masks' Dice loss."""
    mask_cost: float = 5.0
    """Weight of that cross-entropy in the matching."""
    dice_cost: float = 5.0
    """Weight of the Dice loss in the matching."""
    mask_points: int = 1024
    """Points of each mask that the losses look at, mostly where the model is unsure, and of each picture that the
    matching looks at."""
    kernels: Literal["native", "reference"] = "native"
    """What computes the losses: our kernels, or plain torch, slower, to look for a fault."""

    @property
    def power(self) -> float:
        """The power of the class loss, settled."""
        usual = {"mal": 1.5, "vfl": 2.0}
        return usual[self.label] if self.gamma is None else self.gamma

    def __post_init__(self) -> None:
        if self.label not in ("vfl", "mal"):
            raise ConfigError(f'[LossConfig] label must be "vfl" or "mal", got {self.label!r}')
        if self.kernels not in ("native", "reference"):
            raise ConfigError(f'[LossConfig] kernels must be "native" or "reference", got {self.kernels!r}')
        for item in fields(self):
            value = getattr(self, item.name)
            if isinstance(value, float) and not (math.isfinite(value) and value >= 0):
                raise ConfigError(f"[LossConfig] {item.name} must be finite and >= 0, got {value}")
        if self.bins < 4 or self.bins % 2:
            raise ConfigError(f"[LossConfig] bins must be even and >= 4, got {self.bins}")
        if not 0 <= self.label_noise <= 1:
            raise ConfigError(f"[LossConfig] label_noise must be in [0, 1], got {self.label_noise}")
        if not isinstance(self.mask_points, int) or not 16 <= self.mask_points <= 1 << 20:
            raise ConfigError(
                f"[LossConfig] mask_points must be a whole number >= 16, got {self.mask_points}"
            )
        if not isinstance(self.denoise, int) or self.denoise < 0:
            raise ConfigError(f"[LossConfig] denoise must be a whole number >= 0, got {self.denoise}")
