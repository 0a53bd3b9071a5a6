"""How much each part of the matching cost counts. Free of torch, so that a configuration may hold it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from detrx.errors import ConfigError


@dataclass(frozen=True)
class MatchWeights:
    """The matching cost: class_ * class cost + l1 * distance - giou * overlap."""

    class_: float = 2.0
    """Weight of the class cost."""
    l1: float = 5.0
    """Weight of the L1 distance of (cx, cy, w, h)."""
    giou: float = 2.0
    """Weight of the generalised IoU."""
    alpha: float = 0.25
    """The focal cost's share of positives, in [0, 1]."""
    gamma: float = 2.0
    """The focal cost's power."""
    class_cost: Literal["focal", "softmax"] = "focal"
    """At the target's class: what a positive adds to the sigmoid focal loss less what a negative does, or, for a
    network trained with cross-entropy (DETR), less the softmax's probability."""

    def __post_init__(self) -> None:
        if self.class_cost not in ("focal", "softmax"):
            raise ConfigError(
                f'[MatchWeights] class_cost must be "focal" or "softmax", got {self.class_cost!r}'
            )
        if not all(math.isfinite(value) for value in self.numbers):
            raise ConfigError(f"[MatchWeights] weights must be finite, got {self}")
        if min(self.class_, self.l1, self.giou) < 0 or self.class_ + self.l1 + self.giou == 0:
            raise ConfigError(f"[MatchWeights] weights must be >= 0 and not all 0, got {self}")
        if not 0 <= self.alpha <= 1 or self.gamma < 0:
            raise ConfigError(f"[MatchWeights] alpha must be in [0, 1] and gamma >= 0, got {self}")

    @property
    def numbers(self) -> list[float]:
        """class_, l1, giou, alpha and gamma, as the native kernels take them."""
        return [self.class_, self.l1, self.giou, self.alpha, self.gamma]
