"""The masks of COCO files: polygons and run lengths, checked when read, drawn when asked for. NumPy only."""

from __future__ import annotations

from typing import Any, Dict, List, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx import rle

Polygons = Tuple[NDArray[np.float32], ...]
"""Each (P, 2) x, y in pixels, at least 3 points; together they are the object."""
Segmentation = Union[Polygons, Dict[str, Any]]
"""Polygons, or COCO's packed run lengths: {"size": [H, W], "counts": text}."""

_LARGEST = 1e7


def read_segmentation(value: Any, *, size: Tuple[int, int]) -> Segmentation:
    """Check a segmentation and keep it small.

    Args:
        value: what the JSON says: a list of polygons x, y, x, y, ...; or run lengths, plain or packed.
        size: (height, width) of the picture.

    Raises:
        ValueError: why it cannot be used, for a count of such reasons.
    """
    if isinstance(value, dict):
        return _read_runs(value, size)
    if not isinstance(value, list) or not value:
        raise ValueError("no mask")
    return tuple(_read_polygon(polygon) for polygon in value)


def _read_runs(value: Dict[str, Any], size: Tuple[int, int]) -> Dict[str, Any]:
    try:
        runs = rle.runs(value)
    except ValueError as error:
        raise ValueError("a mask that is no run-length code") from error
    if tuple(value["size"]) != size:
        raise ValueError("a mask of another size than its image")
    if not runs[1::2].any():
        raise ValueError("an empty mask")
    counts = value["counts"]
    return {"size": list(size), "counts": counts if isinstance(counts, str) else rle.pack(runs)}


def _read_polygon(value: Any) -> NDArray[np.float32]:
    if not isinstance(value, list) or len(value) < 6:
        raise ValueError("a polygon of fewer than 3 points")
    numbers = all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
    if len(value) % 2 or not numbers or not all(-_LARGEST < v < _LARGEST for v in value):
        raise ValueError("a polygon that is not pairs of finite numbers of pixels")
    return np.array(value, np.float32).reshape(-1, 2)


def make_mask(segmentation: Segmentation, *, size: Tuple[int, int]) -> NDArray[np.bool_]:
    """Draw a segmentation as (H, W) bool; polygons reach as far as the picture does."""
    if isinstance(segmentation, dict):
        return rle.decode(segmentation)
    out = np.zeros(size, bool)
    for polygon in segmentation:
        out |= fill(polygon, size=size)
    return out


def fill(polygon: NDArray[np.float32], *, size: Tuple[int, int]) -> NDArray[np.bool_]:
    """The pixels whose middles lie inside a polygon by the even-odd rule: (H, W) bool.

    OpenCV's filling counts every pixel that the outline touches, which makes small objects half a pixel wider on each
    side.
    """
    height, width = size
    rows, columns = _crossings(polygon.astype(np.float64), height)
    # A crossing flips all pixels right of it.
    first = np.ceil(columns - 0.5).clip(0, width).astype(np.int64)
    flips = np.bincount(rows * (width + 1) + first, minlength=height * (width + 1))
    found: NDArray[np.bool_] = flips.reshape(height, width + 1)[:, :width].cumsum(1) % 2 == 1
    return found


def _crossings(polygon: NDArray[np.float64], height: int) -> Tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Where the outline crosses the middles of rows: the row, and x."""
    start, end = polygon, np.roll(polygon, -1, axis=0)
    low = np.ceil(np.minimum(start[:, 1], end[:, 1]) - 0.5).clip(0, height).astype(np.int64)
    high = np.ceil(np.maximum(start[:, 1], end[:, 1]) - 0.5).clip(0, height).astype(np.int64)
    many = high - low
    edge = np.repeat(np.arange(len(polygon)), many)
    rows = np.arange(many.sum()) - np.repeat(many.cumsum() - many, many) + np.repeat(low, many)
    share = (rows + 0.5 - start[edge, 1]) / (end[edge, 1] - start[edge, 1])
    return rows, start[edge, 0] + share * (end[edge, 0] - start[edge, 0])


def as_json(segmentation: Segmentation) -> Union[Dict[str, Any], List[List[float]]]:
    """As a COCO file has it."""
    if isinstance(segmentation, dict):
        return segmentation
    return [polygon.ravel().tolist() for polygon in segmentation]
