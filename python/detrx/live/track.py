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
OTHER = 0.5
"""What an overlap counts between two classes: models change their mind about an object more often than it changes."""
_AGAIN, _WEAK, _NEW = 0.2, 0.5, 0.3
"""The least overlap with a track seen before, by an object of low score, and with a track in its second frame."""


@dataclass(frozen=True)
class TrackConfig:
    """How objects are followed."""

    low: float = 0.1
    """An object of a lower score than the threshold goes on with a track down to this score."""
    lost: float = 1.5
    """Seconds that a track waits for its object."""
    by_class: bool = True
    """A track keeps to its class, unless an object of another lies where its own should be; without it classes do
    not count."""

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
        boxes = found.boxes.astype(np.float64)
        same: NDArray[np.bool_] = overlaps(boxes, boxes) >= SAME
        at = self._pair_up(found, same, last)
        had = np.flatnonzero(at != NONE)
        self._motion.correct(at[had], found.boxes[had])
        self._seen[at[had]] = seconds
        self._labels[at[had]] = found.labels[had]
        fresh = at[had][self._ids[at[had]] == NONE]
        self._ids[np.sort(fresh)] = self._numbers(len(fresh))
        tracks: Indices = np.where(at == NONE, NONE, self._ids[at] if len(self._ids) else NONE)
        strong = found.scores >= self.high
        new = _distinct(same, np.flatnonzero(strong & (at == NONE)), beside=had)
        ids = self._numbers(len(new)) if first else np.full(len(new), NONE)
        tracks[new] = ids
        self._forget()
        self._begin(found[new], ids)
        kept = np.concatenate((had, new))
        single = ~_beside(same, kept)
        single[kept] = True
        return replace(found, tracks=tracks)[single]

    def _pair_up(self, found: Detections, same: NDArray[np.bool_], last: NDArray[np.bool_]) -> Indices:
        """(N,) the track of each object, or NONE; ``last`` are the tracks that were seen in the frame before."""
        at: Indices = np.full(len(found), NONE, np.int64)
        known, strong = self._ids != NONE, found.scores >= self.high
        self._join(found, at, known, strong, least=_AGAIN)
        self._join(found, at, known & last, ~strong & (found.scores >= self.config.low), least=_WEAK)
        self._join(found, at, ~known, strong, least=_NEW)
        _hand_over(same, found.scores, at)
        self._merge(same, at)
        return at

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
            gain = np.where(self._labels[rows][:, None] == found.labels[columns], gain, OTHER * gain)
        chosen, objects_chosen = pair(gain, least=least)
        at[columns[objects_chosen]] = rows[chosen]

    def _merge(self, same: NDArray[np.bool_], at: Indices) -> None:
        """Where two tracks have the same object the older one goes on; writes NONE into ``at`` of the other."""
        own = np.flatnonzero(at != NONE)
        ids = self._ids[at[own]]
        own = own[np.argsort(np.where(ids == NONE, self._next, ids), kind="stable")]
        at[np.setdiff1d(own, _distinct(same, own))] = NONE

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


def _hand_over(same: NDArray[np.bool_], scores: NDArray[np.float32], at: Indices) -> None:
    """Give each track to the best of the objects that are the same as its own and have none; writes into ``at``."""
    for one in np.flatnonzero((at != NONE) & _beside(same, np.flatnonzero(at == NONE))):
        others = np.flatnonzero(same[one] & (at == NONE) & (scores > scores[one]))
        if len(others):
            best = others[np.argmax(scores[others])]
            at[best], at[one] = at[one], NONE


def _distinct(same: NDArray[np.bool_], rows: Indices, *, beside: Optional[Indices] = None) -> Indices:
    """Those of the rows that are the same as none beside them and none before them."""
    taken = _beside(same, np.zeros(0, np.int64) if beside is None else beside)
    kept: List[int] = []
    for one in rows:
        if not taken[one]:
            kept.append(int(one))
            taken |= same[one]
    return np.array(kept, np.int64)


def _beside(same: NDArray[np.bool_], rows: Indices) -> NDArray[np.bool_]:
    """(N,) which are the same as one of the rows."""
    return np.asarray(same[:, rows].any(axis=1), np.bool_)


def worth_showing(found: Detections, score: float) -> Detections:
    """The objects from a score on, and those with a track: they go on through low scores."""
    keep = found.scores >= score
    if found.tracks is not None:
        keep = keep | (found.tracks != NONE)
    return found[keep]
