"""Shrink a picture with a triangle filter, as PIL's bilinear does; a mask of any size from its logits. NumPy only."""

from __future__ import annotations

from typing import Any, Tuple

import numpy as np
from numpy.typing import NDArray


def shrink(image: NDArray[np.uint8], *, size: Tuple[int, int]) -> NDArray[np.uint8]:
    """Scale down to (height, width), at most as large as the image.

    OpenCV's bilinear looks at four pixels only, so that a photo at a third of its size flickers; DETR's weights were
    learnt on pictures that were scaled like this.

    Args:
        image: (H, W, C) uint8.
        size: (height, width) in pixels.

    Returns:
        (height, width, C) uint8, within one level of PIL's answer.
    """
    rows = _filter(image, size[0])
    both = _filter(np.ascontiguousarray(rows.transpose(1, 0, 2)), size[1]).transpose(1, 0, 2)
    found: NDArray[np.uint8] = np.rint(both).clip(0, 255).astype(np.uint8)
    return np.ascontiguousarray(found)


def _filter(image: NDArray[Any], wanted: int) -> NDArray[np.float32]:
    """Along the first axis, to ``wanted`` rows of float32."""
    length = image.shape[0]
    first, weights = _taps(length, wanted)
    out = np.empty((wanted, *image.shape[1:]), np.float32)
    flat, lines = image.reshape(length, -1), out.reshape(wanted, -1)
    # Row by row, so that what is read stays in the cache: five times as fast as tap by tap.
    for row, (start, share) in enumerate(zip(first.tolist(), weights)):
        np.dot(share, flat[start : start + len(share)].astype(np.float32, copy=False), out=lines[row])
    return out


def _taps(length: int, wanted: int) -> Tuple[NDArray[np.intp], NDArray[np.float32]]:
    """(wanted,) the first of the rows that each new row is the mean of, and (wanted, taps) how much each counts."""
    scale = max(1.0, length / wanted)
    centre = (np.arange(wanted)[:, None] + 0.5) * (length / wanted)
    taps = min(length, int(np.ceil(2 * scale)) + 1)
    first = np.floor(centre - scale + 0.5).astype(np.intp).clip(0, length - taps)
    weights = (1 - np.abs(first + np.arange(taps) + 0.5 - centre) / scale).clip(0)
    weights /= weights.sum(1, keepdims=True)
    return first[:, 0], weights.astype(np.float32)


def positive(
    field: NDArray[np.float32], *, rows: NDArray[np.float64], columns: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """Where a small map, read bilinearly, is above 0: a mask of any size from its logits.

    Only the part around the positive cells is looked at, so that a small object costs little in a large picture.

    Args:
        field: (h, w).
        rows: (H,) rising, where to read it, in cells: the middle of cell i is at i + 0.5.
        columns: (W,) likewise.

    Returns:
        (H, W) bool.
    """
    out = np.zeros((len(rows), len(columns)), bool)
    above = field > 0
    high, wide = np.flatnonzero(above.any(1)), np.flatnonzero(above.any(0))
    if len(high):
        down, across = _reach(high, rows, field.shape[0]), _reach(wide, columns, field.shape[1])
        inner = _blend(_blend(field, rows[down]).T, columns[across]).T
        np.greater(inner, 0, out=out[down, across])
    return out


def _reach(cells: NDArray[np.intp], places: NDArray[np.float64], length: int) -> slice:
    """The places that read any of the cells; beyond the outermost middles a map goes on as it is there."""
    low, high = np.searchsorted(places, (cells[0] - 0.5, cells[-1] + 1.5))
    return slice(0 if cells[0] == 0 else int(low), len(places) if cells[-1] == length - 1 else int(high))


def _blend(field: NDArray[np.float32], places: NDArray[np.float64]) -> NDArray[np.float32]:
    """Along the first axis, read between the two nearest rows."""
    at = (places - 0.5).clip(0, len(field) - 1)
    low = np.minimum(at.astype(np.intp), max(len(field) - 2, 0))
    share = (at - low).astype(np.float32)[:, None]
    found: NDArray[np.float32] = field[low] * (1 - share) + field[np.minimum(low + 1, len(field) - 1)] * share
    return found
