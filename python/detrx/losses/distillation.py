"""DDF, the loss that hands D-FINE's last distributions down to the layers before (arXiv 2410.13842)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def distillation_loss(
    students: Tensor,
    teacher: Tensor,
    confidence: Tensor,
    owners: Tensor,
    iou: Tensor,
    *,
    temperature: float,
    matched: Tensor | None = None,
    queries: Tensor | None = None,
) -> Tensor:
    """Kullback-Leibler divergence of each student layer from the last one, matched queries and others apart.

    The mean over the matched and the mean over the others are weighed by the roots of their numbers, which stay on
    the device.

    Args:
        students: (A, B, Q, 4, R + 1) logits of the layers before the last.
        teacher: (B, Q, 4, R + 1) logits of the last layer; takes no gradient.
        confidence: (B, Q) the last layer's best class score, the weight of an unmatched query.
        owners: (A, B, Q) or (B, Q) integers, the target of each query, -1 for none.
        iou: (A, B, Q), the weight of a matched query.
        temperature: of both softmaxes.
        matched: (A,) or (1,) how many of the B * Q queries own a target; None: as owners say. Others where the B images
            are a share of a batch.
        queries: () how many there are in all; None: B * Q.

    Returns:
        (A,)
    """
    owned = (owners >= 0).expand(students.shape[:3])
    matched = owned.sum((1, 2), keepdim=True) if matched is None else matched[:, None, None]
    others = (owned[0].numel() if queries is None else queries) - matched
    roots = matched.sqrt() + others.sqrt()
    weights = torch.where(owned, iou * matched.clamp(min=1).rsqrt(), confidence * others.clamp(min=1).rsqrt())
    total: Tensor = _Distillation.apply(
        students, teacher, weights * (temperature**2 / 4) / roots, temperature
    )
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
        return (loss * weights).sum((1, 2))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        slope, weights = ctx.saved_tensors
        scale = weights * (grad / ctx.temperature)[:, None, None]
        return slope * scale[..., None, None], None, None, None
