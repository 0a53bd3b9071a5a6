"""Matching of queries and targets: costs and assignment of all layers and images in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from detrx import native
from detrx.errors import TrainingError
from detrx.ops import cuda_bodies
from detrx.ops.assign import assign_counting
from detrx.ops.cross import cross, is_plain
from detrx.ops.match_cost import match_cost
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
        logits: (L, B, Q, C) class logits, of any floating type and layout.
        boxes: (L, B, Q, 4) centres, likewise.
        targets: the truth of the B images.
        weights: what the cost is made of.
        threads: how many threads share the L * B problems; None: as many as torch uses.
        names: what to call each layer in an error; None: by number.

    Returns:
        (L * B, M) int32 on the device of logits: the query of each target, -1 past the counts and for targets left
        over where they outnumber the queries.

    Raises:
        TrainingError: on the CPU, a cost is NaN or infinite; the message names the layer and the image. On other
            devices nothing waits for the answer: call match_counting, and raise_bad where you wait anyhow.
    """
    problem = _problem(logits, boxes, targets, weights, threads)
    if logits.is_cpu and is_plain(logits):
        found, bad, total = _on_cpu(problem)
    else:
        found, bad = _op(*problem)
        total = 1 if bad.is_cpu else 0  # not known yet, or not waited for
    if total:
        raise_bad(bad, images=logits.shape[1], names=names)
    return found


def match_counting(
    logits: Tensor,
    boxes: Tensor,
    targets: Targets,
    *,
    weights: MatchWeights = _DEFAULT,
    threads: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Match, and count the costs that are not finite in place of raising.

    Returns:
        The match, and (L * B,) int32 how many costs of each layer and image are NaN or infinite; these are taken as
        very high. Both lie on the device of logits.
    """
    problem = _problem(logits, boxes, targets, weights, threads)
    if logits.is_cpu and is_plain(logits):
        return _on_cpu(problem)[:2]
    found: tuple[Tensor, Tensor] = _op(*problem)
    return found


def raise_bad(bad: Tensor, *, images: int, names: Sequence[str] | None = None) -> None:
    """Refuse a match with costs that are not finite. Waits for the device.

    Args:
        bad: (L * B,) as match_counting gives it.
        images: B.
        names: what to call each of the L layers; None: by number.

    Raises:
        TrainingError: names the first such layer and image.
    """
    if not bad.any():
        return
    first = int(bad.nonzero()[0])
    layer, image = divmod(first, images)
    name = f"layer {layer}" if names is None else names[layer]
    raise TrainingError(
        f"[match] costs must be finite, but {int(bad[first])} of {name}, image {image} of the batch, "
        "are NaN or infinite: the network has diverged, or its input was not finite. Lower the learning rate, "
        "or train without mixed precision."
    )


class _Problem(NamedTuple):
    """What the bodies take, with the types that they take."""

    logits: Tensor
    boxes: Tensor
    labels: Tensor
    truths: Tensor
    counts: Tensor
    weights: list[float]
    """MatchWeights.numbers."""
    softmax: bool
    threads: int
    """0: as many as torch uses."""


def _problem(
    logits: Tensor, boxes: Tensor, targets: Targets, weights: MatchWeights, threads: int | None
) -> _Problem:
    if threads is not None and threads < 1:
        raise ValueError(f"[match] threads must be >= 1, got {threads}")
    device = logits.device
    return _Problem(
        _float(logits),
        _float(boxes),
        targets.labels.to(device, torch.int64),
        targets.boxes.to(device, torch.float32),
        targets.counts.to(device, torch.int32),
        weights.numbers,
        weights.class_cost == "softmax",
        threads or 0,
    )


def _float(tensor: Tensor) -> Tensor:
    tensor = tensor.detach() if tensor.requires_grad else tensor
    return tensor.float() if tensor.dtype == torch.float64 else tensor


def _on_cpu(p: _Problem) -> tuple[Tensor, Tensor, int]:
    """The match, how many costs of each problem are not finite, and their sum."""
    problems = p.logits.shape[0] * p.logits.shape[1]
    found = torch.empty(problems, p.labels.shape[1], dtype=torch.int32)
    bad = torch.empty(problems, dtype=torch.int32)
    total: int = native.load().match(
        *map(cross, p[:5]),
        p.weights,
        p.softmax,
        cross(found),
        cross(bad),
        p.threads or torch.get_num_threads(),
    )
    return found, bad, total


def _on_any_device(p: _Problem) -> tuple[Tensor, Tensor]:
    """Devices without a kernel of ours: costs there, assignment on the CPU."""
    layers, images, queries, _ = p.logits.shape
    class_, l1, giou, alpha, gamma = p.weights
    kind = MatchWeights(class_, l1, giou, alpha, gamma, "softmax" if p.softmax else "focal")
    cost = match_cost(p.logits, p.boxes, p.labels, p.truths, weights=kind)
    cost = cost.reshape(layers * images, p.labels.shape[1], queries).transpose(1, 2)
    found, bad = assign_counting(cost, p.counts.repeat(layers), threads=p.threads or None)
    return found.to(cost.device, torch.int32), bad.to(cost.device, torch.int32)


def _body(*given: Any) -> tuple[Tensor, Tensor]:
    p = _Problem(*given)
    if p.logits.is_cpu:
        return _on_cpu(p)[:2]
    if p.logits.is_cuda and cuda_bodies.has_cuda("match"):
        return cuda_bodies.match(*p[:5], softmax=p.softmax, factors=p.weights)
    return _on_any_device(p)


_op = torch.library.custom_op(
    "detrx::match",
    _body,
    mutates_args=(),
    schema="(Tensor logits, Tensor boxes, Tensor labels, Tensor truths, Tensor counts, float[] weights, bool softmax, "
    "int threads) -> (Tensor, Tensor)",
)


@_op.register_fake
def _(logits: Tensor, boxes: Tensor, labels: Tensor, *_: object) -> tuple[Tensor, Tensor]:
    problems = logits.shape[0] * logits.shape[1]
    found = logits.new_empty((problems, labels.shape[1]), dtype=torch.int32)
    return found, logits.new_empty((problems,), dtype=torch.int32)
