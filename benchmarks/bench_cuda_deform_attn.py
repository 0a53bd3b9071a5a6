"""Deformable attention on a CUDA device, forward and backward: against torch's grid_sample, level by level, and against
the first kernel for it, Deformable-DETR's, where DEFORMABLE_DETR_OPS names a folder in which it was built.

The bandwidth is that of the pixels that the samples read (four each) and of what is written, beside that of a copy.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from detrx.ops.deform_attn import deform_attn

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from on_device import copy_bandwidth, interleave, record
from peers.deformable_detr import deformable_detr, takes

pytestmark = pytest.mark.needs("cuda")

SIZES = {
    "rt-n": ([(20, 20), (10, 10)], [6, 6], 128, 300),
    "rt-s": ([(40, 40), (20, 20), (10, 10)], [3, 6, 3], 256, 300),
    "rt-l": ([(80, 80), (40, 40), (20, 20)], [4, 4, 4], 256, 300),
    "encoder": ([(100, 134), (50, 67), (25, 34), (13, 17)], [4, 4, 4, 4], 256, 17821),
}
HEADS = 8


def by_grid_sample(values, shapes, locations, weights, points):
    batch, queries, heads, _ = weights.shape
    read = []
    levels = values.split([h * w for h, w in shapes], 1)
    for level, (h, w), grid in zip(levels, shapes, locations.split(points, 3)):
        maps = level.permute(0, 2, 3, 1).reshape(batch * heads, -1, h, w)
        grid = (2 * grid - 1).transpose(1, 2).flatten(0, 1).to(values.dtype)
        read.append(F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False))
    share = weights.transpose(1, 2).flatten(0, 1).unsqueeze(1).to(values.dtype)
    out = (torch.cat(read, -1) * share).sum(-1)
    return out.reshape(batch, -1, queries).transpose(1, 2)


@pytest.fixture(scope="module")
def copied() -> float:
    return copy_bandwidth()


@pytest.fixture(scope="module")
def first_kernel():
    return deformable_detr()


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("batch", [1, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=str)
def test_deform_attn(benchmark, copied, first_kernel, dtype, batch, size):
    shapes, points, width, queries = SIZES[size]
    if size == "encoder" and batch > 4:
        batch = 4
    torch.manual_seed(0)
    area, samples = sum(h * w for h, w in shapes), sum(points)
    leaves = [
        torch.randn(batch, area, HEADS, width // HEADS, device="cuda").to(dtype),
        torch.rand(batch, queries, HEADS, samples, 2, device="cuda"),
        torch.rand(batch, queries, HEADS, samples, device="cuda").softmax(-1),
    ]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    grad = torch.randn(batch, queries, width, device="cuda").to(dtype)

    def forward(body):
        with torch.no_grad():
            return body(leaves[0], shapes, leaves[1], leaves[2], points)

    bodies = {"detrx": deform_attn, "grid_sample": by_grid_sample}
    if first_kernel is not None and takes(leaves[0], points):
        bodies["Deformable-DETR"] = first_kernel

    def both(body):
        return torch.autograd.grad(body(leaves[0], shapes, leaves[1], leaves[2], points), leaves, grad)

    for way, run in (("forward", forward), ("forward and backward", both)):
        contenders = {name: functools.partial(run, body) for name, body in bodies.items()}
        title = f"deform_attn {size} {dtype} B={batch} {way}"
        medians = interleave(contenders, title=title)
        if way == "forward":
            item = leaves[0].element_size()
            read = 4 * batch * queries * samples * width * item + 12 * batch * queries * HEADS * samples
            speed = (read + batch * queries * width * item) / medians["detrx"] / 1e6
            print(f"  {speed:.2f} TB/s of pixels, {speed / copied:.2f} of a copy's {copied:.2f} TB/s")
    record(benchmark, lambda: both(deform_attn), medians, size=size, batch=batch, bandwidth=speed)
