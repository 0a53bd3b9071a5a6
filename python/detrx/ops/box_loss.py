"""The box losses of queries that own a target: L1 and an overlap loss, forward and backward without gathered copies."""

from __future__ import annotations

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detrx import native
from detrx.ops import cuda_bodies
from detrx.ops.cross import cross
from detrx.ops.loss_reference import box_loss_reference
from detrx.ops.native_body import adjacent, by_stage, has_native, is_plain, number

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
    operator: Any = _Direct.apply if is_plain(boxes) else _op
    return BoxLoss(*operator(boxes, truths.float(), by_stage(owners), normaliser, kind))


def _forward(
    boxes: Tensor, truths: Tensor, owners: Tensor, normaliser: Tensor | None, kind: str
) -> tuple[Tensor, Tensor, Tensor]:
    if boxes.is_cuda:
        return cuda_bodies.box_loss(boxes, truths, owners, normaliser, kind)
    l1, away, iou = (torch.empty(boxes.shape[:n], dtype=torch.float32) for n in (1, 1, 3))
    module = native.load()
    module.box_loss(
        cross(boxes),
        cross(truths.contiguous()),
        cross(adjacent(owners)),
        getattr(module.Overlap, kind),
        number(normaliser),
        cross(l1),
        cross(away),
        cross(iou),
        torch.get_num_threads(),
    )
    return l1, away, iou


def _backward(
    grad_l1: Tensor,
    grad_away: Tensor,
    boxes: Tensor,
    truths: Tensor,
    owners: Tensor,
    normaliser: Tensor | None,
    kind: str,
) -> Tensor:
    if boxes.is_cuda:
        return cuda_bodies.box_loss_backward(grad_l1, grad_away, boxes, truths, owners, normaliser, kind)
    to_boxes = torch.empty_like(boxes, memory_format=torch.contiguous_format)
    module = native.load()
    module.box_loss_backward(
        cross(grad_l1),
        cross(grad_away),
        cross(boxes),
        cross(truths.contiguous()),
        cross(adjacent(owners)),
        getattr(module.Overlap, kind),
        number(normaliser),
        cross(to_boxes),
        torch.get_num_threads(),
    )
    return to_boxes


_op = torch.library.custom_op("detrx::box_loss", _forward, mutates_args=(), device_types=("cpu", "cuda"))
_backward_op = torch.library.custom_op(
    "detrx::box_loss_backward", _backward, mutates_args=(), device_types=("cpu", "cuda")
)


@_op.register_fake
def _(
    boxes: Tensor, truths: Tensor, owners: Tensor, normaliser: Tensor | None, kind: str
) -> tuple[Tensor, ...]:
    return tuple(boxes.new_empty(boxes.shape[:n], dtype=torch.float32) for n in (1, 1, 3))


@_backward_op.register_fake
def _(
    grad_l1: Tensor,
    grad_away: Tensor,
    boxes: Tensor,
    truths: Tensor,
    owners: Tensor,
    normaliser: Tensor | None,
    kind: str,
) -> Tensor:
    return torch.empty_like(boxes, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.kind = inputs
    ctx.save_for_backward(*tensors)
    ctx.mark_non_differentiable(output[2])
    ctx.set_materialize_grads(False)  # else a gradient of zeros is made for all of iou


def _arguments(ctx: Any, *grads: Tensor | None) -> list[Any]:
    """What the way back takes; a sum that nobody used has no gradient."""
    saved = ctx.saved_tensors
    found = [
        saved[0].new_zeros(saved[0].shape[0], dtype=torch.float32) if grad is None else grad
        for grad in grads[:2]
    ]
    return [*found, *saved, ctx.kind]


def _differentiate(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
    return _backward_op(*_arguments(ctx, *grads)), None, None, None, None


_op.register_autograd(_differentiate, setup_context=_save)


class _Direct(torch.autograd.Function):
    """The operator without the dispatcher's costs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> tuple[Tensor, Tensor, Tensor]:
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Tensor | None, ...]:
        return _backward(*_arguments(ctx, *grads)), None, None, None, None
