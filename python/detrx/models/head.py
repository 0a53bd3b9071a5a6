"""From logits and boxes to the best objects, inside the exported graph."""

from __future__ import annotations

import torch
from torch import Tensor


def decode(logits: Tensor, boxes: Tensor, *, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best ``top`` pairs of query and class of each image, best first.

    Args:
        logits: (B, Q, C) class logits.
        boxes: (B, Q, 4) centres cx, cy, w, h in [0, 1].
        top: K, at most Q * C are answered.

    Returns:
        scores (B, K) in [0, 1], labels (B, K) int64, boxes (B, K, 4) corners in [0, 1].
    """
    classes = logits.shape[-1]
    flat = logits.flatten(1)
    best, index = flat.topk(min(top, flat.shape[1]), dim=1)
    query = torch.div(index, classes, rounding_mode="floor")
    picked = boxes.gather(1, query[..., None].expand(-1, -1, 4))
    centre, half = picked[..., :2], picked[..., 2:] * 0.5
    corners = torch.cat([centre - half, centre + half], -1).clamp(0, 1)
    return best.sigmoid(), index - query * classes, corners
