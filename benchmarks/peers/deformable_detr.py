"""The CUDA operator of fundamentalvision/Deformable-DETR (Apache 2.0), where somebody has built it.

In a checkout of its own: `cd models/ops && python setup.py build_ext --inplace`; DEFORMABLE_DETR_OPS names that folder.
It takes float32 and float64, and as many points at every level.
"""

from __future__ import annotations

import importlib
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

Body = Callable[[Tensor, Sequence[tuple[int, int]], Tensor, Tensor, Sequence[int]], Tensor]
STEP = 64
"""Images that it takes at a time, as in its own module."""


def deformable_detr() -> Body | None:
    """Its operator with our arguments; None where it was not built."""
    folder = os.environ.get("DEFORMABLE_DETR_OPS")
    if folder is None:
        return None
    sys.path.append(folder)
    native = importlib.import_module("MultiScaleDeformableAttention")

    class Attention(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *given: Tensor) -> Tensor:
            ctx.save_for_backward(*given)
            return native.ms_deform_attn_forward(*given, STEP)

        @staticmethod
        def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
            to = native.ms_deform_attn_backward(*ctx.saved_tensors, grad.contiguous(), STEP)
            return to[0], None, None, to[1], to[2]

    def run(
        values: Tensor,
        shapes: Sequence[tuple[int, int]],
        locations: Tensor,
        weights: Tensor,
        points: Sequence[int],
    ) -> Tensor:
        sides, starts = levels(tuple(shapes), values.device)
        each = (len(points), points[0])
        return Attention.apply(
            values, sides, starts, locations.unflatten(3, each), weights.unflatten(3, each)
        )

    return run


def takes(values: Tensor, points: Sequence[int]) -> bool:
    return values.dtype == torch.float32 and len(set(points)) == 1


def levels(shapes: tuple[tuple[int, int], ...], device: torch.device) -> tuple[Tensor, Tensor]:
    """The sides of the levels and where each begins, made once, as its own module is handed them."""
    found = _levels.get((shapes, device))
    if found is None:
        sides = torch.tensor(shapes, device=device)
        areas = sides.prod(1)
        found = _levels[shapes, device] = sides, areas.cumsum(0) - areas
    return found


_levels: dict[Any, tuple[Tensor, Tensor]] = {}
