"""D-FINE's fine-grained localisation loss (arXiv 2410.13842), reading only the queries that own targets."""

from __future__ import annotations

from torch import Tensor

from detrx.ops.cross import Divisor
from detrx.ops.loss_operator import LossOperator
from detrx.ops.loss_reference import fgl_loss_reference
from detrx.ops.native_body import adjacent, by_stage, has_native, room


def fgl_loss(
    edges: Tensor,
    references: Tensor,
    truths: Tensor,
    owners: Tensor,
    iou: Tensor,
    *,
    reg_scale: float,
    up: float,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Sum the cross-entropy of the edges' distributions against the two bins around the true edge, over L stages.

    Only edges take a gradient, once. Nothing but the arguments is kept for it. The sums come out the same, bit for bit,
    whatever the number of threads.

    Args:
        edges: (L, B, Q, 4, R + 1) logits over the bins, left, top, right, bottom; R even and at least 4.
        references: (L, B, Q, 4) centres that the distributions refine.
        truths: (B, M, 4) centres.
        owners: (L, B, Q), (1, B, Q) or (B, Q) integers: the target in [0, M) that each query owns, or -1.
        iou: (L, B, Q) what each owning query weighs.
        reg_scale: how the bins crowd around zero.
        up: the farthest bin, in sizes of the reference over reg_scale.
        normaliser: () what the sums are divided by; None: 1.

    Returns:
        (L,) float32.

    Raises:
        ValueError: a shape does not fit, or an owner is M or more.
    """
    if not has_native("fgl_loss", edges):
        return fgl_loss_reference(
            edges, references, truths, owners, iou, reg_scale=reg_scale, up=up, normaliser=normaliser
        )
    sums: Tensor = _op(
        edges,
        references.detach().float(),
        truths.float(),
        by_stage(owners),
        iou.detach().float(),
        normaliser,
        float(reg_scale),
        float(up),
    )
    return sums


def _arguments(
    edges: Tensor,
    references: Tensor,
    truths: Tensor,
    owners: Tensor,
    iou: Tensor,
    normaliser: Tensor | None,
    reg_scale: float,
    up: float,
) -> list[object]:
    given = [adjacent(edges), references.contiguous(), truths.contiguous(), adjacent(owners), iou]
    return [*given, reg_scale, up, Divisor(normaliser)]


_op = LossOperator(
    "fgl_loss",
    "Tensor edges, Tensor references, Tensor truths, Tensor owners, Tensor iou, Tensor? normaliser, "
    "float reg_scale, float up",
    arguments=_arguments,
    room=lambda edges, *_: room(edges, 1),
)
