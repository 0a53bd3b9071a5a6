"""The losses of the first DETR's criterion (arXiv 2005.12872), written anew from its description, layer by layer.

Boxes are gathered by the index pairs of a matcher; their generalised IoU is taken of all pairs with all, and the
diagonal kept, with both checks that corners are in order. Classes take a target for each query.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

Pairs = Sequence[tuple[Tensor, Tensor]]
"""Of each image: the queries and the targets that belong together."""


def to_corners(centres: Tensor) -> Tensor:
    x, y, w, h = centres.unbind(-1)
    return torch.stack([x - 0.5 * w, y - 0.5 * h, x + 0.5 * w, y + 0.5 * h], dim=-1)


def all_pairs_giou(first: Tensor, second: Tensor) -> Tensor:
    """(N, M) of corners (N, 4) and (M, 4)."""
    for corners in (first, second):
        if not (corners[:, 2:] >= corners[:, :2]).all():
            raise ValueError("[all_pairs_giou] corners must be in order")
    sizes = [(corners[:, 2:] - corners[:, :2]).prod(-1) for corners in (first, second)]
    low, high = (
        choose(first[:, None, part], second[None, :, part])
        for choose, part in ((torch.max, slice(0, 2)), (torch.min, slice(2, 4)))
    )
    inter = (high - low).clamp(min=0).prod(-1)
    join = sizes[0][:, None] + sizes[1][None] - inter
    low, high = (
        choose(first[:, None, part], second[None, :, part])
        for choose, part in ((torch.min, slice(0, 2)), (torch.max, slice(2, 4)))
    )
    around = (high - low).clamp(min=0).prod(-1)
    return inter / join - (around - join) / around


def where_of(pairs: Pairs) -> tuple[Tensor, Tensor]:
    """Image and query of each pair."""
    image = torch.cat([torch.full_like(query, i) for i, (query, _) in enumerate(pairs)])
    return image, torch.cat([query for query, _ in pairs])


def box_losses(boxes: Tensor, truths: Sequence[Tensor], pairs: Pairs, count: float) -> Tensor:
    """L1 and GIoU of one layer's (B, Q, 4) boxes."""
    ours = boxes[where_of(pairs)]
    wanted = torch.cat([t[target] for t, (_, target) in zip(truths, pairs)], dim=0)
    l1 = F.l1_loss(ours, wanted, reduction="none").sum() / count
    overlap = torch.diag(all_pairs_giou(to_corners(ours), to_corners(wanted)))
    return l1 + (1 - overlap).sum() / count


def class_targets(logits: Tensor, labels: Sequence[Tensor], pairs: Pairs, *, none: int) -> Tensor:
    """(B, Q) the class that each query is taught."""
    wanted = torch.full(logits.shape[:2], none, dtype=torch.int64)
    wanted[where_of(pairs)] = torch.cat([label[target] for label, (_, target) in zip(labels, pairs)])
    return wanted


def class_loss(logits: Tensor, labels: Sequence[Tensor], pairs: Pairs, *, class_weight: Tensor) -> Tensor:
    """Weighted cross-entropy of one layer's (B, Q, C + 1) logits."""
    wanted = class_targets(logits, labels, pairs, none=logits.shape[-1] - 1)
    return F.cross_entropy(logits.transpose(1, 2), wanted, class_weight)
