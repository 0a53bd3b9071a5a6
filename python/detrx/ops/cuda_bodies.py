"""The native bodies on CUDA tensors.

Each makes room for its answer, launches on the caller's stream and waits for nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from detrx import native
from detrx.errors import MissingBackendError
from detrx.ops.cross import cross


def has_cuda(name: str) -> bool:
    """Whether the extension holds the operator of that name for CUDA tensors."""
    try:
        return hasattr(getattr(native.load(), "cuda", None), name)
    except MissingBackendError:
        return False


def assign(cost: Tensor, counts: Tensor) -> tuple[Tensor, Tensor]:
    """(N, M) int32 queries of the targets, and (N,) int32 how many costs were not finite; cost (N, M, Q)."""
    problems, targets, queries = cost.shape
    match, bad = _room(cost, (problems, targets), (problems,), dtype=torch.int32)
    _kernels().assign(
        *_crossed(cost.float(), counts.to(cost.device, torch.int32), match, bad),
        cross(_workspace(cost, problems, targets, queries)),
        _stream(cost),
    )
    return match, bad


def match(
    logits: Tensor,
    boxes: Tensor,
    labels: Tensor,
    truths: Tensor,
    counts: Tensor,
    *,
    softmax: bool,
    factors: Sequence[float],
) -> tuple[Tensor, Tensor]:
    """(L * B, M) int32 queries of the targets, and (L * B,) int32 how many costs were not finite.

    ``factors`` are MatchWeights' class_, l1, giou, alpha and gamma. Logits and boxes of two types are both widened.
    """
    layers, images, queries, _ = logits.shape
    problems, targets = layers * images, labels.shape[1]
    if boxes.dtype != logits.dtype:
        logits, boxes = logits.float(), boxes.float()
    (cost,) = _room(logits, (problems, targets, queries))
    found, bad = _room(logits, (problems, targets), (problems,), dtype=torch.int32)
    _kernels().match(
        *_crossed(logits, boxes, labels.long(), truths.float(), counts.to(torch.int32)),
        softmax,
        *map(float, factors),
        *_crossed(cost, found, bad, _workspace(logits, problems, targets, queries)),
        _stream(logits),
    )
    return found, bad


def box_loss(
    boxes: Tensor, truths: Tensor, owners: Tensor, normaliser: Tensor | None, kind: str
) -> tuple[Tensor, Tensor, Tensor]:
    """As ops.box_loss, all tensors of the types that its native body takes; so are the following."""
    l1, away, iou = _room(boxes, boxes.shape[:1], boxes.shape[:1], boxes.shape[:3])
    _kernels().box_loss(
        *_crossed(boxes, truths, owners),
        _kind("Overlap", kind),
        _divisor(normaliser),
        *_crossed(l1, away, iou, _parts(boxes)),
        _stream(boxes),
    )
    return l1, away, iou


def box_loss_backward(
    grad_l1: Tensor,
    grad_away: Tensor,
    boxes: Tensor,
    truths: Tensor,
    owners: Tensor,
    normaliser: Tensor | None,
    kind: str,
) -> Tensor:
    to_boxes = _like(boxes)
    _kernels().box_loss_backward(
        *_crossed(grad_l1, grad_away, boxes, truths, owners),
        _kind("Overlap", kind),
        _divisor(normaliser),
        cross(to_boxes),
        _stream(boxes),
    )
    return to_boxes


def focal_loss(
    logits: Tensor,
    labels: Tensor,
    owners: Tensor,
    quality: Tensor | None,
    normaliser: Tensor | None,
    kind: str,
    alpha: float,
    gamma: float,
) -> Tensor:
    (sums,) = _room(logits, logits.shape[:1])
    _kernels().focal_loss(
        *_crossed(logits, labels, owners),
        None if quality is None else cross(quality.float().contiguous()),
        _kind("FocalKind", kind),
        alpha,
        gamma,
        _divisor(normaliser),
        *_crossed(sums, _parts(logits)),
        _stream(logits),
    )
    return sums


def focal_loss_backward(
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
    to_logits = _like(logits)
    _kernels().focal_loss_backward(
        *_crossed(grad, logits, labels, owners),
        None if quality is None else cross(quality.float().contiguous()),
        _kind("FocalKind", kind),
        alpha,
        gamma,
        _divisor(normaliser),
        cross(to_logits),
        _stream(logits),
    )
    return to_logits


def cross_entropy(
    logits: Tensor, labels: Tensor, owners: Tensor, no_object: float
) -> tuple[Tensor, Tensor, Tensor]:
    means, log_sums, weights = _room(logits, *(logits.shape[:n] for n in (1, 3, 1)))
    _kernels().cross_entropy(
        *_crossed(logits, labels, owners),
        no_object,
        *_crossed(means, log_sums, weights, _parts(logits)),
        _stream(logits),
    )
    return means, log_sums, weights


def cross_entropy_backward(
    grad: Tensor,
    logits: Tensor,
    labels: Tensor,
    owners: Tensor,
    log_sums: Tensor,
    weights: Tensor,
    no_object: float,
) -> Tensor:
    to_logits = _like(logits)
    _kernels().cross_entropy_backward(
        *_crossed(grad, logits, labels, owners),
        no_object,
        *_crossed(log_sums, weights, to_logits),
        _stream(logits),
    )
    return to_logits


def fgl_loss(
    edges: Tensor,
    references: Tensor,
    truths: Tensor,
    owners: Tensor,
    iou: Tensor,
    normaliser: Tensor | None,
    reg_scale: float,
    up: float,
) -> Tensor:
    (sums,) = _room(edges, edges.shape[:1])
    _kernels().fgl_loss(
        *_crossed(edges, references, truths, owners, iou),
        reg_scale,
        up,
        _divisor(normaliser),
        *_crossed(sums, _parts(edges)),
        _stream(edges),
    )
    return sums


def fgl_loss_backward(
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
    to_edges = _like(edges)
    _kernels().fgl_loss_backward(
        *_crossed(grad, edges, references, truths, owners, iou),
        reg_scale,
        up,
        _divisor(normaliser),
        cross(to_edges),
        _stream(edges),
    )
    return to_edges


def deform_attn(
    values: Tensor, sides: list[int], locations: Tensor, weights: Tensor, points: list[int]
) -> Tensor:
    """Of the type of values, which are read as they are: float32, float16 or bfloat16."""
    out = values.new_empty(*weights.shape[:2], values.shape[2] * values.shape[3])
    _kernels().deform_attn(
        cross(values.contiguous()),
        sides,
        *_crossed(locations.float(), weights.float()),
        points,
        cross(out),
        _stream(values),
    )
    return out


def deform_attn_backward(
    grad: Tensor, values: Tensor, sides: list[int], locations: Tensor, weights: Tensor, points: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of values is summed by threads in no fixed order, so its last bits differ from run to run."""
    to_values = torch.zeros(values.shape, dtype=torch.float32, device=values.device)
    to_locations, to_weights = _room(values, locations.shape, weights.shape)
    _kernels().deform_attn_backward(
        *_crossed(grad, values),
        sides,
        *_crossed(locations.float(), weights.float()),
        points,
        *_crossed(to_values, to_locations, to_weights),
        _stream(values),
    )
    return to_values.to(values.dtype), to_locations.to(locations.dtype), to_weights.to(weights.dtype)


def _kernels() -> ModuleType:
    kernels: ModuleType = native.load().cuda
    return kernels


def _kind(group: str, name: str) -> object:
    return getattr(getattr(native.load(), group), name)


def _stream(tensor: Tensor) -> int:
    handle: int = torch.cuda.current_stream(tensor.device).cuda_stream
    return handle


def _crossed(*tensors: Tensor) -> list[object]:
    return [cross(tensor.contiguous()) for tensor in tensors]


def _divisor(normaliser: Tensor | None) -> object:
    return None if normaliser is None else cross(normaliser.detach().float().reshape(1))


def _room(like: Tensor, *shapes: Sequence[int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.empty(tuple(shape), dtype=dtype, device=like.device) for shape in shapes]


def _like(tensor: Tensor) -> Tensor:
    return torch.empty_like(tensor, memory_format=torch.contiguous_format)


def _parts(first: Tensor) -> Tensor:
    """What the blocks of a loss leave for the last sum."""
    stages, images, queries = first.shape[:3]
    return _room(first, (stages, _kernels().loss_parts(images, queries), 2))[0]


def _workspace(like: Tensor, problems: int, targets: int, queries: int) -> Tensor:
    size = _kernels().assign_workspace(problems, targets, queries)
    return torch.empty(size, dtype=torch.uint8, device=like.device)
