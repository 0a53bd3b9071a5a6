"""The box losses of queries that own a target: L1 and an overlap loss, forward and backward without gathered copies."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from detrx.ops.cross import Choice, Divisor
from detrx.ops.loss_operator import LossOperator
from detrx.ops.loss_reference import box_loss_reference
from detrx.ops.native_body import adjacent, by_stage, has_native, room

KINDS = ("iou", "giou", "diou", "ciou")


class BoxLoss(NamedTuple):
    """What the boxes of each stage cost."""

    l1: Tensor
    """(L,) float32 sums of the distances of cx, cy, w and h."""
    overlap: Tensor
    """(L,) float32 sums of 1 - overlap."""
    iou: Tensor
    """(L, B, Q) float32 plain IoU without gradient, 0 where a query owns nothing."""


def box_loss(
    boxes: Tensor, truths: Tensor, owners: Tensor, *, kind: str = "giou", normaliser: Tensor | None = None
) -> BoxLoss:
    """Sum the distances of the boxes of owning queries from their truths, over each of L stages.

    Only boxes take a gradient, once. Nothing but the arguments is kept for it. The sums come out the same, bit for bit,
    whatever the number of threads. A box of which the union with its truth, or the hull around both, has no area gets
    no gradient from the overlap.

    Args:
        boxes: (L, B, Q, 4) centres.
        truths: (B, M, 4) centres.
        owners: (L, B, Q), (1, B, Q) or (B, Q) integers: the target in [0, M) that each query owns, or -1.
        kind: "iou", "giou" (arXiv 1902.09630), "diou" or "ciou" (arXiv 1911.08287).
        normaliser: () what the sums are divided by; None: 1.

    Raises:
        ValueError: a shape does not fit, there is no such kind, or an owner is M or more.
    """
    if kind not in KINDS:
        raise ValueError(f"[box_loss] kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if not has_native("box_loss", boxes):
        return BoxLoss(*box_loss_reference(boxes, truths, owners, kind=kind, normaliser=normaliser))
    return BoxLoss(*_op(boxes, truths.float(), by_stage(owners), normaliser, kind))


def _arguments(
    boxes: Tensor, truths: Tensor, owners: Tensor, normaliser: Tensor | None, kind: str
) -> list[object]:
    return [boxes, truths.contiguous(), adjacent(owners), Choice("Overlap", kind), Divisor(normaliser)]


_op = LossOperator(
    "box_loss",
    "Tensor boxes, Tensor truths, Tensor owners, Tensor? normaliser, str kind",
    arguments=_arguments,
    room=lambda boxes, *_: room(boxes, 1, 1, 3),
    outputs=3,
    sums=2,
)
