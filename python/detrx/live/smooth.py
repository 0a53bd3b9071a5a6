"""Boxes that do not shake: the One-Euro filter (Casiez et al., 2012) over the boxes of each track."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ConfigError
from detrx.types import Detections, Frame

SPEED_HZ = 1.0
"""Cutoff of the filter of the speed itself, as in the paper."""
_CENTRE, _SIDES = slice(0, 2), slice(2, 4)


@dataclass(frozen=True)
class SmoothConfig:
    """How boxes are smoothed."""

    rest: float = 1.0
    """Hertz that get through at rest: lower is steadier."""
    quick: float = 8.0
    """Hertz more for each box length a second that an object moves or grows: higher lags less."""
    reset: float = 0.5
    """Seconds out of sight after which an object begins anew."""

    def __post_init__(self) -> None:
        if not 0 < self.rest <= 1000 or not 0 <= self.quick <= 1000 or not 0 < self.reset <= 3600:
            raise ConfigError(
                f"[smooth] rest must be above 0, quick 0 or more, both 1000 at most, and reset 3600 seconds at most, "
                f"got {self.rest}, {self.quick} and {self.reset}"
            )


class Smoother:
    """Smooths the boxes of tracks; a step of the loop, after tracking. What has no track passes as it is."""

    def __init__(self, config: Optional[SmoothConfig] = None) -> None:
        self.config = config if config is not None else SmoothConfig()
        self._ids = np.zeros(0, np.int64)
        self._at = np.zeros((0, 4))
        """Centre and sides, in pixels."""
        self._speed = np.zeros((0, 4))
        """The same in a second."""
        self._seen = np.zeros(0)

    def __call__(self, frame: Frame, found: Detections) -> Detections:
        """As a step of the loop."""
        return self.update(found, seconds=frame.seconds)

    def update(self, found: Detections, *, seconds: float) -> Detections:
        """The same objects with smoothed boxes.

        Args:
            found: with tracks, each number once.
            seconds: of the frame on its source's clock. Where it stands or falls, the boxes begin anew.

        Raises:
            ValueError: the detections have no tracks.
        """
        if found.tracks is None:
            raise ValueError("[smooth] the detections must have tracks; put a Tracker before Smoother")
        rows = np.flatnonzero(found.tracks >= 0)
        self._forget(seconds)
        boxes = found.boxes[rows].astype(np.float64)
        now = np.hstack(((boxes[:, :2] + boxes[:, 2:]) / 2, boxes[:, 2:] - boxes[:, :2]))
        ids = found.tracks[rows]
        at, speed = now.copy(), np.zeros_like(now)
        places = np.searchsorted(self._ids, ids)
        old = np.flatnonzero(np.append(self._ids, -1)[places] == ids)
        places = places[old]
        at[old], speed[old] = self._filter(now[old], places, seconds - self._seen[places])
        self._take(ids, at, speed, seconds)
        smooth = found.boxes.copy()
        smooth[rows] = np.hstack((at[:, :2] - at[:, 2:] / 2, at[:, :2] + at[:, 2:] / 2))
        return replace(found, boxes=smooth)

    def _filter(
        self, now: NDArray[np.float64], places: NDArray[np.int64], gap: NDArray[np.float64]
    ) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Centres, sides and their speeds after these seconds."""
        before, gap = self._at[places], gap[:, None]
        speed = self._speed[places]
        speed = speed + _share(SPEED_HZ, gap) * ((now - before) / gap - speed)
        length = np.sqrt(np.maximum(now[:, 2:].prod(axis=1), 1.0))
        at = before.copy()
        for part in (_CENTRE, _SIDES):
            pace = np.hypot(speed[:, part][:, 0], speed[:, part][:, 1]) / length
            hertz = self.config.rest + self.config.quick * pace
            at[:, part] += _share(hertz[:, None], gap) * (now - before)[:, part]
        return at, speed

    def _forget(self, seconds: float) -> None:
        gap = seconds - self._seen
        self._keep(np.flatnonzero((gap > 0) & (gap <= self.config.reset)))

    def _take(
        self, ids: NDArray[np.int64], at: NDArray[np.float64], speed: NDArray[np.float64], seconds: float
    ) -> None:
        """Remember these, in the place of what was known of them; the numbers stay sorted."""
        self._keep(np.flatnonzero(~np.isin(self._ids, ids)))
        self._ids = np.concatenate((self._ids, ids))
        self._at, self._speed = np.concatenate((self._at, at)), np.concatenate((self._speed, speed))
        self._seen = np.concatenate((self._seen, np.full(len(ids), seconds)))
        self._keep(np.argsort(self._ids, kind="stable"))

    def _keep(self, rows: NDArray[np.int64]) -> None:
        self._ids, self._at = self._ids[rows], self._at[rows]
        self._speed, self._seen = self._speed[rows], self._seen[rows]


def _share(hertz: Union[float, NDArray[np.float64]], gap: NDArray[np.float64]) -> NDArray[np.float64]:
    """What of a change gets through a low pass of this cutoff in these seconds, in (0, 1)."""
    turn = 2 * np.pi * np.asarray(hertz) * gap
    return np.asarray(turn / (turn + 1))
