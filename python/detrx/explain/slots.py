"""What each query does over a whole data set."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detrx.data.coco import ImageRecord
from detrx.evaluation.run import Progress
from detrx.explain.look import Watched, best_of_queries, corners
from detrx.images import read_image

SMALL = 0.01
"""Boxes of less area than this share of the picture are small: 55 x 55 of 640 x 480 pixels."""
KINDS = ("small", "large, wider than high", "large, higher than wide")


@dataclass(frozen=True)
class SlotUse:
    """The answers of Q queries on N pictures."""

    boxes: NDArray[np.float32]
    """(N, Q, 4) cx, cy, w, h as shares of the picture's sides."""
    scores: NDArray[np.float32]
    """(N, Q) of the best class."""
    labels: NDArray[np.int64]
    """(N, Q) the best class."""
    threshold: float
    """From this score on an answer counts as a detection."""
    learned: bool
    """Query k is the same learnt vector in every picture; False: it is the cell that the encoder ranked k-th there."""
    names: tuple[str, ...]
    aspects: NDArray[np.float32]
    """(N,) width to height of each picture."""

    @property
    def counts(self) -> NDArray[np.int64]:
        """(Q,) detections of each query."""
        return np.asarray((self.scores >= self.threshold).sum(0), np.int64)

    @property
    def used(self) -> int:
        """Queries with a detection."""
        return int((self.counts > 0).sum())

    @property
    def effective(self) -> float:
        """How many equally busy queries would be spread as these are: exp of the entropy, 0 without detections."""
        shares = self.counts[self.counts > 0] / max(int(self.counts.sum()), 1)
        return float(np.exp(-(shares * np.log(shares)).sum())) if len(shares) else 0.0

    def busiest(self, share: float) -> int:
        """The fewest queries that make this share, in [0, 1], of all detections."""
        falling = np.sort(self.counts)[::-1].cumsum()
        return int(np.searchsorted(falling, share * falling[-1]) + 1) if falling[-1] else 0

    def most_used(self, most: int) -> NDArray[np.int64]:
        """The busiest queries in the order of their numbers; mean scores part those that are equally busy."""
        order = np.lexsort((-self.scores.mean(0), -self.counts))
        return np.sort(order[:most])

    def kinds(self) -> NDArray[np.int64]:
        """(N, Q) the index into KINDS of each box; high and wide are those of its pixels."""
        width, height = self.boxes[..., 2], self.boxes[..., 3]
        wide = width * self.aspects[:, None] >= height
        return np.where(width * height < SMALL, 0, np.where(wide, 1, 2))


def watch(
    watched: Watched, records: Sequence[ImageRecord], *, threshold: float, progress: Progress | None = None
) -> SlotUse:
    """Run a model over the pictures of a data set.

    Raises:
        DataError: a picture cannot be read.
    """
    boxes, scores, labels, aspects = [], [], [], []
    for done, record in enumerate(records, 1):
        answer, box = watched.answer(read_image(record.path))
        best, classes, centres = best_of_queries(answer)
        found = box.undo(corners(centres[0]))
        sides = np.array(box.image[::-1] * 2, np.float32)
        boxes.append(_centres(found / sides))
        scores.append(best[0])
        labels.append(classes[0])
        aspects.append(sides[0] / sides[1])
        if progress is not None:
            progress(done, len(records))
    learned = watched.transformer is not None
    arrays = np.stack(boxes), np.stack(scores), np.stack(labels)
    return SlotUse(*arrays, threshold, learned, watched.info.names, np.array(aspects, np.float32))


def _centres(found: NDArray[np.float32]) -> NDArray[np.float32]:
    """(Q, 4) corners to cx, cy, w, h."""
    low, high = found[:, :2], found[:, 2:]
    return np.concatenate([(low + high) / 2, high - low], 1)
