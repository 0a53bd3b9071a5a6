"""DETR's class loss (arXiv 2005.12872): weighted softmax cross-entropy over all queries, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detrx import native
from detrx.ops import cuda_bodies
from detrx.ops.cross import cross
from detrx.ops.loss_reference import cross_entropy_reference
from detrx.ops.native_body import adjacent, by_stage, has_native, is_plain


def cross_entropy(logits: Tensor, labels: Tensor, owners: Tensor, *, no_object: float = 0.1) -> Tensor:
    """Take the weighted mean of the softmax class loss over all queries of each of L stages.

    Only logits take a gradient, once. For it, one number a query is kept beside the arguments. The means come out the
    same, bit for bit, whatever the number of threads.

    Args:
        logits: (L, B, Q, C + 1), the last class for "no object".
        labels: (B, M) classes in [0, C) of the targets.
        owners: (L, B, Q), (1, B, Q) or (B, Q) integers: the target in [0, M) that each query owns, or -1.
        no_object: the weight of a query that owns nothing; the others weigh 1.

    Returns:
        (L,) float32, each divided by the sum of its stage's weights.

    Raises:
        ValueError: a shape does not fit, or an owner or a label that is used is out of range.
    """
    if not has_native("cross_entropy", logits):
        return cross_entropy_reference(logits, labels, owners, no_object=no_object)
    operator: Any = _Direct.apply if is_plain(logits) else _op
    means: Tensor = operator(logits, labels.long(), by_stage(owners), float(no_object))[0]
    return means


def _forward(
    logits: Tensor, labels: Tensor, owners: Tensor, no_object: float
) -> tuple[Tensor, Tensor, Tensor]:
    """The means, and for the way back (L, B, Q) log-sum-exp of each query and (L,) sums of weights."""
    if logits.is_cuda:
        return cuda_bodies.cross_entropy(logits, labels, owners, no_object)
    means, log_sums, weights = (torch.empty(logits.shape[:n], dtype=torch.float32) for n in (1, 3, 1))
    native.load().cross_entropy(
        cross(adjacent(logits)),
        cross(labels.contiguous()),
        cross(adjacent(owners)),
        no_object,
        cross(means),
        cross(log_sums),
        cross(weights),
        torch.get_num_threads(),
    )
    return means, log_sums, weights


def _backward(
    grad: Tensor,
    logits: Tensor,
    labels: Tensor,
    owners: Tensor,
    log_sums: Tensor,
    weights: Tensor,
    no_object: float,
) -> Tensor:
    if logits.is_cuda:
        return cuda_bodies.cross_entropy_backward(grad, logits, labels, owners, log_sums, weights, no_object)
    to_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    native.load().cross_entropy_backward(
        cross(grad),
        cross(adjacent(logits)),
        cross(labels.contiguous()),
        cross(adjacent(owners)),
        no_object,
        cross(log_sums),
        cross(weights),
        cross(to_logits),
        torch.get_num_threads(),
    )
    return to_logits


_op = torch.library.custom_op("detrx::cross_entropy", _forward, mutates_args=(), device_types=("cpu", "cuda"))
_backward_op = torch.library.custom_op(
    "detrx::cross_entropy_backward", _backward, mutates_args=(), device_types=("cpu", "cuda")
)


@_op.register_fake
def _(logits: Tensor, *_: Any) -> tuple[Tensor, ...]:
    return tuple(logits.new_empty(logits.shape[:n], dtype=torch.float32) for n in (1, 3, 1))


@_backward_op.register_fake
def _(grad: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor, Tensor]) -> None:
    *tensors, ctx.no_object = inputs
    _, log_sums, weights = output
    ctx.save_for_backward(*tensors, log_sums, weights)
    ctx.mark_non_differentiable(log_sums, weights)
    ctx.set_materialize_grads(False)  # else a gradient of zeros is made for all of log_sums


def _differentiate(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
    return _backward_op(grad, *ctx.saved_tensors, ctx.no_object), None, None, None


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
    def backward(ctx: Any, grad: Tensor, *_: Tensor) -> tuple[Tensor | None, ...]:
        arguments: tuple[Any, ...] = (grad, *ctx.saved_tensors, ctx.no_object)
        return _backward(*arguments), None, None, None
