"""Sigmoid class losses over all queries and classes, without one-hot targets, forward and backward."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from detrx import native
from detrx.ops import cuda_bodies
from detrx.ops.cross import cross
from detrx.ops.loss_reference import focal_loss_reference
from detrx.ops.native_body import adjacent, by_stage, has_native, is_plain, number

KINDS = ("focal", "varifocal", "mal")


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    owners: Tensor,
    *,
    kind: str = "focal",
    alpha: float = 0.25,
    gamma: float = 2.0,
    quality: Tensor | None = None,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Sum a sigmoid class loss over all queries and classes of each of L stages.

    Only logits take a gradient, once. Nothing but the arguments is kept for it: the way back reads the logits again.
    The sums come out the same, bit for bit, whatever the number of threads.

    Args:
        logits: (L, B, Q, C).
        labels: (B, M) classes in [0, C) of the targets.
        owners: (L, B, Q), (1, B, Q) or (B, Q) integers: the target in [0, M) that each query owns, or -1.
        kind: "focal" (arXiv 1708.02002), "varifocal" (arXiv 2008.13367: a negative weighs alpha * p ** gamma, a
            positive is taught its quality and weighs it) or "mal" (arXiv 2412.04234: a negative weighs p ** gamma, a
            positive is taught quality ** gamma). Only focal's weights carry gradient.
        alpha: see kind; in focal the share of positives. At least 0; not used by mal.
        gamma: the power, at least 0.
        quality: (L, B, Q) in [0, 1], how good each owning query's box is; needed unless kind is "focal".
        normaliser: () what the sums are divided by; None: 1.

    Returns:
        (L,) float32.

    Raises:
        ValueError: a shape does not fit, there is no such kind, quality is missing, alpha or gamma is negative, or an
            owner or a label that is used is out of range.
    """
    if kind not in KINDS:
        raise ValueError(f"[focal_loss] kind must be one of {', '.join(KINDS)}, got {kind!r}")
    if alpha < 0 or gamma < 0:
        raise ValueError(f"[focal_loss] alpha and gamma must be at least 0, got {alpha} and {gamma}")
    if kind == "focal":
        quality = None
    elif quality is None:
        raise ValueError(f"[focal_loss] {kind} must have quality, got None")
    if not has_native("focal_loss", logits):
        return focal_loss_reference(
            logits,
            labels,
            owners,
            kind=kind,
            alpha=alpha,
            gamma=gamma,
            quality=quality,
            normaliser=normaliser,
        )
    quality = None if quality is None else quality.float()
    operator: Any = _Direct.apply if is_plain(logits) else _op
    sums: Tensor = operator(
        logits, labels.long(), by_stage(owners), quality, normaliser, kind, float(alpha), float(gamma)
    )
    return sums


def _forward(
    logits: Tensor,
    labels: Tensor,
    owners: Tensor,
    quality: Tensor | None,
    normaliser: Tensor | None,
    kind: str,
    alpha: float,
    gamma: float,
) -> Tensor:
    if logits.is_cuda:
        return cuda_bodies.focal_loss(logits, labels, owners, quality, normaliser, kind, alpha, gamma)
    sums = torch.empty(logits.shape[0], dtype=torch.float32)
    module = native.load()
    module.focal_loss(
        cross(adjacent(logits)),
        cross(labels.contiguous()),
        cross(adjacent(owners)),
        None if quality is None else cross(quality),
        getattr(module.FocalKind, kind),
        alpha,
        gamma,
        number(normaliser),
        cross(sums),
        torch.get_num_threads(),
    )
    return sums


def _backward(
    grad: Tensor,
    logits: Tensor,
    labels: Tensor,
    owners: Tensor,
    quality: Tensor | None,
    normaliser: Tensor | None,
    kind: str,
    alpha: float,
    gamma: float,
) -> Tensor:
    if logits.is_cuda:
        return cuda_bodies.focal_loss_backward(
            grad, logits, labels, owners, quality, normaliser, kind, alpha, gamma
        )
    to_logits = torch.empty_like(logits, memory_format=torch.contiguous_format)
    module = native.load()
    module.focal_loss_backward(
        cross(grad),
        cross(adjacent(logits)),
        cross(labels.contiguous()),
        cross(adjacent(owners)),
        None if quality is None else cross(quality),
        getattr(module.FocalKind, kind),
        alpha,
        gamma,
        number(normaliser),
        cross(to_logits),
        torch.get_num_threads(),
    )
    return to_logits


_op = torch.library.custom_op("detrx::focal_loss", _forward, mutates_args=(), device_types=("cpu", "cuda"))
_backward_op = torch.library.custom_op(
    "detrx::focal_loss_backward", _backward, mutates_args=(), device_types=("cpu", "cuda")
)


@_op.register_fake
def _(logits: Tensor, *_: Any) -> Tensor:
    return logits.new_empty(logits.shape[0], dtype=torch.float32)


@_backward_op.register_fake
def _(grad: Tensor, logits: Tensor, *_: Any) -> Tensor:
    return torch.empty_like(logits, memory_format=torch.contiguous_format)


def _save(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    *tensors, ctx.kind, ctx.alpha, ctx.gamma = inputs
    ctx.save_for_backward(*tensors)


def _differentiate(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    return _backward_op(grad, *ctx.saved_tensors, ctx.kind, ctx.alpha, ctx.gamma), *(None,) * 7


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
        arguments: tuple[Any, ...] = (grad, *ctx.saved_tensors, ctx.kind, ctx.alpha, ctx.gamma)
        return _backward(*arguments), *(None,) * 7
