"""Panoptic quality (arXiv 1801.00868): how well a picture was divided among things and stuff. NumPy only."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import Dict, List, Mapping, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DataError
from detrx.types import Panoptic

VOID = 0
"""The id of pixels that are nobody's; what lies there is neither right nor wrong."""


@dataclass(frozen=True)
class Quality:
    """Of one class, or the mean over some."""

    pq: float
    """Panoptic quality, sq * rq for one class, in [0, 1]."""
    sq: float
    """Segmentation quality: mean IoU of the segments that were found."""
    rq: float
    """Recognition quality: the F1 score of finding them."""
    classes: int = 1
    """How many classes the mean is over: those with a segment in truth or answers."""


@dataclass(frozen=True)
class PanopticMetrics:
    """The qualities over all classes, things and stuff, and of each class that occurs."""

    all: Quality
    things: Quality
    stuff: Quality
    per_class: Dict[str, Quality] = field(default_factory=dict)
    counts: Dict[str, int] = field(default_factory=dict)
    """images, truths, found, and matched segments."""

    def numbers(self) -> Dict[str, float]:
        """pq, sq and rq of all, pq_things and pq_stuff."""
        every = self.all
        parts = {"pq_things": self.things.pq, "pq_stuff": self.stuff.pq}
        return {"pq": every.pq, "sq": every.sq, "rq": every.rq, **parts}

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


@dataclass(frozen=True)
class Division:
    """A picture's segments, true or found."""

    ids: NDArray[np.int32]
    """(H, W) the segment of each pixel, VOID for none."""
    classes: Mapping[int, int]
    """The class of each segment by its id."""
    crowds: Tuple[int, ...] = ()
    """Ids of true segments that hold many objects: who finds them is neither right nor wrong."""


def division_of(found: Panoptic) -> Division:
    """What a model says of a picture."""
    return Division(found.segments_map, {one.id: one.label for one in found.segments})


class PanopticScore:
    """Adds up pictures; a segment is found where one of its class overlaps it by an IoU over one half."""

    def __init__(self, classes: int) -> None:
        self.overlap = np.zeros(classes)
        """Sum of the IoU of found segments, by class."""
        self.matched, self.missed, self.wrong = (np.zeros(classes, np.int64) for _ in range(3))
        """True positives, false negatives and false positives, by class."""
        self.images = 0

    def add(self, truth: Division, found: Division) -> None:
        """One picture.

        Raises:
            DataError: the sizes differ, a pixel is of no known segment, or a segment has no pixel.
        """
        if truth.ids.shape != found.ids.shape:
            raise DataError(
                f"[panoptic] found segments must be of the picture's size {truth.ids.shape}, got {found.ids.shape}"
            )
        pairs, areas, found_areas = _overlaps(truth, found)
        seen, taken = set(), set()
        for (one, other), common in pairs.items():
            if VOID in (one, other) or one in truth.crowds or truth.classes[one] != found.classes[other]:
                continue
            union = areas[one] + found_areas[other] - common - pairs.get((VOID, other), 0)
            if common / union > 0.5:
                label = truth.classes[one]
                self.matched[label] += 1
                self.overlap[label] += common / union
                seen.add(one)
                taken.add(other)
        for one, label in truth.classes.items():
            self.missed[label] += one not in seen and one not in truth.crowds
        crowd_of = {truth.classes[one]: one for one in truth.crowds}
        for other, label in found.classes.items():
            # What lies mostly on nothing, or on a crowd of its class, is not held against it.
            excused = pairs.get((VOID, other), 0) + pairs.get((crowd_of.get(label, -1), other), 0)
            self.wrong[label] += other not in taken and excused / found_areas[other] <= 0.5
        self.images += 1

    def merge(self, other: PanopticScore) -> None:
        """Add the pictures that another score has seen."""
        for name in ("overlap", "matched", "missed", "wrong"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.images += other.images

    def metrics(self, *, names: Sequence[str], things: Sequence[bool]) -> PanopticMetrics:
        """The means; classes without any segment do not count."""
        occur = [i for i in range(len(names)) if self.matched[i] + self.missed[i] + self.wrong[i]]
        quality = {i: self._quality(i) for i in occur}
        return PanopticMetrics(
            all=_mean(list(quality.values())),
            things=_mean([quality[i] for i in occur if things[i]]),
            stuff=_mean([quality[i] for i in occur if not things[i]]),
            per_class={names[i]: quality[i] for i in occur},
            counts={
                "images": self.images,
                "truths": int((self.matched + self.missed).sum()),
                "found": int((self.matched + self.wrong).sum()),
                "matched": int(self.matched.sum()),
            },
        )

    def _quality(self, label: int) -> Quality:
        matched = int(self.matched[label])
        half = matched + 0.5 * float(self.wrong[label]) + 0.5 * float(self.missed[label])
        overlap = float(self.overlap[label])
        return Quality(overlap / half, overlap / matched if matched else 0.0, matched / half)


def _overlaps(
    truth: Division, found: Division
) -> Tuple[Dict[Tuple[int, int], int], Dict[int, int], Dict[int, int]]:
    """Pixels that each pair of segments shares, and those of each true and each found segment."""
    both = truth.ids.astype(np.int64) << 32 | found.ids.astype(np.int64)
    keys, counts = np.unique(both, return_counts=True)
    pairs: Dict[Tuple[int, int], int] = {}
    areas: Dict[int, int] = {}
    found_areas: Dict[int, int] = {}
    for key, count in zip(keys.tolist(), counts.tolist()):
        one, other = key >> 32, key & 0xFFFFFFFF
        pairs[one, other] = count
        areas[one] = areas.get(one, 0) + count
        found_areas[other] = found_areas.get(other, 0) + count
    _check(areas, truth.classes, "true")
    _check(found_areas, found.classes, "found")
    return pairs, areas, found_areas


def _check(areas: Mapping[int, int], classes: Mapping[int, int], kind: str) -> None:
    differ = (set(areas) - {VOID}) ^ set(classes)
    if differ:
        raise DataError(
            f"[panoptic] the {kind} segments must be those of the pixels, found {sorted(differ)[:5]} only on one side"
        )


def _mean(every: List[Quality]) -> Quality:
    if not every:
        return Quality(0.0, 0.0, 0.0, 0)
    parts = np.array([(one.pq, one.sq, one.rq) for one in every]).mean(0)
    return Quality(float(parts[0]), float(parts[1]), float(parts[2]), len(every))
