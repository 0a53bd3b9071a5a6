"""All that changes over a run, as pure functions of progress in [0, 1], and the clock that measures it.

Nothing counts in fixed steps: a run of 100 steps warms up and calms down as one of a million does.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field


def rate(progress: float, *, warmup: float, flat: float, final: float, fall: str = "cosine") -> float:
    """The learning rate as a share of its height, in [0, 1].

    Rises in a line from a hundredth over the first ``warmup`` share, stays at 1 for the next ``flat``
    share and falls along half a cosine to ``final`` at the end (flat cosine: RTMDet, https://arxiv.org/abs/2212.07784),
    or with the fall "step" to ``final`` at once (the first DETR).
    """
    if progress < warmup:
        return max(progress / warmup, 0.01)
    start = warmup + flat
    if progress < start or start >= 1:
        return 1.0
    if fall == "step":
        return final
    fallen = (min(progress, 1.0) - start) / (1 - start)
    return final + (1 - final) * 0.5 * (1 + math.cos(math.pi * fallen))


def ema_decay(progress: float, *, decay: float, ramp: float) -> float:
    """How much of the averaged weights stays, in [0, decay]: little at first, while they are poor."""
    return decay * (1 - math.exp(-progress / ramp))


def is_strong(progress: float, *, until: float) -> bool:
    """Whether mosaic and mixup are on."""
    return progress < until


@dataclass
class Clock:
    """How far a run is: by steps where its length is given in epochs, else by seconds as of the last ``tick``.

    Between two ticks progress stands still, so that all processes of a run, told the same time, decide the same.
    """

    steps: int | None
    """All optimiser steps of the run, or None where seconds count."""
    budget: float | None
    """Seconds that the run may take, or None where steps count."""
    step: int = 0
    """Optimiser steps done, the skipped ones included."""
    before: float = 0.0
    """Seconds that earlier processes of a resumed run took."""
    started: float = field(default_factory=lambda: time.monotonic())
    ticked: float = field(init=False)
    """Seconds at the last tick."""

    def __post_init__(self) -> None:
        self.ticked = self.before

    def tick(self, seconds: float | None = None) -> None:
        """Let time pass; to ``seconds``, where another process holds the clock."""
        self.ticked = self.seconds if seconds is None else seconds

    @property
    def seconds(self) -> float:
        """Time in this run, earlier processes included; a wall clock that jumps does not matter."""
        return self.before + time.monotonic() - self.started

    @property
    def progress(self) -> float:
        """In [0, 1]; of the coming step."""
        return self.progress_at(self.step)

    def progress_at(self, step: int) -> float:
        """In [0, 1]; of a step that is not yet done: as far as time has come where seconds count."""
        if self.steps is not None:
            return min(step / max(self.steps, 1), 1.0)
        return min(self.ticked / max(self.budget or 0.0, 1e-9), 1.0)

    @property
    def left(self) -> float:
        """Seconds that the rest will take, at the pace so far."""
        if self.steps is None:
            return max((self.budget or 0.0) - self.seconds, 0.0)
        done = self.progress
        return self.seconds * (1 - done) / done if done > 0 else math.inf
