"""What lies under the plots: who found which object, precision, recall, F1 and confusions; numpy only."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Dict, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.evaluation.tables import Prediction
from detrx.types import Detections

if TYPE_CHECKING:
    from detrx.data.coco import Dataset, ImageRecord

THRESHOLDS = np.linspace(0.0, 1.0, 201)
IOU = 0.5


@dataclass(frozen=True)
class Curve:
    """One class at IoU 0.5, its detections from the best score down."""

    scores: NDArray[np.float64]
    """(N,) falling."""
    precision: NDArray[np.float64]
    """(N,) in [0, 1], of the detections so far."""
    recall: NDArray[np.float64]
    """(N,) in [0, 1], rising."""
    truths: int

    def at(self, threshold: float) -> Tuple[float, float, float]:
        """Precision, recall and F1 of the detections that score at least so much."""
        kept = int(np.searchsorted(-self.scores, -threshold, side="right"))
        if kept == 0:
            return 0.0, 0.0, 0.0
        p, r = float(self.precision[kept - 1]), float(self.recall[kept - 1])
        return p, r, 2 * p * r / (p + r) if p + r > 0 else 0.0


@dataclass(frozen=True)
class Errors:
    """One image at a threshold."""

    image: int
    """Index into the data set's images."""
    missed: int
    false: int
    confused: int
    """Found, but as another class."""
    truths: int

    @property
    def weight(self) -> Tuple[int, float]:
        """Most errors first, then the largest share of the image's objects."""
        wrong = self.missed + self.false + self.confused
        return wrong, wrong / max(1, self.truths)


def iou(one: NDArray[np.float32], other: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, M) intersection over union in [0, 1] of corners (N, 4) and (M, 4)."""
    low = np.maximum(one[:, None, :2], other[None, :, :2])
    high = np.minimum(one[:, None, 2:], other[None, :, 2:])
    meet = (high - low).clip(0).prod(-1)
    areas = [(b[:, 2:] - b[:, :2]).clip(0).prod(-1) for b in (one, other)]
    join = areas[0][:, None] + areas[1][None] - meet
    out: NDArray[np.float32] = np.where(join > 0, meet / np.where(join > 0, join, 1), 0).astype(np.float32)
    return out


def assign_greedily(near: NDArray[np.float32], *, least: float = IOU) -> NDArray[np.int64]:
    """(N,) for detections from the best down: the free object with the highest IoU, or -1 under ``least``."""
    out = np.full(near.shape[0], -1, dtype=np.int64)
    free = near.copy()
    for i in range(near.shape[0]):
        if not free.shape[1]:
            break
        j = int(free[i].argmax())
        if free[i, j] >= least:
            out[i] = j
            free[:, j] = -1
    return out


def curves(dataset: Dataset, predictions: Sequence[Prediction]) -> Dict[str, Curve]:
    """Name -> Curve of every class that occurs in the data set. Detections on crowds do not count."""
    hits: Dict[int, List[Tuple[float, bool]]] = {k: [] for k in range(len(dataset.names))}
    truths = np.zeros(len(dataset.names), dtype=np.int64)
    for record, found, labels in _pairs(dataset, predictions):
        truths += np.bincount(record.labels[~record.crowd], minlength=len(truths))
        for k in np.unique(labels).tolist():
            hits[k] += _hits(found[labels == k], record, k)
    return {name: _curve(hits[k], int(truths[k])) for k, name in enumerate(dataset.names) if truths[k]}


def _pairs(
    dataset: Dataset, predictions: Sequence[Prediction]
) -> List[Tuple[ImageRecord, Detections, NDArray[np.int64]]]:
    """Record, detections and their labels in the data set's order, for each image."""
    by_id = {one.image_id: one.detections for one in predictions}
    number = {name: k for k, name in enumerate(dataset.names)}
    out = []
    for record in dataset.images:
        if record.id in by_id:
            found = by_id[record.id]
            table = np.array([number[n] for n in found.class_names or dataset.names], dtype=np.int64)
            out.append((record, found, table[found.labels]))
    return out


def _on_crowd(boxes: NDArray[np.float32], crowds: NDArray[np.float32]) -> NDArray[np.bool_]:
    """(N,) whether at least half of each box lies on one of the (M, 4) crowds, as COCO measures them."""
    low = np.maximum(boxes[:, None, :2], crowds[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], crowds[None, :, 2:])
    meet = (high - low).clip(0).prod(-1)
    area = (boxes[:, 2:] - boxes[:, :2]).clip(0).prod(-1)
    out: NDArray[np.bool_] = ((meet >= IOU * area[:, None]) & (meet > 0)).any(axis=1)
    return out


def _hits(found: Detections, record: ImageRecord, label: int) -> List[Tuple[float, bool]]:
    """(score, found an object) of one image's detections of a class; those on crowds are left out."""
    mine = record.labels == label
    matched = assign_greedily(iou(found.boxes, record.boxes[mine & ~record.crowd]))
    ignored = _on_crowd(found.boxes, record.boxes[mine & record.crowd]) & (matched < 0)
    return [(float(s), bool(m >= 0)) for s, m, out in zip(found.scores, matched, ignored) if not out]


def _curve(hits: List[Tuple[float, bool]], truths: int) -> Curve:
    table = np.array(hits, dtype=np.float64).reshape(-1, 2)
    table = table[np.argsort(-table[:, 0], kind="stable")]
    right = np.cumsum(table[:, 1])
    return Curve(table[:, 0], right / np.arange(1, len(table) + 1), right / truths, truths)


def best_threshold(found: Dict[str, Curve]) -> Tuple[float, NDArray[np.float64]]:
    """The threshold with the highest F1, mean over classes, and that mean (201,) at THRESHOLDS."""
    if not found:
        return 0.5, np.zeros(len(THRESHOLDS))
    mean = np.array([[c.at(t)[2] for t in THRESHOLDS] for c in found.values()]).mean(axis=0)
    # The middle of the flat top: the edge of it would be the luck of this data set.
    top = np.flatnonzero(mean >= mean.max() - 1e-9)
    return float(THRESHOLDS[top[len(top) // 2]]), mean


def confusion(
    dataset: Dataset, predictions: Sequence[Prediction], *, threshold: float
) -> Tuple[NDArray[np.int64], List[Errors]]:
    """Who is taken for whom. Detections on crowds, of whatever class, are no false alarms.

    Returns:
        (C + 1, C + 1) counts, rows truth, columns detections, the last row false alarms, the last column missed;
        and the errors of each image.
    """
    many = len(dataset.names)
    table = np.zeros((many + 1, many + 1), dtype=np.int64)
    place = {record.id: i for i, record in enumerate(dataset.images)}
    errors = []
    for record, found, labels in _pairs(dataset, predictions):
        keep = found.scores >= threshold
        real = ~record.crowd
        truth, guess = record.labels[real], labels[keep]
        near = iou(found.boxes[keep], record.boxes[real])
        # An object of the right class is taken before a nearer one of a wrong class.
        matched = assign_greedily(near + (guess[:, None] == truth[None]) * (near >= IOU))
        lost = np.setdiff1d(np.arange(len(truth)), matched)
        hit = matched >= 0
        extra = ~hit & ~_on_crowd(found.boxes[keep], record.boxes[record.crowd])
        np.add.at(table, (truth[matched[hit]], guess[hit]), 1)
        np.add.at(table, (np.full(extra.sum(), many), guess[extra]), 1)
        np.add.at(table, (truth[lost], np.full(len(lost), many)), 1)
        mixed = int((truth[matched[hit]] != guess[hit]).sum())
        errors.append(Errors(place[record.id], len(lost), int(extra.sum()), mixed, len(truth)))
    return table, errors
