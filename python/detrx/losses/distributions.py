"""The two losses of D-FINE's edge distributions (arXiv 2410.13842): FGL teaches them, DDF hands them down."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detrx.boxes import to_corners
from detrx.losses.config import LossConfig
from detrx.models.distribution import bin_offsets


def edge_targets(references: Tensor, truths: Tensor, *, config: LossConfig) -> tuple[Tensor, Tensor]:
    """Where between the bins the four edges of each truth lie, seen from its reference box.

    Args:
        references: (..., 4) centres that the distributions refine.
        truths: (..., 4) centres.
        config: the bins.

    Returns:
        (..., 4) int64 the bin to the left of each edge, and (..., 4) float32 the share of the bin to its right.
    """
    corners = to_corners(truths)
    centre, size = references[..., :2], references[..., 2:]
    step = size / config.reg_scale + 1e-16
    low = (centre - corners[..., :2]) / step
    high = (corners[..., 2:] - centre) / step
    edges = torch.cat((low, high), dim=-1) - 0.5 * config.reg_scale
    up, reg_scale = torch.tensor([[config.up], [config.reg_scale]], device=references.device)
    offsets = bin_offsets(config.bins, up=up, reg_scale=reg_scale)
    edges = edges.clamp(min=offsets[0], max=offsets[-1])
    left = (torch.searchsorted(offsets, edges.contiguous(), right=True) - 1).clamp(0, config.bins - 1)
    start, end = offsets[left], offsets[left + 1]
    return left, (edges - start) / (end - start)


def localisation_loss(edges: Tensor, left: Tensor, share: Tensor, overlaps: Tensor) -> Tensor:
    """Sum FGL of each stage: cross-entropy against the two bins around each edge, weighted by the pair's IoU.

    Args:
        edges: (N, P, 4, R + 1) logits.
        left: (N, P, 4) from edge_targets.
        share: (N, P, 4) from edge_targets.
        overlaps: (N, P) IoU without gradient.
    """
    logs = edges.log_softmax(-1)
    at_left = logs.gather(-1, left.unsqueeze(-1)).squeeze(-1)
    at_right = logs.gather(-1, left.unsqueeze(-1) + 1).squeeze(-1)
    loss = at_left * (1 - share) + at_right * share
    return -(loss.sum(-1) * overlaps).sum(-1)


def distillation_loss(
    students: Tensor,
    teacher: Tensor,
    confidence: Tensor,
    rows: Tensor,
    overlaps: Tensor,
    *,
    temperature: float,
) -> Tensor:
    """DDF of each student layer: the last layer's distributions are its truth, matched queries and others apart.

    The mean over the matched and the mean over the others are weighed by the roots of their numbers.

    Args:
        students: (A, R, 4, bins + 1) logits of the layers before the last.
        teacher: (R, 4, bins + 1) logits of the last layer; takes no gradient.
        confidence: (R,) the last layer's best class score, the weight of an unmatched query.
        rows: (A, P) int64 into R, the matched queries of each layer.
        overlaps: (A, P) IoU, the weight of a matched query.
        temperature: of both softmaxes.

    Returns:
        (A,)
    """
    height, matched = students.shape[1], rows.shape[1]
    roots = matched**0.5 + (height - matched) ** 0.5
    others = (height - matched) ** -0.5 if height > matched else 0.0
    weights = (confidence * (others / roots)).repeat(len(rows), 1)
    weights.scatter_(1, rows, overlaps * (matched**-0.5 / roots if matched else 0.0))
    total: Tensor = _Distillation.apply(students, teacher, weights * (temperature**2 / 4), temperature)
    return total


class _Distillation(torch.autograd.Function):
    """Weighted Kullback-Leibler divergence from the teacher; its gradient is found on the way forward."""

    @staticmethod
    def forward(ctx: Any, students: Tensor, teacher: Tensor, weights: Tensor, temperature: float) -> Tensor:
        wanted = (teacher / temperature).log_softmax(-1)
        share = wanted.exp()
        found = (students / temperature).log_softmax(-1)
        loss = -(found * share).sum((-1, -2)) + (share * wanted).sum((-1, -2))
        ctx.save_for_backward(found.exp_().sub_(share), weights)
        ctx.temperature = temperature
        return (loss * weights).sum(-1)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, weights = ctx.saved_tensors
        scale = weights * (grad / ctx.temperature)[:, None]
        return slope * scale[..., None, None], None, None, None
