"""Films of boxes that walk and hide each other, and a detector that shakes, misses and invents at known rates."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detrx.live.pairs import overlaps
from detrx.types import Detections

SIZE = (1080, 1920)
VISIBLE = 0.25
"""Share of a box that nothing nearer covers, from which on it is part of the truth."""


@dataclass(frozen=True)
class Noise:
    """What the detector does wrong."""

    missed: float = 0.1
    """Share of the boxes that it misses, of those in plain sight."""
    shake: float = 0.03
    """Standard deviation of each edge, as a share of the side."""
    false: float = 0.05
    """False boxes a frame, for each object of the film; their scores are low, some are not."""
    twice: float = 0.03
    """Share of the boxes that it names a second time."""


class Walk:
    """Objects in a hall: each on its own bent path, the nearer ones larger, for part of the film or all of it."""

    def __init__(self, *, objects: int, seconds: float, seed: int) -> None:
        rng = np.random.default_rng((seed, objects))
        self._seed = seed
        self._near = np.sort(rng.uniform(0, 1, objects))
        """How near; a higher number is in front."""
        scale = (10 / max(objects, 10)) ** 0.35
        height = scale * (80 + 200 * self._near) * rng.uniform(0.8, 1.2, objects)
        self._sides = np.column_stack((height * rng.uniform(0.35, 1.0, objects), height))
        self._start = rng.uniform(0, 1, (objects, 2)) * SIZE[::-1]
        heading = rng.uniform(0, 2 * np.pi, objects)
        self._speed = np.column_stack((np.cos(heading), 0.5 * np.sin(heading))) * (
            height * rng.uniform(0.1, 1.4, objects)
        ).reshape(-1, 1)
        self._bend = rng.uniform(0.1, 0.5, objects), rng.uniform(0, 6, objects), rng.uniform(0, 0.4, objects)
        first = rng.uniform(-0.5, 0.6, objects) * seconds
        self._life = first, np.maximum(first, 0) + rng.uniform(0.4, 1.2, objects) * seconds

    def truth(self, seconds: float) -> Detections:
        """What is to be seen, with how much of each box as its score."""
        rate, phase, share = self._bend
        sway = share[:, None] * self._sides * np.sin(2 * np.pi * rate * seconds + phase)[:, None]
        at = self._start + self._speed * seconds + sway
        for axis, length in enumerate(SIZE[::-1]):
            turned = at[:, axis] % (2 * length)
            at[:, axis] = np.where(turned <= length, turned, 2 * length - turned)
        here = np.flatnonzero((self._life[0] <= seconds) & (seconds <= self._life[1]))
        boxes = np.hstack((at - self._sides / 2, at + self._sides / 2))[here]
        boxes = np.clip(boxes, 0, [*SIZE[::-1]] * 2)
        seen = 1 - _covered(boxes)
        good = (seen >= VISIBLE) & ((boxes[:, 2:] - boxes[:, :2]).min(axis=1) >= 8)
        return Detections(
            boxes[good].astype(np.float32),
            seen[good].astype(np.float32),
            (here[good] % 2).astype(np.int64),
            tracks=here[good] + 1,
        )

    def found(self, seconds: float, noise: Noise) -> Detections:
        """What the detector says of it, best first."""
        rng = np.random.default_rng((self._seed, 7, round(seconds * 1e3)))
        truth = self.truth(seconds)
        n = len(truth)
        named = rng.uniform(size=n) > noise.missed + 0.3 * (1 - truth.scores)
        again = named & (rng.uniform(size=n) < noise.twice)
        chosen = np.concatenate((np.flatnonzero(named), np.flatnonzero(again)))
        boxes, sides = truth.boxes[chosen], np.tile(truth.boxes[chosen, 2:] - truth.boxes[chosen, :2], 2)
        boxes = boxes + noise.shake * sides * rng.normal(size=boxes.shape)
        scores = np.clip(0.25 + 0.65 * truth.scores[chosen] + 0.1 * rng.normal(size=len(chosen)), 0.05, 0.99)
        scores[named.sum() :] *= rng.uniform(0.4, 1, again.sum())
        extra = rng.poisson(noise.false * len(self._near))
        height = rng.uniform(30, 200, extra)
        corner = rng.uniform(0, 1, (extra, 2)) * SIZE[::-1]
        false = np.column_stack((corner, corner + np.column_stack((0.6 * height, height))))
        scores = np.concatenate((scores, 0.05 + 0.55 * rng.uniform(size=extra) ** 2))
        labels = np.concatenate((truth.labels[chosen], rng.integers(0, 2, extra)))
        order = np.argsort(-scores)
        return Detections(
            np.concatenate((boxes, false))[order].astype(np.float32),
            scores[order].astype(np.float32),
            labels[order].astype(np.int64),
        )


def _covered(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """(N,) the share of each box that the one of all nearer ones that hides most of it covers."""
    area = np.prod(boxes[:, 2:] - boxes[:, :2], axis=1)
    share = overlaps(boxes, boxes)
    shared = share * np.add.outer(area, area) / (1 + share)
    shared[np.tril_indices(len(boxes))] = 0
    return np.asarray((shared / np.maximum(area, 1e-9)[:, None]).max(axis=1, initial=0))
