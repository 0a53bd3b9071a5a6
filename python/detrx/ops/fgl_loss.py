"""D-FINE's fine-grained localisation loss (arXiv 2410.13842), reading only the queries that own targets."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detrx import native
from detrx.ops import cuda_bodies
from detrx.ops.cross import cross
from detrx.ops.loss_reference import fgl_loss_reference
from detrx.ops.native_body import adjacent, by_stage, has_native, is_plain, number


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
    operator: Any = _Direct.apply if is_plain(edges) else _op
    sums: Tensor = operator(
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


def _forward(
    edges: Tensor,
    references: Tensor,
    truths: Tensor,
    owners: Tensor,
    iou: Tensor,
    normaliser: Tensor | None,
    reg_scale: float,
    up: float,
) -> Tensor:
    if edges.is_cuda:
        return cuda_bodies.fgl_loss(edges, references, truths, owners, iou, normaliser, reg_scale, up)
    sums = torch.empty(edges.shape[0], dtype=torch.float32)
    native.load().fgl_loss(
        cross(adjacent(edges)),
        cross(references.contiguous()),
        cross(truths.contiguous()),
        cross(adjacent(owners)),
        cross(iou),
        reg_scale,
        up,
        number(normaliser),
        cross(sums),
        torch.get_num_threads(),
    )
    return sums


def _backward(
    grad: Tensor,
    edges: Tensor,
    references: Tensor,
    truths: Tensor,
    owners: Tensor,
    iou: Tensor,
    normaliser: Tensor | None,
    reg_scale: float,
    up: float,
) -> Tensor:
    if edges.is_cuda:
        return cuda_bodies.fgl_loss_backward(
            grad, edges, references, truths, owners, iou, normaliser, reg_scale, up
        )
    to_edges = torch.empty_like(edges, memory_format=torch.contiguous_format)
    native.load().fgl_loss_backward(
        cross(grad),
        cross(adjacent(edges)),
        cross(references.contiguous()),
        cross(truths.contiguous()),
        cross(adjacent(owners)),
        cross(iou),
        reg_scale,
        up,
        number(normaliser),
        cross(to_edges),
        torch.get_num_threads(),
    )
    return to_edges


_op = torch.library.custom_op("detrx::fgl_loss", _forward, mutates_args=(), device_types=("cpu", "cuda"))
_backward_op = torch.library.custom_op(
    "detrx::fgl_loss_backward", _backward, mutates_args=(), device_types=("cpu", "cuda")
)


@_op.register_fake
def _(edges: Tensor, *_: Any) -> Tensor:
    return edges.new_empty(edges.shape[0], dtype=torch.float32)


@_backward_op.register_fake
def _(grad: Tensor, edges: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(edges, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.reg_scale, ctx.up = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _backward_op(grad, *ctx.saved_tensors, ctx.reg_scale, ctx.up), *(None,) * 7


_op.register_autograd(_differentiate, setup_context=_save)


class _Direct(torch.autograd.Function):
    """The operator without the dispatcher's costs."""

    @staticmethod
    def forward(ctx: Any, *inputs: Any) -> Tensor:
        output = _forward(*inputs)
        _save(ctx, inputs, output)
        return output

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        arguments: tuple[Any, ...] = (grad, *ctx.saved_tensors, ctx.reg_scale, ctx.up)
        return _backward(*arguments), *(None,) * 7
