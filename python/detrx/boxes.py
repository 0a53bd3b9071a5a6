"""Boxes as tensors: centres (cx, cy, w, h) and corners (x0, y0, x1, y1), and how far two of them overlap."""

from __future__ import annotations

import torch
from torch import Tensor

_TINY = 1e-12
"""Stands in for an area of zero, so that a degenerate box answers 0 and not NaN."""


def to_corners(centres: Tensor) -> Tensor:
    """Take (..., 4) cx, cy, w, h to x0, y0, x1, y1."""
    middle, size = centres[..., :2], centres[..., 2:]
    return torch.cat((middle - 0.5 * size, middle + 0.5 * size), dim=-1)


def to_centres(corners: Tensor) -> Tensor:
    """Take (..., 4) x0, y0, x1, y1 to cx, cy, w, h."""
    low, high = corners[..., :2], corners[..., 2:]
    return torch.cat(((low + high) * 0.5, high - low), dim=-1)


def area(corners: Tensor) -> Tensor:
    """The area (...) of (..., 4) corners."""
    size = corners[..., 2:] - corners[..., :2]
    return size[..., 0] * size[..., 1]


def iou_giou(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Intersection over union in [0, 1] and generalised IoU in [-1, 1] (arXiv 1902.09630) of boxes in pairs.

    Args:
        a: (..., 4) corners.
        b: (..., 4) corners, of a shape that broadcasts with a's.

    Returns:
        Two tensors (...).
    """
    low, high = torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])
    meet = (high - low).clamp(min=0)
    hull = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    inter = meet[..., 0] * meet[..., 1]
    join = area(a) + area(b) - inter
    around = hull[..., 0] * hull[..., 1]
    iou = inter / join.clamp(min=_TINY)
    return iou, iou - (around - join) / around.clamp(min=_TINY)
