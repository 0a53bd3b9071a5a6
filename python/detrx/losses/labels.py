"""Class losses over all queries: varifocal (arXiv 2008.13367) and matching-aware (DEIM, arXiv 2412.04234)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

from detrx.losses.config import LossConfig


def label_loss(logits: Tensor, cells: Tensor, overlaps: Tensor, *, config: LossConfig) -> Tensor:
    """Sum the class loss of each stage.

    Every cell without a target is a negative of weight alpha * p ** gamma. A matched cell is taught its IoU q with
    weight q (varifocal), or q ** gamma with weight 1 (matching-aware). The weights carry no gradient.

    Args:
        logits: (N, R, C) float32.
        cells: (N, P) int64 into R * C, no cell twice: the target's class of each matched query.
        overlaps: (N, P) float32 IoU of each pair in [0, 1], without gradient.
        config: which loss, alpha and gamma.

    Returns:
        (N,) sums, not yet divided by the number of boxes.
    """
    if config.label == "mal":
        scores, weights, alpha = overlaps**config.gamma, torch.ones_like(overlaps), 1.0
    else:
        scores, weights, alpha = overlaps, overlaps, config.alpha
    total: Tensor = _WeightedCrossEntropy.apply(logits, cells, scores, weights, alpha, config.gamma)
    return total


class _WeightedCrossEntropy(torch.autograd.Function):
    """Binary cross-entropy with weights that carry no gradient; its gradient is found on the way forward."""

    @staticmethod
    def forward(
        ctx: Any, logits: Tensor, cells: Tensor, scores: Tensor, weights: Tensor, alpha: float, gamma: float
    ) -> Tensor:
        x = logits.reshape(logits.shape[0], -1)
        at = x.gather(1, cells)
        p = x.sigmoid()
        slope = p.square() if gamma == 2 else p**gamma
        loss = F.softplus(x).mul_(slope).mul_(alpha)
        slope.mul_(p).mul_(alpha)
        loss.scatter_(1, cells, weights * (F.softplus(at) - at * scores))
        slope.scatter_(1, cells, weights * (at.sigmoid() - scores))
        ctx.save_for_backward(slope)
        ctx.shape = logits.shape
        return loss.sum(1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        (slope,) = ctx.saved_tensors
        return (slope * grad[:, None]).reshape(ctx.shape), None, None, None, None, None
