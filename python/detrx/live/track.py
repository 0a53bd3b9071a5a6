"""One number for one object from frame to frame: ByteTrack (Zhang et al., 2022) over the real time between frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, List, Optional

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ConfigError
from detrx.live.motion import STEP, Motion
from detrx.live.pairs import Indices, overlaps, pair
from detrx.types import Detections, Frame

NONE = -1
"""What Detections.tracks says of an object without a track."""
SAME = 0.8
"""Overlap from which two are one object: DETRs name it again, in other classes, where they are not sure."""
_AGAIN, _WEAK, _NEW = 0.2, 0.5, 0.3
"""The least overlap with a track seen before, by an object of low score, and with a track in its second frame."""


@dataclass(frozen=True)
class TrackConfig:
    """How objects are followed."""

    low: float = 0.1
    """An object of a lower score than the threshold goes on with a track down to this score."""
    lost: float = 1.0
    """Seconds that a track waits for its object."""
    by_class: bool = True
    """A track is of one class; without it an object may change its class."""

    def __post_init__(self) -> None:
        if not 0 <= self.low <= 1 or not 0 <= self.lost <= 3600:
            raise ConfigError(
                f"[track] low must be a score in [0, 1] and lost 0 to 3600 seconds, got {self.low} and {self.lost}"
            )


class Tracker:
    """Numbers the objects of a film, from 1. A new object gets its number in its second frame, those of the first frame
    at once."""

    def __init__(self, config: Optional[TrackConfig] = None, *, high: float = 0.5) -> None:
        """``high`` is the score from which on an object can begin a track."""
        self.config = config if config is not None else TrackConfig()
        self.high = high
        self._motion = Motion(np.zeros((0, 4)))
        self._ids: Indices = np.zeros(0, np.int64)
        self._labels: Indices = np.zeros(0, np.int64)
        self._seen = np.zeros(0)
        self._now: Optional[float] = None
        self._next = 1

    def __call__(self, frame: Frame, found: Detections) -> Detections:
        """As a step of the loop."""
        return self.update(found, seconds=frame.seconds)

    def update(self, found: Detections, *, seconds: float) -> Detections:
        """The objects with ``tracks``, NONE where there is no track yet; what is named several times stays once.

        Args:
            found: all of a frame, also of low scores.
            seconds: of the frame on its source's clock; frames may be missing. A clock that stands or falls counts as
                one thirtieth of a second.
        """
        first, last = self._now is None, self._seen == self._now
        gap = STEP if self._now is None or seconds <= self._now else seconds - self._now
        if self._now is not None and seconds <= self._now:
            self._seen += seconds - gap - self._now
        self._now = seconds
        self._motion.predict(gap, unseen=~last)
        at: Indices = np.full(len(found), NONE, np.int64)
        known, strong = self._ids != NONE, found.scores >= self.high
        weak = ~strong & (found.scores >= self.config.low)
        self._join(found, at, known, strong, least=_AGAIN)
        self._join(found, at, known & last, weak, least=_WEAK)
        self._join(found, at, ~known, strong, least=_NEW)
        _hand_over(found, at)
        had = np.flatnonzero(at != NONE)
        self._motion.correct(at[had], found.boxes[had])
        self._seen[at[had]] = seconds
        self._labels[at[had]] = found.labels[had]
        fresh = at[had][self._ids[at[had]] == NONE]
        self._ids[np.sort(fresh)] = self._numbers(len(fresh))
        tracks: Indices = np.where(at == NONE, NONE, self._ids[at] if len(self._ids) else NONE)
        new = _apart(found, np.flatnonzero(strong & (at == NONE)), beside=had)
        ids = self._numbers(len(new)) if first else np.full(len(new), NONE)
        tracks[new] = ids
        self._forget()
        self._begin(found[new], ids)
        return replace(found, tracks=tracks)[_single(found, np.concatenate((had, new)))]

    def _join(
        self,
        found: Detections,
        at: Indices,
        tracks: NDArray[np.bool_],
        objects: NDArray[np.bool_],
        *,
        least: float,
    ) -> None:
        """Write into ``at`` the track of each of these objects, among tracks that have none."""
        free = tracks.copy()
        free[at[at != NONE]] = False
        rows, columns = np.flatnonzero(free), np.flatnonzero(objects & (at == NONE))
        if not len(rows) or not len(columns):
            return
        gain = overlaps(self._motion.boxes()[rows], found.boxes[columns].astype(np.float64))
        if self.config.by_class:
            gain = gain * (self._labels[rows][:, None] == found.labels[columns][None])
        chosen, objects_chosen = pair(gain, least=least)
        at[columns[objects_chosen]] = rows[chosen]

    def _numbers(self, count: int) -> Indices:
        self._next += count
        return np.arange(self._next - count, self._next, dtype=np.int64)

    def _forget(self) -> None:
        """Tracks without an object for too long, and those that had one in a single frame."""
        now: Any = self._now
        keep = np.where(self._ids == NONE, self._seen == now, now - self._seen <= self.config.lost)
        self._motion.keep(keep)
        self._ids, self._labels, self._seen = self._ids[keep], self._labels[keep], self._seen[keep]

    def _begin(self, new: Detections, ids: Indices) -> None:
        self._motion.join(Motion(new.boxes))
        self._ids = np.concatenate((self._ids, ids))
        self._labels = np.concatenate((self._labels, new.labels))
        self._seen = np.concatenate((self._seen, np.full(len(new), self._now, np.float64)))


def _hand_over(found: Detections, at: Indices) -> None:
    """Give each track to the best of the objects that are the same as its own and have none; writes into ``at``."""
    boxes, own = found.boxes.astype(np.float64), np.flatnonzero(at != NONE)
    free = np.flatnonzero(at == NONE)
    for one, same in zip(own, overlaps(boxes[own], boxes[free]) >= SAME):
        others = free[same & (at[free] == NONE) & (found.scores[free] > found.scores[one])]
        if len(others):
            best = others[np.argmax(found.scores[others])]
            at[best], at[one] = at[one], NONE


def _single(found: Detections, kept: Indices) -> NDArray[np.bool_]:
    """Which objects are kept, or not the same as one that is."""
    boxes = found.boxes.astype(np.float64)
    single = np.asarray((overlaps(boxes, boxes[kept]) < SAME).all(axis=1), np.bool_)
    single[kept] = True
    return single


def _apart(found: Detections, new: Indices, *, beside: Indices) -> Indices:
    """Those of the new that are not the same as one beside them or a better new one."""
    boxes = found.boxes.astype(np.float64)
    kept: List[int] = []
    for one in new:
        others = boxes[[*beside, *kept]].reshape(-1, 4)
        if (overlaps(boxes[one][None], others) < SAME).all():
            kept.append(int(one))
    return np.array(kept, np.int64)


def worth_showing(found: Detections, score: float) -> Detections:
    """The objects from a score on, and those with a track: they go on through low scores."""
    keep = found.scores >= score
    if found.tracks is not None:
        keep = keep | (found.tracks != NONE)
    return found[keep]
