"""The masks of COCO files: polygons, run lengths and panoptic PNGs, checked when read, drawn when asked for."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Dict, List, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx import panoptic_ids, rle
from detrx.errors import DataError
from detrx.images import read_image

Polygons = Tuple[NDArray[np.float32], ...]
"""Each (P, 2) x, y in pixels, at least 3 points; together they are the object."""


@dataclass(frozen=True)
class PngSegment:
    """The pixels of one id in a panoptic PNG. Only the reader of panoptic files makes one; no JSON can."""

    path: str
    id: int
    size: Tuple[int, int]
    """(height, width) that the PNG must have."""


Segmentation = Union[Polygons, Dict[str, Any], PngSegment]
"""Polygons, COCO's packed run lengths ({"size": [H, W], "counts": text}), or a segment of a PNG."""

_LARGEST = 1e7


def read_segmentation(value: Any, *, size: Tuple[int, int]) -> Segmentation:
    """Check a segmentation and keep it small.

    Args:
        value: what the JSON says: a list of polygons x, y, x, y, ...; or run lengths, plain or packed.
        size: (height, width) of the picture.

    Raises:
        ValueError: why it cannot be used, for a count of such reasons.
    """
    if isinstance(value, PngSegment):
        return value
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
    if isinstance(segmentation, PngSegment):
        found: NDArray[np.bool_] = read_ids(segmentation.path, size=segmentation.size) == segmentation.id
        return found
    out = np.zeros(size, bool)
    for polygon in segmentation:
        out |= fill(polygon, size=size)
    return out


@lru_cache(maxsize=2)
def read_ids(path: str, *, size: Tuple[int, int]) -> NDArray[np.int32]:
    """(H, W) the segment ids of a panoptic PNG; the last ones read are kept, since a picture has many segments.

    Raises:
        DataError: unreadable, or of another size than its picture.
    """
    ids = panoptic_ids.from_rgb(read_image(path))
    if ids.shape != tuple(size):
        raise DataError(
            f"[read_panoptic] {path} must be of its picture's size {size[0]} x {size[1]}, found {ids.shape[0]} x "
            f"{ids.shape[1]} (height x width). Replace the file."
        )
    ids.flags.writeable = False
    return ids


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
    if isinstance(segmentation, PngSegment):
        return rle.encode(make_mask(segmentation, size=segmentation.size))
    return [polygon.ravel().tolist() for polygon in segmentation]
