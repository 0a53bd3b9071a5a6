"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159): few bilinear samples in place of all pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from detrx import native
from detrx.errors import MissingBackendError
from detrx.ops import cuda_bodies
from detrx.ops.native_body import has_native

_MOST_SOFTENED = 64
"""Points that the native bodies take a softmax of."""


def deform_attn(
    values: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points_per_level: Sequence[int],
    *,
    softmax: bool = False,
) -> Tensor:
    """Sum weighted bilinear samples of the feature levels at each query's own points.

    On CUDA devices values of half precision are read as they are, and coordinates, weights and sums are float32. There
    the gradient of values differs in its last bits from run to run, unless torch.use_deterministic_algorithms(True)
    asks for a slower body.

    B images, S pixels of all levels, H heads of D channels, Q queries, P points of all levels. A sample is read as
    ``grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False)`` reads it.

    Args:
        values: (B, S, H, D), the levels one after another, each row by row.
        shapes: (height, width) of each level in pixels; the areas add up to S.
        locations: (B, Q, H, P, 2) x, y in [0, 1] of the level; outside counts as zero.
        weights: (B, Q, H, P), usually a softmax over P.
        points_per_level: how many of the P points belong to each level, in order.
        softmax: whether weights are logits, of which a softmax over P is taken on the way; their gradient is then that
            of the logits.

    Returns:
        (B, Q, H * D), of the dtype of values.

    Raises:
        ValueError: the areas or the points do not add up, or a shape does not fit.
    """
    _check(values, shapes, locations, weights, points_per_level)
    usable = _use_native(values, locations, weights)
    if softmax and not (usable and 0 < sum(points_per_level) <= _MOST_SOFTENED):
        weights, softmax = weights.softmax(-1), False
    if not usable:
        return deform_attn_gather(values, shapes, locations, weights, points_per_level)
    sides = [side for shape in shapes for side in shape]
    out = _op(
        values if values.is_cuda else values.float(),
        sides,
        locations.float(),
        weights.float(),
        list(points_per_level),
        softmax,
    )
    answer: Tensor = out.to(values.dtype)
    return answer


def deform_attn_gather(
    values: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points_per_level: Sequence[int],
) -> Tensor:
    """Answer as deform_attn does, in few torch operators that every exporter and device knows (no GridSample).

    The levels get a border of zeros, and a row of one table holds the four corners of a point: one flat gather
    reads all points, nothing asks which are inside, and one matrix product weighs and sums.
    """
    # Autocast would do the sums below in half precision.
    with torch.autocast(values.device.type, enabled=False):
        return _gather(values, shapes, locations, weights, points_per_level)


def _gather(
    values: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points_per_level: Sequence[int],
) -> Tensor:
    # Plain numbers: a traced graph then holds them as constants, and only the batch may vary.
    heads, channels = int(values.shape[2]), int(values.shape[3])
    queries, points = int(locations.shape[1]), int(locations.shape[3])
    sides = [(int(height), int(width)) for height, width in shapes]
    table = _corner_table(values, sides)
    exact = torch.promote_types(locations.dtype, torch.float32)
    if not _is_tracing():
        # As an index, a NaN would stop a CUDA device for good; it reads nothing, as in the native body.
        locations = locations.nan_to_num(nan=-1.0)
    rows, share = _corners(sides, locations.to(exact), weights.to(exact), points_per_level)
    head = torch.arange(heads, device=values.device).reshape(1, 1, -1, 1)
    rows = rows * heads + head
    if int(values.shape[0]) > 1:
        rows = rows + _image_numbers(rows) * (int(table.shape[1]) * heads)
    rows = rows.reshape(-1)
    read = table.reshape(-1, 4 * channels).index_select(0, rows)
    read = read.reshape(-1, 4 * points, channels)
    out = share.to(values.dtype).reshape(-1, 1, 4 * points) @ read
    batch = -1 if _is_tracing() else values.shape[0]
    return out.reshape(batch, queries, heads * channels)


def _image_numbers(like: Tensor) -> Tensor:
    """0, 1, ... (B, 1, 1, 1) int64, counted from the data: the exporter would freeze a batch read off a shape."""
    return (like[:, :1, :1, :1] * 0 + 1).cumsum(0) - 1


def _corner_table(values: Tensor, sides: Sequence[tuple[int, int]]) -> Tensor:
    """(B, R, H, 4 * D): each row a pixel with its right, lower and lower right neighbours.

    A level of (h, w) pixels has (h + 2) * (w + 2) rows, from one pixel above and left of it; outside is zero.
    """
    heads, channels = int(values.shape[2]), int(values.shape[3])
    tables = []
    levels = values.split([height * width for height, width in sides], dim=1)
    for level, (height, width) in zip(levels, sides):
        padded = F.pad(level.reshape(-1, height, width, heads * channels), (0, 0, 1, 2, 1, 2))
        padded = padded.reshape(-1, height + 3, width + 3, heads, channels)
        above, below = padded[:, :-1], padded[:, 1:]
        four = [above[:, :, :-1], above[:, :, 1:], below[:, :, :-1], below[:, :, 1:]]
        tables.append(torch.cat(four, -1).reshape(-1, (height + 2) * (width + 2), heads, 4 * channels))
    return torch.cat(tables, 1)


def _corners(
    sides: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor, points_per_level: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The table's row of each point (B, Q, H, P) int64, and the weighted shares of its corners (N, 4)."""
    size, stride, start = _levels(sides, points_per_level, locations)
    # Further out than the border is as the border: zero, and without a gradient.
    at = torch.minimum((locations * size - 0.5).clamp(min=-1), size)
    near = at.floor()
    rows = ((near * stride).sum(-1) + start).long()
    # Small matrix products in place of slices and stacks of pairs, which runtimes copy number by number.
    far = (at - near).reshape(-1, 2)
    columns = _blend(far, 0, [0, 1, 0, 1])
    lines = _blend(far, 1, [0, 0, 1, 1])
    return rows, columns * lines * (weights.reshape(-1, 1) @ weights.new_ones(1, 4))


def _blend(far: Tensor, axis: int, corners: list[int]) -> Tensor:
    """(N, 4): for each corner the share ``far[:, axis]``, or what is left of 1 where the corner is 0."""
    left = far.new_tensor([1 - corner for corner in corners])
    slope = far.new_tensor([[(2 * corner - 1) * (row == axis) for corner in corners] for row in (0, 1)])
    return torch.addmm(left, far, slope)


def _levels(
    sides: Sequence[tuple[int, int]], points_per_level: Sequence[int], like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Of the level of each point: (width, height) (P, 2), rows to a step right or down (P, 2), row of pixel 0 (P,)."""
    size: list[tuple[int, int]] = []
    stride: list[tuple[int, int]] = []
    start: list[int] = []
    before = 0
    for (height, width), points in zip(sides, points_per_level):
        size += [(width, height)] * points
        stride += [(1, width + 2)] * points
        start += [before + width + 3] * points
        before += (height + 2) * (width + 2)
    tables = (torch.tensor(rows, dtype=like.dtype, device=like.device) for rows in (size, stride, start))
    one, two, three = tables
    return one, two, three


def _check(
    values: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points: Sequence[int],
) -> None:
    if _is_tracing() or torch.compiler.is_compiling():  # sizes are symbols there
        return
    area = sum(height * width for height, width in shapes)
    if values.ndim != 4 or values.shape[1] != area:
        raise ValueError(f"[deform_attn] values must have shape (B, {area}, H, D), got {tuple(values.shape)}")
    batch, _, heads, _ = values.shape
    wanted = (batch, weights.shape[1], heads, sum(points))
    if tuple(weights.shape) != wanted or tuple(locations.shape) != (*wanted, 2):
        raise ValueError(
            f"[deform_attn] weights must have shape {wanted} and locations {(*wanted, 2)}, "
            f"got {tuple(weights.shape)} and {tuple(locations.shape)}"
        )
    if len(points) != len(shapes):
        raise ValueError(f"[deform_attn] need the points of each of {len(shapes)} levels, got {list(points)}")


def _use_native(*tensors: Tensor) -> bool:
    if _is_tracing() or torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        return False
    if tensors[0].is_cuda:
        # The kernel's gradient of values is summed in no fixed order; torch's own sums may be asked to keep one.
        kept = torch.are_deterministic_algorithms_enabled() and torch.is_grad_enabled()
        return not kept and all(has_native("deform_attn", t) for t in tensors)
    return all(t.device.type == "cpu" and t.dtype != torch.float64 for t in tensors) and _native() is not None


def _is_tracing() -> bool:
    return bool(torch.jit.is_tracing())  # type: ignore[attr-defined, no-untyped-call]


@functools.cache
def _native() -> ModuleType | None:
    try:
        module = native.load()
    except MissingBackendError:
        return None
    return module if hasattr(module, "deform_attn") else None


@torch.library.custom_op("detrx::deform_attn", mutates_args=())
def _op(
    values: Tensor, sides: list[int], locations: Tensor, weights: Tensor, points: list[int], softmax: bool
) -> Tensor:
    if values.is_cuda:
        return cuda_bodies.deform_attn(values, sides, locations, weights, points, softmax)
    out = torch.empty(*weights.shape[:2], values.shape[2] * values.shape[3], dtype=torch.float32)
    native.load().deform_attn(
        _array(values),
        sides,
        _array(locations),
        _array(weights),
        points,
        softmax,
        _array(out),
        torch.get_num_threads(),
    )
    return out


@torch.library.custom_op("detrx::deform_attn_backward", mutates_args=())
def _backward_op(
    grad: Tensor,
    values: Tensor,
    sides: list[int],
    locations: Tensor,
    weights: Tensor,
    points: list[int],
    softmax: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    if values.is_cuda:
        return cuda_bodies.deform_attn_backward(grad, values, sides, locations, weights, points, softmax)
    to_values, to_locations, to_weights = (
        torch.empty_like(t, memory_format=torch.contiguous_format) for t in (values, locations, weights)
    )
    native.load().deform_attn_backward(
        *map(_array, (grad, values)),
        sides,
        *map(_array, (locations, weights)),
        points,
        softmax,
        *map(_array, (to_values, to_locations, to_weights)),
        torch.get_num_threads(),
    )
    return to_values, to_locations, to_weights


def _array(tensor: Tensor) -> NDArray[np.float32]:
    array: NDArray[np.float32] = tensor.detach().contiguous().numpy()
    return array


@_op.register_fake
def _(values: Tensor, sides: list[int], locations: Tensor, weights: Tensor, *_: object) -> Tensor:
    return values.new_empty(*weights.shape[:2], values.shape[2] * values.shape[3])


@_backward_op.register_fake
def _(
    grad: Tensor, values: Tensor, sides: list[int], locations: Tensor, weights: Tensor, *_: object
) -> tuple[Tensor, Tensor, Tensor]:
    def like(t: Tensor) -> Tensor:
        return torch.empty_like(t, memory_format=torch.contiguous_format)

    return like(values), like(locations), like(weights)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    values, ctx.sides, locations, weights, ctx.points, ctx.softmax = inputs
    ctx.save_for_backward(values, locations, weights)


def _differentiate(ctx, grad):  # type: ignore[no-untyped-def]
    values, locations, weights = ctx.saved_tensors
    to_values, to_locations, to_weights = _backward_op(
        grad, values, ctx.sides, locations, weights, ctx.points, ctx.softmax
    )
    return to_values, None, to_locations, to_weights, None, None


_op.register_autograd(_differentiate, setup_context=_save)
