"""Matching of queries and targets: the costs of all layers and images, and one assignment call for all of them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from detrx.errors import TrainingError
from detrx.ops.assign import assign_counting
from detrx.ops.match_weights import MatchWeights
from detrx.tensors import Targets

_DEFAULT = MatchWeights()


def match(
    logits: Tensor,
    boxes: Tensor,
    targets: Targets,
    *,
    weights: MatchWeights = _DEFAULT,
    threads: int | None = None,
    names: Sequence[str] | None = None,
) -> Tensor:
    """Find the query of each target in each of L layers at the least total cost.

    Costs are taken in float32 whatever autocast says, and only at the classes and boxes of the image's own targets.

    Args:
        logits: (L, B, Q, C) class logits.
        boxes: (L, B, Q, 4) centres.
        targets: the truth of the B images.
        weights: what the cost is made of.
        threads: how many threads share the L * B problems; None: as many as torch uses.
        names: what to call each layer in an error; None: by number.

    Returns:
        (L, B, M) int64 on the CPU: the query of each target, -1 past the counts and for targets left over where they
        outnumber the queries.

    Raises:
        TrainingError: a cost is NaN or infinite; the message names the layer and the image.
    """
    layers, batch, queries, _ = logits.shape
    if targets.labels.shape[1] == 0:
        return torch.empty(layers, batch, 0, dtype=torch.int64)
    with torch.no_grad(), torch.autocast(logits.device.type, enabled=False):
        cost = match_cost(logits, boxes, targets, weights=weights)
    found, bad = assign_counting(
        cost.reshape(layers * batch, -1, queries).transpose(1, 2),
        targets.counts.repeat(layers),
        threads=threads,
    )
    if bad.any():
        _refuse(bad.reshape(layers, batch), names or [f"layer {i}" for i in range(layers)])
    return found.reshape(layers, batch, -1)


def match_cost(logits: Tensor, boxes: Tensor, targets: Targets, *, weights: MatchWeights) -> Tensor:
    """The cost (L, B, M, Q) float32 of giving each target each query of its image; see match."""
    layers, queries = logits.shape[0], logits.shape[2]
    labels = targets.labels[None, :, :, None].expand(layers, -1, -1, queries)
    x = logits.transpose(2, 3).gather(2, labels).float()
    cost = _focal_cost(x, alpha=weights.alpha, gamma=weights.gamma).mul_(weights.class_)
    ours = boxes.float().unsqueeze(2).unbind(-1)
    truth = targets.boxes.float()[None, :, :, None].unbind(-1)
    for a, b in zip(ours, truth):
        cost.add_((a - b).abs_(), alpha=weights.l1)
    return cost.sub_(_giou(ours, truth), alpha=weights.giou)


def _focal_cost(x: Tensor, *, alpha: float, gamma: float) -> Tensor:
    """What a positive would add to the focal loss less what a negative would, finite for every finite logit."""
    p, minus_log_p = x.sigmoid(), F.softplus(-x)
    positive = (1 - p).pow_(gamma).mul_(minus_log_p).mul_(alpha)
    return positive.sub_(p.pow_(gamma).mul_(minus_log_p.add_(x)), alpha=1 - alpha)


def _giou(a: Sequence[Tensor], b: Sequence[Tensor]) -> Tensor:
    """Generalised IoU of centres given coordinate by coordinate, which broadcasts without a last axis of four."""
    meet, hull = [], []
    for axis in (0, 1):
        a_low, a_high = a[axis] - 0.5 * a[axis + 2], a[axis] + 0.5 * a[axis + 2]
        b_low, b_high = b[axis] - 0.5 * b[axis + 2], b[axis] + 0.5 * b[axis + 2]
        meet.append((torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp_(min=0))
        hull.append(torch.maximum(a_high, b_high).sub_(torch.minimum(a_low, b_low)))
    inter, around = meet[0].mul_(meet[1]), hull[0].mul_(hull[1])
    join = (a[2] * a[3] + b[2] * b[3]).sub_(inter)
    return inter.div_(join.clamp(min=1e-12)).sub_((around - join).div_(around.clamp(min=1e-12)))


def _refuse(bad: Tensor, names: Sequence[str]) -> None:
    layer, image = (int(i) for i in bad.nonzero()[0])
    raise TrainingError(
        f"[match] costs must be finite, but {int(bad[layer, image])} of {names[layer]}, image {image} of the batch, "
        "are NaN or infinite: the network has diverged, or its input was not finite. Lower the learning rate, "
        "or train without mixed precision."
    )
