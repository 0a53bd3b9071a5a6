"""The matching costs in plain torch, for devices without a kernel of ours."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from detrx.ops.match_weights import MatchWeights


def match_cost(
    logits: Tensor, boxes: Tensor, labels: Tensor, truths: Tensor, *, weights: MatchWeights
) -> Tensor:
    """What it costs to give each target each query of its image, computed in float32 whatever autocast says.

    Args:
        logits: (L, B, Q, C).
        boxes: (L, B, Q, 4) centres.
        labels: (B, M) int64.
        truths: (B, M, 4) centres.
        weights: what the cost is made of.

    Returns:
        (L, B, M, Q) float32.
    """
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        cost = _class_cost(logits, labels, weights).mul_(weights.class_)
        ours = boxes.float().unsqueeze(2).unbind(-1)
        truth = truths.float()[None, :, :, None].unbind(-1)
        for a, b in zip(ours, truth):
            cost.add_((a - b).abs_(), alpha=weights.l1)
        return cost.sub_(_giou(ours, truth), alpha=weights.giou)


def _class_cost(logits: Tensor, labels: Tensor, weights: MatchWeights) -> Tensor:
    """(L, B, M, Q)"""
    layers, queries = logits.shape[0], logits.shape[2]
    at = labels[None, :, :, None].expand(layers, -1, -1, queries)
    if weights.class_cost == "softmax":
        return logits.float().softmax(-1).transpose(2, 3).gather(2, at).neg_()
    x = logits.transpose(2, 3).gather(2, at).float()
    p, minus_log_p = x.sigmoid(), F.softplus(-x)
    positive = (1 - p).pow_(weights.gamma).mul_(minus_log_p).mul_(weights.alpha)
    return positive.sub_(p.pow_(weights.gamma).mul_(minus_log_p.add_(x)), alpha=1 - weights.alpha)


def _giou(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Generalised IoU of centres given coordinate by coordinate, which broadcasts without a last axis of four."""
    meet, hull = [], []
    for axis in (0, 1):
        a_low, a_high = a[axis] - 0.5 * a[axis + 2], a[axis] + 0.5 * a[axis + 2]
        b_low, b_high = b[axis] - 0.5 * b[axis + 2], b[axis] + 0.5 * b[axis + 2]
        meet.append((torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp_(min=0))
        hull.append(torch.maximum(a_high, b_high).sub_(torch.minimum(a_low, b_low)))
    inter, around = meet[0].mul_(meet[1]), hull[0].mul_(hull[1])
    join = (a[2] * a[3] + b[2] * b[3]).sub_(inter)
    return inter.div_(join.clamp(min=1e-12)).sub_((around - join).div_(around.clamp(min=1e-12)))
