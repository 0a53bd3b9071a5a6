"""DETR's class loss (arXiv 2005.12872): weighted softmax cross-entropy over all queries, forward and backward."""

from __future__ import annotations

from torch import Tensor

from detrx.ops.loss_operator import LossOperator
from detrx.ops.loss_reference import cross_entropy_reference
from detrx.ops.native_body import adjacent, by_stage, has_native, room


def cross_entropy(logits: Tensor, labels: Tensor, owners: Tensor, *, no_object: float = 0.1) -> Tensor:
    """Take the weighted mean of the softmax class loss over all queries of each of L stages.

    Only logits take a gradient, once. For it, one number a query is kept beside the arguments, and on the CPU the
    slopes of float32 logits, as in focal_loss. The means come out the same, bit for bit, whatever the number of
    threads.

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
    means: Tensor = _op(logits, labels.long(), by_stage(owners), float(no_object))[0]
    return means


def _arguments(logits: Tensor, labels: Tensor, owners: Tensor, no_object: float) -> list[object]:
    return [adjacent(logits), labels.contiguous(), adjacent(owners), no_object]


# The means, and for the way back the log-sum-exp of each query and the sums of weights.
_op = LossOperator(
    "cross_entropy",
    "Tensor logits, Tensor labels, Tensor owners, float no_object",
    arguments=_arguments,
    room=lambda logits, *_: room(logits, 1, 3, 1),
    outputs=3,
    keeps=True,
    slopes=True,
)
