"""DDF, D-FINE's loss that hands the last layer's distributions down to the layers before (arXiv 2410.13842)."""

from __future__ import annotations

import torch
from torch import Tensor

from detrx.ops.loss_operator import LossOperator
from detrx.ops.loss_reference import ddf_loss_reference
from detrx.ops.native_body import adjacent, by_stage, has_native


def ddf_loss(
    edges: Tensor,
    confidence: Tensor,
    owners: Tensor,
    iou: Tensor,
    *,
    temperature: float = 5.0,
    matched: Tensor | None = None,
    queries: Tensor | None = None,
) -> Tensor:
    """Take the Kullback-Leibler divergence of the edges' distributions of each layer from those of the last.

    The mean over the queries that own a target and the mean over the others are weighed by the roots of their numbers.
    Only edges take a gradient, once, and of these not the last layer's, which teaches. For the way back one number a
    query and edge is kept beside the arguments. The sums come out the same, bit for bit, whatever the number of
    threads.

    Args:
        edges: (L, B, Q, 4, R + 1) logits over the bins.
        confidence: (B, Q) in [0, 1], what a query weighs that owns nothing: the last layer's best class score.
        owners: (L, B, Q), (1, B, Q) or (B, Q) integers: the target that each query owns, or -1. The last layer's are
            not read.
        iou: (L, B, Q) what an owning query weighs; the last layer's are not read.
        temperature: of both softmaxes, above 0.
        matched: (L - 1,) or (1,) how many queries own a target; None: as owners say. Others where the B images are a
            share of a batch.
        queries: () how many there are in all; None: B * Q. Given with matched.

    Returns:
        (L - 1,) float32; (0,) where L is 0.

    Raises:
        ValueError: a shape does not fit, or temperature is not above 0.
    """
    if not temperature > 0:
        raise ValueError(f"[ddf_loss] temperature must be above 0, got {temperature}")
    if not has_native("ddf_loss", edges):
        return ddf_loss_reference(
            edges, confidence, owners, iou, temperature=temperature, matched=matched, queries=queries
        )
    owners = by_stage(owners)
    sums: Tensor = _op(
        edges,
        confidence.detach().float(),
        owners,
        iou.detach().float(),
        _counts(owners, matched, queries, students=max(edges.shape[0] - 1, 0)),
        float(temperature),
    )[0]
    return sums


def _counts(owners: Tensor, matched: Tensor | None, queries: Tensor | None, *, students: int) -> Tensor:
    """(students, 2) float32 queries with and without a target."""
    found = (owners[: max(students, 1)] >= 0).sum((1, 2)) if matched is None else matched
    others = (owners.shape[1] * owners.shape[2] if queries is None else queries) - found
    return torch.stack((found, others), -1).float().expand(students, 2)


def _arguments(
    edges: Tensor, confidence: Tensor, owners: Tensor, iou: Tensor, counts: Tensor, temperature: float
) -> list[object]:
    return [adjacent(edges), confidence, adjacent(owners), iou, counts.contiguous(), temperature]


def _room(edges: Tensor, *_: object) -> tuple[Tensor, ...]:
    """The sums, and for the way back log-sum-exps."""
    shapes = (max(edges.shape[0] - 1, 0),), edges.shape[:4]
    return tuple(torch.empty(shape, dtype=torch.float32, device=edges.device) for shape in shapes)


_op = LossOperator(
    "ddf_loss",
    "Tensor edges, Tensor confidence, Tensor owners, Tensor iou, Tensor counts, float temperature",
    arguments=_arguments,
    room=_room,
    outputs=2,
    keeps=True,
)
