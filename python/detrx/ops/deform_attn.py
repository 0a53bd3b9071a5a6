"""Multi-scale deformable attention (Deformable DETR, arXiv 2010.04159): few bilinear samples in place of all pixels."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from types import ModuleType

import torch
from torch import Tensor

from detrx import native
from detrx.errors import MissingBackendError


def deform_attn(
    values: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points_per_level: Sequence[int],
) -> Tensor:
    """Sum weighted bilinear samples of the feature levels at each query's own points.

    B images, S pixels of all levels, H heads of D channels, Q queries, P points of all levels. A sample is read as
    ``grid_sample(mode="bilinear", padding_mode="zeros", align_corners=False)`` reads it.

    Args:
        values: (B, S, H, D), the levels one after another, each row by row.
        shapes: (height, width) of each level in pixels; the areas add up to S.
        locations: (B, Q, H, P, 2) x, y in [0, 1] of the level; outside counts as zero.
        weights: (B, Q, H, P), usually a softmax over P.
        points_per_level: how many of the P points belong to each level, in order.

    Returns:
        (B, Q, H * D), of the dtype of values.

    Raises:
        ValueError: the areas or the points do not add up, or a shape does not fit.
    """
    _check(values, shapes, locations, weights, points_per_level)
    if not _use_native(values, locations, weights):
        return deform_attn_gather(values, shapes, locations, weights, points_per_level)
    sides = [side for shape in shapes for side in shape]
    out = _op(values.float(), sides, locations.float(), weights.float(), list(points_per_level))
    return out.to(values.dtype)


def deform_attn_gather(
    values: Tensor,
    shapes: Sequence[tuple[int, int]],
    locations: Tensor,
    weights: Tensor,
    points_per_level: Sequence[int],
) -> Tensor:
    """Answer as deform_attn does, in torch operators that every exporter and device knows (no GridSample).

    Four corners of every point are rows of one table, so one flat gather reads them all.
    """
    batch = values.shape[0]
    # Plain numbers: a traced graph then holds them as constants, and only the batch may vary.
    pixels, heads, channels = (int(side) for side in values.shape[1:])
    queries, points = int(locations.shape[1]), int(locations.shape[3])
    where, share = _corners(shapes, locations.float(), points_per_level)
    image = torch.arange(batch, device=values.device).reshape(-1, 1, 1, 1) * pixels
    head = torch.arange(heads, device=values.device).reshape(1, 1, -1, 1)
    rows = ((image + where) * heads + head).reshape(-1)
    read = values.reshape(-1, channels).index_select(0, rows)
    read = read.reshape(batch, queries, heads, 4 * points, channels)
    share = share * torch.cat([weights.float()] * 4, dim=-1)
    out = (read * share.to(values.dtype).unsqueeze(-1)).sum(-2)
    return out.reshape(batch, queries, heads * channels)


def _corners(
    shapes: Sequence[tuple[int, int]], locations: Tensor, points_per_level: Sequence[int]
) -> tuple[Tensor, Tensor]:
    """The pixel of each of the four corners of each point (B, Q, H, 4 * P) int64, and its bilinear share."""
    high, wide, start = _levels(shapes, points_per_level, locations)
    x, y = locations[..., 0] * wide - 0.5, locations[..., 1] * high - 0.5
    left, top = x.floor(), y.floor()
    right_share, low_share = x - left, y - top
    where, share = [], []
    for row, of_row in ((top, 1 - low_share), (top + 1, low_share)):
        for column, of_column in ((left, 1 - right_share), (left + 1, right_share)):
            inside = (row >= 0) & (row < high) & (column >= 0) & (column < wide)
            near_row = torch.minimum(row.clamp(min=0), high - 1)
            near_column = torch.minimum(column.clamp(min=0), wide - 1)
            where.append((near_row * wide + near_column + start).long())
            share.append(of_row * of_column * inside.to(locations.dtype))
    return torch.cat(where, dim=-1), torch.cat(share, dim=-1)


def _levels(
    shapes: Sequence[tuple[int, int]], points_per_level: Sequence[int], like: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Height, width and first pixel of the level of each point, (P,) each."""
    rows: list[tuple[int, int, int]] = []
    start = 0
    for (height, width), points in zip(shapes, points_per_level):
        rows += [(int(height), int(width), start)] * points
        start += int(height) * int(width)
    table = torch.tensor(rows, dtype=like.dtype, device=like.device)
    return table[:, 0], table[:, 1], table[:, 2]


def _check(
    values: Tensor, shapes: Sequence[tuple[int, int]], locations: Tensor, weights: Tensor, points: Sequence[int]
) -> None:
    if torch.jit.is_tracing() or torch.compiler.is_compiling():  # sizes are symbols there
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
    if torch.jit.is_tracing() or torch.compiler.is_exporting() or torch.onnx.is_in_onnx_export():
        return False
    return all(t.device.type == "cpu" and t.dtype != torch.float64 for t in tensors) and _native() is not None


@functools.cache
def _native() -> ModuleType | None:
    try:
        module = native.load()
    except MissingBackendError:
        return None
    return module if hasattr(module, "deform_attn") else None


@torch.library.custom_op("detrx::deform_attn", mutates_args=())
def _op(values: Tensor, sides: list[int], locations: Tensor, weights: Tensor, points: list[int]) -> Tensor:
    out = torch.empty(*weights.shape[:2], values.shape[2] * values.shape[3], dtype=torch.float32)
    native.load().deform_attn(
        _array(values), sides, _array(locations), _array(weights), points, _array(out), torch.get_num_threads()
    )
    return out


@torch.library.custom_op("detrx::deform_attn_backward", mutates_args=())
def _backward_op(
    grad: Tensor, values: Tensor, sides: list[int], locations: Tensor, weights: Tensor, points: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    outs = tuple(torch.empty_like(t, memory_format=torch.contiguous_format) for t in (values, locations, weights))
    native.load().deform_attn_backward(
        *map(_array, (grad, values)),
        sides,
        *map(_array, (locations, weights)),
        points,
        *map(_array, outs),
        torch.get_num_threads(),
    )
    return outs


def _array(tensor: Tensor):  # type: ignore[no-untyped-def]
    return tensor.detach().contiguous().numpy()


@_op.register_fake
def _(values: Tensor, sides: list[int], locations: Tensor, weights: Tensor, points: list[int]) -> Tensor:
    return values.new_empty(*weights.shape[:2], values.shape[2] * values.shape[3])


@_backward_op.register_fake
def _(
    grad: Tensor, values: Tensor, sides: list[int], locations: Tensor, weights: Tensor, points: list[int]
) -> tuple[Tensor, Tensor, Tensor]:
    def like(t: Tensor) -> Tensor:
        return torch.empty_like(t, memory_format=torch.contiguous_format)

    return like(values), like(locations), like(weights)


def _save(ctx, inputs, output) -> None:  # type: ignore[no-untyped-def]
    values, ctx.sides, locations, weights, ctx.points = inputs
    ctx.save_for_backward(values, locations, weights)


def _differentiate(ctx, grad):  # type: ignore[no-untyped-def]
    values, locations, weights = ctx.saved_tensors
    to_values, to_locations, to_weights = _backward_op(grad, values, ctx.sides, locations, weights, ctx.points)
    return to_values, None, to_locations, to_weights, None


_op.register_autograd(_differentiate, setup_context=_save)
