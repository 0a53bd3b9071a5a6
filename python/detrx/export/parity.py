"""The gate of every export: the same pictures through the model and through what was written."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ExportError
from detrx.preprocess import lay
from detrx.runtime.backend import Backend
from detrx.types import ModelInfo, Raw


@dataclass(frozen=True)
class Limits:
    """How far an answer may be from the model's."""

    score: float = 1e-3
    box: float = 0.5
    """Pixels of the canvas."""
    mask: float = 0.1
    """Logits of masks, whose edge is at 0 and whose inside mostly above 2."""
    floor: float = 0.01
    """Detections below this score may sit anywhere, but for the best of each image."""
    best: int = 20
    ap: float | None = None
    """Points of AP, of 100, that may be lost; where a data set is given, this decides in place of the others."""


SURE = 4.0
"""Mask logits beyond it (0.98) say the same however large they are. Trained ones reach 900, which a half rounds
by 0.25: half precision then moves a logit on an edge by more than 1, and turns one pixel in 2000 of a mask."""

LIMITS = {
    "fp32": Limits(),
    "fp16": Limits(0.1, 4.0, 2.0, floor=0.3, best=0, ap=0.3),
    "bf16": Limits(0.15, 12.0, 4.0, floor=0.3, best=0, ap=0.5),
    "int8": Limits(0.2, 12.0, 4.0, floor=0.4, best=0, ap=0.5),
    "int8-b": Limits(0.25, 16.0, 4.0, floor=0.4, best=0, ap=1.0),
    "int8-cpu": Limits(0.25, 16.0, 4.0, floor=0.4, best=0, ap=0.5),
    "int4": Limits(0.25, 16.0, 4.0, floor=0.4, best=0, ap=1.0),
}
"""Of each precision. What is rounded may choose another of two queries that are nearly alike, so that of what is not
exact only confident detections are compared."""
EXACT = LIMITS["fp32"]


class ParityError(ExportError):
    """What was written does not answer as the model does."""

    def __init__(self, message: str, report: ParityReport) -> None:
        super().__init__(message)
        self.report = report


@dataclass(frozen=True)
class ImageParity:
    """One picture's largest differences."""

    name: str
    score: float
    """In [0, 1]."""
    box: float
    """Pixels of the canvas; infinite where a detection has no counterpart of its class."""
    mask: float = 0.0
    """Logits; infinite where one side has no masks, or of another size."""


@dataclass(frozen=True)
class ParityReport:
    """How far two backends are apart."""

    reference: str
    exported: str
    images: tuple[ImageParity, ...]
    limits: Limits = EXACT
    ap: tuple[float, float] | None = None
    """AP of the reference and of what was exported, in points of 100, on ``ap_images`` pictures; None: not measured."""
    ap_images: int = 0

    @property
    def score(self) -> float:
        return max((one.score for one in self.images), default=float("inf"))

    @property
    def box(self) -> float:
        return max((one.box for one in self.images), default=float("inf"))

    @property
    def mask(self) -> float:
        return max((one.mask for one in self.images), default=float("inf"))

    @property
    def passed(self) -> bool:
        """Written so that a NaN does not pass."""
        if self.ap is not None and self.limits.ap is not None:
            return self.ap[0] - self.ap[1] <= self.limits.ap and np.isfinite(self.score)
        limits = self.limits
        near = [
            i.score <= limits.score and i.box <= limits.box and i.mask <= limits.mask for i in self.images
        ]
        return bool(near) and all(near)

    def table(self, rows: int = 5) -> str:
        """The largest differences first, as text."""
        worst = sorted(self.images, key=self._distance, reverse=True)[:rows]
        lines = [f"{'picture':<24} {'score':>9} {'box (px)':>9} {'mask':>9}"]
        lines += [f"{one.name[-24:]:<24} {one.score:9.2e} {one.box:9.3f} {one.mask:9.2e}" for one in worst]
        limits = self.limits
        lines.append(f"{'limit':<24} {limits.score:9.2e} {limits.box:9.3f} {limits.mask:9.2e}")
        if self.ap is not None:
            may = "" if limits.ap is None else f", {limits.ap:.1f} may be lost"
            lines.append(f"AP {self.ap[0]:.2f} -> {self.ap[1]:.2f} on {self.ap_images} pictures{may}")
        return "\n".join(lines)

    def _distance(self, one: ImageParity) -> float:
        far = max(one.score / self.limits.score, one.box / self.limits.box, one.mask / self.limits.mask)
        return far if far == far else float("inf")


def check(
    reference: Backend,
    exported: Backend,
    images: Iterable[tuple[str, NDArray[np.uint8]]],
    *,
    limits: Limits = EXACT,
) -> ParityReport:
    """Run pictures through both and compare what they find.

    Args:
        reference: the model that is to be matched.
        exported: its canvas and its way of batching are used.
        images: name and (H, W, 3) uint8 RGB of each picture.
        limits: of the precision that was exported.

    Raises:
        ExportError: there is no picture.
    """
    named = list(images)
    if not named:
        raise ExportError("[check] the parity gate needs at least one picture, got none; pass images or data")
    rows: list[ImageParity] = []
    size = exported.batch or min(2, len(named))
    for start in range(0, len(named), size):
        part = named[start : start + size]
        pixels = _pixels([image for _, image in part], exported.info, size)
        one, other = reference.infer(pixels), exported.infer(pixels)
        for i, (name, _) in enumerate(part):
            pair = _at(one, i), _at(other, i)
            score, box = compare(*pair, canvas=exported.info.canvas, limits=limits)
            mask = compare_masks(*pair, canvas=exported.info.canvas, limits=limits)
            rows.append(ImageParity(name, score, box, mask))
    return ParityReport(reference.description, exported.description, tuple(rows), limits)


def _pixels(images: Sequence[NDArray[np.uint8]], info: ModelInfo, size: int) -> NDArray[np.float32]:
    """(size, 3, h, w), the last image again where there are too few."""
    return lay([*images, *[images[-1]] * (size - len(images))], info)[0]


def _at(raw: Raw, i: int) -> Raw:
    one = slice(i, i + 1)
    masks = None if raw.masks is None else raw.masks[one]
    queries = None if raw.queries is None else raw.queries[one]
    return Raw(raw.scores[one], raw.labels[one], raw.boxes[one], masks, queries)


def compare(one: Raw, other: Raw, *, canvas: tuple[int, int], limits: Limits = EXACT) -> tuple[float, float]:
    """The largest difference in score and, in pixels of the canvas, in boxes, of the answers to one image.

    Scores are compared rank by rank, which near ties cannot disturb. A box is compared with the nearest box
    of its class in the other answer, both ways round, so that a swapped rank is no difference and a class is.
    """
    score = _score_gap(one, other)
    if not (np.isfinite(other.scores).all() and np.isfinite(other.boxes).all()):
        return float("nan"), float("nan")
    slack = 2 * score
    return score, max(
        _farthest(one, other, canvas, slack, limits), _farthest(other, one, canvas, slack, limits)
    )


def compare_masks(one: Raw, other: Raw, *, canvas: tuple[int, int], limits: Limits = EXACT) -> float:
    """The largest difference of mask logits between the detections that count and their counterparts; 0 without masks.

    Counterparts are of the same query where both say it, since panoptic pictures are merged in that order; else their
    boxes are nearest. Where several are as near as the nearest, the mask that is most alike counts.
    """
    if one.masks is None and other.masks is None:
        return 0.0
    if (one.queries is None) != (other.queries is None):
        return float("inf")
    if one.masks is None or other.masks is None or one.masks.shape[2:] != other.masks.shape[2:]:
        return float("inf")
    if not np.isfinite(other.masks).all():
        return float("nan")
    counts = np.flatnonzero(_counting(one, other, slack=2 * _score_gap(one, other), limits=limits))
    largest = 0.0
    masks = other.masks.clip(-SURE, SURE)
    for mask, near in zip(one.masks[0][counts].clip(-SURE, SURE), _counterparts(one, other, canvas)[counts]):
        if near.any():
            largest = max(largest, float(np.abs(masks[0][near] - mask).max((1, 2)).min()))
        elif one.queries is not None:  # else the boxes have failed already
            return float("inf")
    return largest


def _counterparts(one: Raw, other: Raw, canvas: tuple[int, int]) -> NDArray[np.bool_]:
    """(K, K') which masks of the other answer may be that of a detection."""
    if one.queries is not None and other.queries is not None:
        same: NDArray[np.bool_] = one.queries[0][:, None] == other.queries[0][None]
        return same
    gaps = _gaps(one, other, canvas)
    near: NDArray[np.bool_] = gaps <= gaps.min(axis=1, initial=np.inf, keepdims=True) + 0.01
    return near & np.isfinite(gaps)


def _score_gap(one: Raw, other: Raw) -> float:
    """The largest difference of the scores, rank by rank."""
    many = min(one.scores.shape[1], other.scores.shape[1])
    return float(np.abs(one.scores[0, :many] - other.scores[0, :many]).max(initial=0.0))


def _counting(one: Raw, other: Raw, *, slack: float, limits: Limits) -> NDArray[np.bool_]:
    """(K,) which detections must have a counterpart."""
    scores = one.scores[0]
    # What scores about as low as the last of the other answer may be cut off there.
    last = float(other.scores[0, -1]) + slack if len(other.scores[0]) else 1.0
    counts: NDArray[np.bool_] = (scores >= limits.floor) | (np.arange(len(scores)) < limits.best)
    counts &= (scores > last) | (len(scores) < other.scores.shape[1])
    return counts


def _gaps(one: Raw, other: Raw, canvas: tuple[int, int]) -> NDArray[np.float32]:
    """(K, K') the largest distance of two boxes' corners in pixels, infinite between classes."""
    size = np.array([canvas[1], canvas[0]] * 2, dtype=np.float32)
    gap: NDArray[np.float32] = np.abs((one.boxes[0][:, None] - other.boxes[0][None]) * size).max(-1)
    gap[one.labels[0][:, None] != other.labels[0][None]] = np.inf
    return gap


def _farthest(one: Raw, other: Raw, canvas: tuple[int, int], slack: float, limits: Limits) -> float:
    """The largest distance in pixels from a box that counts to the nearest of its class."""
    gap = _gaps(one, other, canvas)[_counting(one, other, slack=slack, limits=limits)]
    return float(gap.min(axis=1, initial=np.inf).max(initial=0.0))
