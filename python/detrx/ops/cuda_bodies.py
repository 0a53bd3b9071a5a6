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
from detrx.ops.cross import Choice, Divisor, cross


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


def serves(tensor: Tensor) -> bool:
    """Whether a tensor is for these bodies."""
    return tensor.is_cuda


def call(name: str, like: Tensor, *arguments: object, sums: bool = False) -> None:
    """Launch the kernel of a loss; ``sums`` where its blocks leave parts of sums.

    Args:
        name: of the native function.
        like: (L, B, Q, ...), on the device.
        arguments: as the native bodies of the CPU take them, before they cross.
        sums: whether stages are summed up.
    """
    parts = [cross(_parts(like))] if sums else []
    getattr(_kernels(), name)(*map(_taken, arguments), *parts, _stream(like))


def _taken(argument: object) -> object:
    """What kernels take for an argument: memory of the device, all of it contiguous."""
    if isinstance(argument, Tensor):
        return cross(argument.contiguous())
    if isinstance(argument, Divisor):
        return None if argument.normaliser is None else cross(argument.normaliser.detach().float().reshape(1))
    if isinstance(argument, Choice):
        return _kind(argument.group, argument.name)
    return argument


def deform_attn(
    values: Tensor,
    sides: list[int],
    locations: Tensor,
    weights: Tensor,
    points: list[int],
    softmax: bool = False,
) -> Tensor:
    """Of the type of values, which are read as they are: float32, float16 or bfloat16."""
    out = values.new_empty(*weights.shape[:2], values.shape[2] * values.shape[3])
    _kernels().deform_attn(
        cross(values.contiguous()),
        sides,
        *_crossed(locations.float(), weights.float()),
        points,
        softmax,
        cross(out),
        _stream(values),
    )
    return out


def deform_attn_backward(
    grad: Tensor,
    values: Tensor,
    sides: list[int],
    locations: Tensor,
    weights: Tensor,
    points: list[int],
    softmax: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """The gradient of values is summed by threads in no fixed order, so its last bits differ from run to run."""
    to_values = torch.zeros(values.shape, dtype=torch.float32, device=values.device)
    to_locations, to_weights = _room(values, locations.shape, weights.shape)
    _kernels().deform_attn_backward(
        *_crossed(grad, values),
        sides,
        *_crossed(locations.float(), weights.float()),
        points,
        softmax,
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


def _room(like: Tensor, *shapes: Sequence[int], dtype: torch.dtype = torch.float32) -> list[Tensor]:
    return [torch.empty(tuple(shape), dtype=dtype, device=like.device) for shape in shapes]


def _parts(first: Tensor) -> Tensor:
    """What the blocks of a loss leave for the last sum."""
    stages, images, queries = first.shape[:3]
    return _room(first, (stages, _kernels().loss_parts(images, queries), 2))[0]


def _workspace(like: Tensor, problems: int, targets: int, queries: int) -> Tensor:
    size = _kernels().assign_workspace(problems, targets, queries)
    return torch.empty(size, dtype=torch.uint8, device=like.device)
