"""Sigmoid class losses over all queries and classes, without one-hot targets, forward and backward."""

from __future__ import annotations

from torch import Tensor

from detrx.ops.cross import Choice, Divisor
from detrx.ops.loss_operator import LossOperator
from detrx.ops.loss_reference import focal_loss_reference
from detrx.ops.native_body import adjacent, by_stage, has_native, room

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

    Only logits take a gradient, once. On the CPU the slopes of float32 logits are written on the way forward, and the
    first way back scales them where they lie; any other way back reads the logits again, and nothing but the arguments
    is kept for it. The sums come out the same, bit for bit, whatever the number of threads.

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
    sums: Tensor = _op(
        logits, labels.long(), by_stage(owners), quality, normaliser, kind, float(alpha), float(gamma)
    )
    return sums


def _arguments(
    logits: Tensor,
    labels: Tensor,
    owners: Tensor,
    quality: Tensor | None,
    normaliser: Tensor | None,
    kind: str,
    alpha: float,
    gamma: float,
) -> list[object]:
    given = [adjacent(logits), labels.contiguous(), adjacent(owners), quality]
    return [*given, Choice("FocalKind", kind), alpha, gamma, Divisor(normaliser)]


_op = LossOperator(
    "focal_loss",
    "Tensor logits, Tensor labels, Tensor owners, Tensor? quality, Tensor? normaliser, "
    "str kind, float alpha, float gamma",
    arguments=_arguments,
    room=lambda logits, *_: room(logits, 1),
    slopes=True,
)
