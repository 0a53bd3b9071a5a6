"""Masks on their way to the canvas: only the rectangle around each object is ever warped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detrx.data import geometry
from detrx.images import opencv

_MARGIN = 2
"""Pixels around a box that its mask may reach: annotated boxes are rounded."""


@dataclass(frozen=True)
class Patch:
    """One object's mask within a rectangle of the canvas."""

    mask: NDArray[np.bool_]
    """(h, w)"""
    top: int
    """Row of the canvas where it begins, in pixels."""
    left: int
    """Column likewise."""

    def moved(self, down: int, right: int) -> Patch:
        return Patch(self.mask, self.top + down, self.left + right)

    def bounds(self) -> NDArray[np.float32] | None:
        """Corners x0, y0, x1, y1 around what is set, in pixels of the canvas, or None for nothing."""
        rows, columns = np.flatnonzero(self.mask.any(1)), np.flatnonzero(self.mask.any(0))
        if not len(rows):
            return None
        ends = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
        return np.array(ends, np.float32) + np.array([self.left, self.top] * 2, np.float32)


def warp_masks(
    masks: NDArray[np.bool_],
    boxes: geometry.Boxes,
    matrix: geometry.Matrix,
    *,
    placed: geometry.Boxes,
    canvas: tuple[int, int],
) -> list[Patch]:
    """Take masks through the map that the picture goes through.

    Args:
        masks: (N, H, W).
        boxes: (N, 4) corners in the picture.
        matrix: (2, 3), continuous coordinates.
        placed: (N, 4) where the boxes lie on the canvas, clipped to it.
        canvas: (height, width).
    """
    rooms = (_rectangle(box, canvas) for box in placed)
    frames = (_rectangle(box, (masks.shape[1], masks.shape[2])) for box in boxes)
    return [_warp(mask, frame, matrix, room) for mask, frame, room in zip(masks, frames, rooms)]


def _rectangle(box: NDArray[np.float32], limits: tuple[int, int]) -> tuple[int, int, int, int]:
    """x0, y0, x1, y1 in whole pixels around a box, inside the limits (height, width)."""
    low = np.floor(box[:2]).astype(int) - _MARGIN
    high = np.ceil(box[2:]).astype(int) + _MARGIN
    x0, y0 = (max(int(v), 0) for v in low)
    return x0, y0, max(min(int(high[0]), limits[1]), x0 + 1), max(min(int(high[1]), limits[0]), y0 + 1)


def _warp(
    mask: NDArray[np.bool_],
    frame: tuple[int, int, int, int],
    matrix: geometry.Matrix,
    room: tuple[int, int, int, int],
) -> Patch:
    x0, y0, x1, y1 = frame
    part = np.ascontiguousarray(mask[y0:y1, x0:x1]).view(np.uint8) * np.uint8(255)
    left, top, right, bottom = room
    own = geometry.then(
        geometry.place((1, 1), (y0, x0)), geometry.then(matrix, geometry.place((1, 1), (-top, -left)))
    )
    cv2 = opencv()
    found = cv2.warpAffine(part, geometry.centred(own), (right - left, bottom - top), flags=cv2.INTER_LINEAR)
    return Patch(found > 127, top, left)


def tighten(
    boxes: geometry.Boxes, patches: Sequence[Patch], cut: NDArray[np.bool_], *, min_side: float
) -> tuple[geometry.Boxes, NDArray[np.bool_]]:
    """Draw the boxes of objects that the canvas cuts around what is left of their masks.

    Args:
        boxes: (N, 4) corners on the canvas.
        cut: (N,) which of them the edge of the canvas cuts.
        min_side: pixels that a box must have each way.

    Returns:
        The boxes, and (N,) bool: those with anything left of their mask.
    """
    out, keep = boxes.copy(), np.ones(len(boxes), bool)
    for at, patch in enumerate(patches):
        found = patch.bounds()
        if found is None:
            keep[at] = False
        elif cut[at]:
            out[at] = found
            keep[at] = bool((found[2:] - found[:2] >= min_side).all())
    return out, keep


def paint(patches: Sequence[Patch], canvas: tuple[int, int]) -> NDArray[np.bool_]:
    """(N, h, w) masks of the whole canvas."""
    out = np.zeros((len(patches), *canvas), bool)
    for place, patch in zip(out, patches):
        height, width = patch.mask.shape
        place[patch.top : patch.top + height, patch.left : patch.left + width] = patch.mask
    return out
