"""Segment ids as the colours of a COCO panoptic PNG: id = R + 256 G + 256 * 256 B, and 0 where there is nothing."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

MOST = 256**3 - 1
"""The highest id that a colour can say."""


def to_rgb(ids: NDArray[np.int32]) -> NDArray[np.uint8]:
    """(H, W) ids in [0, MOST] to (H, W, 3) uint8 RGB."""
    low_first = np.ascontiguousarray(ids, dtype="<i4").view(np.uint8).reshape(*ids.shape, 4)
    return np.ascontiguousarray(low_first[..., :3])


def from_rgb(image: NDArray[np.uint8]) -> NDArray[np.int32]:
    """(H, W, 3) uint8 RGB to (H, W) ids."""
    out = np.zeros((*image.shape[:2], 4), np.uint8)
    out[..., :3] = image
    ids: NDArray[np.int32] = out.view("<i4")[..., 0].astype(np.int32, copy=False)
    return ids
