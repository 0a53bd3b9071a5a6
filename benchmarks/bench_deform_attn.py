"""Deformable attention, forward and backward, against transformers' grid_sample form, at the sizes of rt-n and rt-s."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from transformers.models.d_fine.modeling_d_fine import multi_scale_deformable_attention_v2

from detrx.ops.deform_attn import deform_attn

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from side_by_side import interleave

SIZES = {
    "rt-n": ([(20, 20), (10, 10)], [6, 6], 128),
    "rt-s": ([(40, 40), (20, 20), (10, 10)], [3, 6, 3], 256),
}


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 8])
def test_deform_attn(benchmark, size, batch):
    shapes, points, width = SIZES[size]
    queries, heads = 500, 8
    area = sum(h * w for h, w in shapes)
    g = torch.Generator().manual_seed(0)
    values = torch.randn(batch, area, heads, width // heads, generator=g).requires_grad_()
    locations = torch.rand(batch, queries, heads, sum(points), 2, generator=g).requires_grad_()
    weights = torch.rand(batch, queries, heads, sum(points), generator=g).softmax(-1).requires_grad_()

    def run(operator):
        out = operator(values, shapes, locations, weights, points)
        return torch.autograd.grad(out.sum(), (values, locations, weights))

    contenders = {
        "detrx": lambda: run(deform_attn),
        "transformers": lambda: run(multi_scale_deformable_attention_v2),
    }
    interleave(contenders, rounds=7, title=f"deform_attn {size}, batch {batch}")
    benchmark(contenders["detrx"])
