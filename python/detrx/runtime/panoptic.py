"""The masks of all queries as one picture whose every pixel is of one segment, as DETR does it (arXiv 2005.12872)."""

from __future__ import annotations

from typing import Dict, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx import native
from detrx.errors import ConfigError, MissingBackendError
from detrx.types import Letterbox, ModelInfo, Panoptic, Raw, Segment

THRESHOLD = 0.85
"""The least score of a query that takes part, as published."""
SMALL = 4
"""Pixels up to which a segment is dropped, and its pixels given to the others."""


def divide(
    raw: Raw, index: int, box: Letterbox, *, info: ModelInfo, threshold: float = THRESHOLD, threads: int = 1
) -> Panoptic:
    """The segments of one image of a batch, in pixels of that image; what is not finite or no class is left out.

    Raises:
        ConfigError: a model without masks, or that does not tell things from stuff.
    """
    if raw.masks is None or not info.things:
        raise ConfigError(
            f"[panoptic] {info.model} must have masks and know things from stuff; take one as detr-r50-panoptic"
        )
    scores, labels, masks = raw.scores[index], raw.labels[index], raw.masks[index]
    order = np.arange(len(scores)) if raw.queries is None else np.argsort(raw.queries[index], kind="stable")
    sound = (scores[order] > threshold) & (labels[order] >= 0) & (labels[order] < len(info.names))
    order = order[sound]
    order = order[np.isfinite(masks[order]).all(axis=(1, 2))]
    return merge(
        scores[order],
        labels[order],
        masks[order],
        box,
        things=info.things,
        category_ids=info.category_ids,
        class_names=info.names,
        threshold=threshold,
        threads=threads,
    )


def merge(
    scores: NDArray[np.float32],
    labels: NDArray[np.int64],
    masks: NDArray[np.float32],
    box: Letterbox,
    *,
    things: Sequence[bool],
    category_ids: Sequence[int],
    class_names: Tuple[str, ...] = (),
    threshold: float = THRESHOLD,
    threads: int = 1,
) -> Panoptic:
    """Divide a picture among the queries that are sure enough.

    Each pixel goes to the highest logit. Of several queries of one kind of stuff the first stands for all. Then, until
    none is left, segments of at most SMALL pixels are dropped and the pixels divided anew. The logits are read
    bilinearly at the pixels of the canvas, and the division of the canvas at the nearest to each pixel of the picture.

    Args:
        scores: (N,) in [0, 1], in the order of the queries.
        labels: (N,) index of each query's class.
        masks: (N, h', w') logits that cover the canvas.
        box: how the picture lies on the canvas.
        things: whether each class is countable; of stuff there is one segment a class.
        category_ids: the data set's id of each class.
        threshold: scores must be above it.
        threads: that share the rows.
    """
    kept = np.flatnonzero(scores > threshold)
    grid = _Grid(box, (masks.shape[1], masks.shape[2]), threads)
    winners = _as_one(kept, labels, things)[grid.winners(masks[kept])] if len(kept) else None
    while winners is not None:
        areas = np.bincount(winners.ravel(), minlength=len(kept))
        large = areas > SMALL
        if large.all():
            segments = tuple(
                _segment(i, int(labels[k]), float(scores[k]), int(areas[i]), things, category_ids)
                for i, k in enumerate(kept)
            )
            return Panoptic(winners + np.int32(1), segments, class_names)
        kept = kept[large]
        winners = grid.winners(masks[kept]) if len(kept) else None
    return Panoptic(np.zeros(box.image, np.int32), (), class_names)


def _segment(
    index: int, label: int, score: float, area: int, things: Sequence[bool], category_ids: Sequence[int]
) -> Segment:
    return Segment(index + 1, label, int(category_ids[label]), bool(things[label]), area, score)


def _as_one(kept: NDArray[np.intp], labels: NDArray[np.int64], things: Sequence[bool]) -> NDArray[np.int32]:
    """(N,) for each kept query itself, or for stuff the first of its kind."""
    first: Dict[int, int] = {}
    found = [i if things[labels[k]] else first.setdefault(int(labels[k]), i) for i, k in enumerate(kept)]
    return np.array(found, np.int32)


class _Grid:
    """Where the pixels of a picture read the masks that cover its canvas."""

    def __init__(self, box: Letterbox, cells: Tuple[int, int], threads: int) -> None:
        self._threads = threads
        places, again = [], []
        for axis in (0, 1):
            inner = round(box.image[axis] * box.scale[axis])
            nearest = _nearest(box.image[axis], inner) + box.pad[axis]
            wanted, back = np.unique(nearest, return_inverse=True)
            places.append(_places(wanted, box.canvas[axis], cells[axis]))
            again.append(back)
        self._rows, self._columns = places
        # A picture larger than its canvas reads pixels of it several times.
        self._again = None if all(len(a) == len(p) for a, p in zip(again, places)) else np.ix_(*again)

    def winners(self, masks: NDArray[np.float32]) -> NDArray[np.int32]:
        """(H, W) the mask that has each pixel of the picture."""
        found = mask_winners(masks, rows=self._rows, columns=self._columns, threads=self._threads)
        return found if self._again is None else found[self._again]


def _nearest(wanted: int, length: int) -> NDArray[np.intp]:
    """(wanted,) the nearest of ``length`` pixels, as PIL finds it: by adding up steps in float64."""
    step = length / wanted
    steps = np.full(wanted, step)
    steps[0] = step * 0.5
    found: NDArray[np.intp] = np.cumsum(steps).astype(np.intp)
    return np.minimum(found, length - 1)


def _places(pixels: NDArray[np.intp], length: int, cells: int) -> NDArray[np.float32]:
    """Where torch's bilinear scaling of ``cells`` to ``length`` pixels reads; 0 is the middle of the first cell."""
    scale = np.float32(cells) / np.float32(length)
    at = scale * (pixels.astype(np.float32) + np.float32(0.5)) - np.float32(0.5)
    found: NDArray[np.float32] = at.clip(0, cells - 1).astype(np.float32)
    return found


def mask_winners(
    logits: NDArray[np.float32],
    *,
    rows: NDArray[np.float32],
    columns: NDArray[np.float32],
    threads: int = 1,
) -> NDArray[np.int32]:
    """The mask with the highest logit at each place, read between four cells.

    Args:
        logits: (K, h, w), K at least 1.
        rows: (H,) rising, in [0, h - 1]: where to read, 0 the middle of the first cell.
        columns: (W,) rising, in [0, w - 1].
        threads: that share the rows; they change no bit of the answer.

    Returns:
        (H, W) the first of the highest.
    """
    try:
        module = native.load()
    except MissingBackendError:
        return mask_winners_reference(logits, rows=rows, columns=columns)
    best = np.empty((len(rows), len(columns)), np.int32)
    module.mask_winners(np.ascontiguousarray(logits, np.float32), rows, columns, best, threads)
    return best


def mask_winners_reference(
    logits: NDArray[np.float32], *, rows: NDArray[np.float32], columns: NDArray[np.float32]
) -> NDArray[np.int32]:
    """The same in numpy, for machines without the extension and to test it against."""
    down, across = _between(rows, logits.shape[1]), _between(columns, logits.shape[2])
    top = np.full((len(rows), len(columns)), -np.inf, np.float32)
    best = np.zeros(top.shape, np.int32)
    for number, field in enumerate(logits):
        low, high, low_share, high_share = across
        wide = low_share * field[:, low] + high_share * field[:, high]
        low, high, low_share, high_share = down
        here = low_share[:, None] * wide[low] + high_share[:, None] * wide[high]
        wins = here > top
        np.copyto(top, here, where=wins)
        best[wins] = number
    return best


def _between(
    places: NDArray[np.float32], length: int
) -> Tuple[NDArray[np.intp], NDArray[np.intp], NDArray[np.float32], NDArray[np.float32]]:
    """The cells on both sides of each place, and how much they count."""
    low = places.astype(np.intp)
    share = places - low.astype(np.float32)
    return low, np.minimum(low + 1, length - 1), 1 - share, share
