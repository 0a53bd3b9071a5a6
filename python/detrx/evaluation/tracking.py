"""How well objects were followed: HOTA (Luiten et al., 2021), IDF1 (Ristani et al., 2016) and CLEAR MOT (Bernardin and
Stiefelhagen, 2008), as MOTChallenge counts them. NumPy only.
"""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any, Dict, Iterable, List, Mapping, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DataError
from detrx.live.pairs import Indices, overlaps, pair
from detrx.types import Detections

Film = Mapping[int, Detections]
"""Frame -> what is in it, with tracks; objects without a track (-1) do not count."""
STEPS = np.arange(1, 20) / 20
"""Overlaps from which HOTA calls a box found; it is the mean over them."""
FOUND = 0.5
"""The same of IDF1 and CLEAR MOT."""
_EPS = 1e-9


@dataclass(frozen=True)
class TrackCounts:
    """What adds up over films."""

    frames: int = 0
    truths: int = 0
    """True boxes."""
    found: int = 0
    """Boxes with a track."""
    objects: int = 0
    """True objects."""
    tracks: int = 0
    matched: int = 0
    """True boxes that CLEAR MOT finds."""
    overlap: float = 0.0
    """Sum over those."""
    switches: int = 0
    """Times that an object goes on under another number."""
    fragments: int = 0
    """Times that an object is found again after frames in which it was not."""
    mostly_tracked: int = 0
    """Objects that are found in more than four fifths of their frames."""
    mostly_lost: int = 0
    """Objects that are found in less than a fifth."""
    same: int = 0
    """Boxes that agree when each object is given the one track that serves best."""
    met: Any = 0
    """(19,) true boxes that are found at each of STEPS."""
    met_overlap: Any = 0.0
    """(19,) sum of overlaps of those."""
    met_together: Any = 0.0
    """(19,) sum over those of how much of object and track lies in their common frames, in [0, 1] each."""

    def __add__(self, other: TrackCounts) -> TrackCounts:
        return TrackCounts(*(getattr(self, f.name) + getattr(other, f.name) for f in fields(self)))

    def metrics(self) -> TrackMetrics:
        """Shares of what was counted; nan where there was nothing to be found and nothing was."""
        met, wrong = np.broadcast_to(self.met, STEPS.shape), self.found - self.matched
        detection = _share(met, self.truths + self.found - met)
        association = _share(self.met_together, np.maximum(met, 1)) * np.ones_like(STEPS)
        return TrackMetrics(
            hota=float(np.sqrt(detection * association).mean()),
            det_a=float(detection.mean()),
            ass_a=float(association.mean()),
            loc_a=float(np.where(met > 0, _share(self.met_overlap, np.maximum(met, 1)), 1.0).mean()),
            idf1=float(_share(2 * self.same, self.truths + self.found)),
            mota=float(_share(self.matched - wrong - self.switches, self.truths)),
            motp=float(_share(self.overlap, self.matched)),
            switches=self.switches,
            fragments=self.fragments,
            missed=self.truths - self.matched,
            false=wrong,
            mostly_tracked=self.mostly_tracked,
            mostly_lost=self.mostly_lost,
            objects=self.objects,
            tracks=self.tracks,
            frames=self.frames,
        )


@dataclass(frozen=True)
class TrackMetrics:
    """The numbers of one film, or of several together."""

    hota: float
    """sqrt(DetA * AssA), mean over STEPS, in [0, 1]."""
    det_a: float
    """Boxes found among those found, missed and false."""
    ass_a: float
    """Of the boxes found: how much of the object's and the track's frames are common to both."""
    loc_a: float
    """Mean overlap of the boxes found."""
    idf1: float
    """F1 score of boxes, where each object may have one track and each track one object."""
    mota: float
    """1 - (missed + false + switches) / truths: 1 at best, without a lower end."""
    motp: float
    """Mean overlap of the boxes that MOTA calls found."""
    switches: int
    fragments: int
    missed: int
    false: int
    mostly_tracked: int
    mostly_lost: int
    objects: int
    tracks: int
    frames: int


def score(truth: Film, found: Film, *, by_class: bool = False) -> TrackMetrics:
    """The metrics of one film. ``count`` adds up over several."""
    return count(truth, found, by_class=by_class).metrics()


def count(truth: Film, found: Film, *, by_class: bool = False) -> TrackCounts:
    """Compare tracks with the truth.

    Args:
        truth: true boxes with the number of their object. A score of 0 marks what is neither right nor wrong to follow.
        found: what was followed; frames that are missing hold nothing.
        by_class: boxes of two classes never are the same object.

    Raises:
        DataError: a number stands twice in a frame.
    """
    views, ids, tracks = _views(truth, found, by_class=by_class)
    total = TrackCounts(
        frames=len(set(truth) | set(found)),
        truths=sum(len(view.true) for view in views),
        found=sum(len(view.found) for view in views),
        objects=ids,
        tracks=tracks,
        same=_same(views, (ids, tracks)),
    )
    return total + _clear(views, ids) + _met(views, (ids, tracks))


@dataclass(frozen=True)
class _View:
    """One frame: numbers counted from 0 through the film, and who overlaps whom."""

    true: Indices
    found: Indices
    overlap: NDArray[np.float64]
    """(true, found)."""


def _views(truth: Film, found: Film, *, by_class: bool) -> Tuple[List[_View], int, int]:
    empty = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    rows = []
    for frame in sorted(set(truth) | set(found)):
        true, seen = (_tracked(film.get(frame, empty), frame) for film in (truth, found))
        overlap = _overlap(true, seen, by_class=by_class)
        counts, stays = true.scores > 0, np.ones(len(seen), bool)
        if not counts.all():
            which, own = pair(overlap, least=FOUND)
            stays[own[~counts[which]]] = False
        rows.append((_ids(true)[counts], _ids(seen)[stays], overlap[counts][:, stays]))
    known, of_true = _number(row[0] for row in rows)
    tracks, of_found = _number(row[1] for row in rows)
    return [_View(*view) for view in zip(of_true, of_found, (row[2] for row in rows))], known, tracks


def _tracked(found: Detections, frame: int) -> Detections:
    kept = found[_ids(found) >= 0]
    if len(np.unique(_ids(kept))) < len(kept):
        raise DataError(f"[tracking] frame {frame}: each number must stand once, got {sorted(_ids(kept))}")
    return kept


def _ids(found: Detections) -> Indices:
    return np.full(len(found), -1, np.int64) if found.tracks is None else found.tracks


def _overlap(true: Detections, seen: Detections, *, by_class: bool) -> NDArray[np.float64]:
    shared = overlaps(true.boxes.astype(np.float64), seen.boxes.astype(np.float64))
    return shared * (true.labels[:, None] == seen.labels) if by_class else shared


def _number(rows: Iterable[Indices]) -> Tuple[int, List[Indices]]:
    """How many numbers there are, and the same rows with numbers counted from 0."""
    rows = list(rows)
    known, flat = np.unique(np.concatenate([np.zeros(0, np.int64), *rows]), return_inverse=True)
    return len(known), np.split(flat.reshape(-1), np.cumsum([len(row) for row in rows]))[: len(rows)]


def _same(views: List[_View], shape: Tuple[int, int]) -> int:
    """IDF1: the frames that each object shares with each track, and the best way to pair those up."""
    shared = np.zeros(shape)
    for view in views:
        shared[np.ix_(view.true, view.found)] += view.overlap >= FOUND
    rows, columns = pair(shared, least=0.5)
    return int(shared[rows, columns].sum())


def _clear(views: List[_View], ids: int) -> TrackCounts:
    """CLEAR MOT: a pair that still overlaps goes on, the others are paired for the most overlap."""
    before, last = np.full(ids, -1), np.full(ids, -1)
    seen, hit, begun = np.zeros(ids, int), np.zeros(ids, int), np.zeros(ids, int)
    overlap, switches = 0.0, 0
    for view in views:
        rows, columns = _go_on(view, before)
        true, track = view.true[rows], view.found[columns]
        switches += int(((last[true] >= 0) & (last[true] != track)).sum())
        begun[true[before[true] < 0]] += 1
        seen[view.true] += 1
        hit[true] += 1
        overlap += float(view.overlap[rows, columns].sum())
        before[:] = -1
        before[true] = last[true] = track
    return TrackCounts(
        matched=int(hit.sum()),
        overlap=overlap,
        switches=switches,
        fragments=int(np.maximum(begun - 1, 0).sum()),
        mostly_tracked=int((hit > 0.8 * seen + _EPS).sum()),
        mostly_lost=int((hit < 0.2 * seen - _EPS).sum()),
    )


def _go_on(view: _View, before: NDArray[Any]) -> Tuple[Indices, Indices]:
    """The pairs of a frame: row and column of each."""
    allowed = np.where(view.overlap >= FOUND - _EPS, view.overlap, 0.0)
    old = np.nonzero((allowed > 0) & (before[view.true][:, None] == view.found))
    allowed[old[0]] = 0
    allowed[:, old[1]] = 0
    new = pair(allowed, least=_EPS)
    return np.concatenate((old[0], new[0])), np.concatenate((old[1], new[1]))


def _met(views: List[_View], shape: Tuple[int, int]) -> TrackCounts:
    """HOTA: pairs of a frame are those that overlap most, in it and through the film."""
    own, others = np.zeros(shape[0]), np.zeros(shape[1])
    through = np.zeros(shape)
    for view in views:
        either = view.overlap.sum(1, keepdims=True) + view.overlap.sum(0) - view.overlap
        through[np.ix_(view.true, view.found)] += view.overlap / np.maximum(either, _EPS)
        own[view.true] += 1
        others[view.found] += 1
    through /= np.maximum(np.add.outer(own, others) - through, _EPS)
    pairs, shares = [np.zeros((2, 0), np.int64)], [np.zeros(0)]
    for view in views:
        rows, columns = pair(view.overlap * through[np.ix_(view.true, view.found)], least=1e-12)
        pairs.append(np.stack((view.true[rows], view.found[columns])))
        shares.append(view.overlap[rows, columns])
    overlap, names = np.concatenate(shares), np.concatenate(pairs, axis=1)
    met, met_overlap, together = (np.zeros(len(STEPS)) for _ in range(3))
    for at, least in enumerate(STEPS):
        good = overlap >= least - _EPS
        which, common = np.unique(names[:, good], axis=1, return_counts=True)
        met[at], met_overlap[at] = good.sum(), overlap[good].sum()
        together[at] = (common * common / (own[which[0]] + others[which[1]] - common)).sum()
    return TrackCounts(met=met, met_overlap=met_overlap, met_together=together)


def _share(part: Any, whole: Any) -> Any:
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.divide(part, whole)


def as_row(found: TrackMetrics) -> Dict[str, Any]:
    """For JSON: shares rounded to six digits, nan as null."""
    return {
        name: value if isinstance(value, int) else None if np.isnan(value) else round(value, 6)
        for name, value in ((f.name, getattr(found, f.name)) for f in fields(found))
    }
