"""Matching on a CUDA device: against costs on the device and assignment on the host, which all DETR codebases do.

With scipy where it is installed, else with our own CPU assignment, which is faster than scipy.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest
import torch

from detrx.ops.assign import assign_counting
from detrx.ops.cuda_bodies import assign as assign_on_cuda
from detrx.ops.match import match_counting
from detrx.ops.match_cost import match_cost
from detrx.ops.match_weights import MatchWeights
from detrx.tensors import Targets

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from on_device import device_only, interleave, record

pytestmark = pytest.mark.needs("cuda")

LAYERS, CLASSES = 6, 91


def drawn(kind: str, images: int, queries: int) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    """Predictions of a network that has learned something: a query near each target, of its class."""
    random = torch.Generator().manual_seed(0)
    mean, most = (7.3, 60) if kind == "coco" else (60, 150)
    counts = torch.empty(images).exponential_(1 / mean, generator=random).long().clamp(0, most)
    targets = int(counts.max().clamp(min=1))
    truths = torch.rand(images, targets, 4, generator=random) * torch.tensor([0.8, 0.8, 0.15, 0.15]) + 0.05
    labels = torch.randint(0, CLASSES, (images, targets), generator=random)
    logits = torch.randn(LAYERS, images, queries, CLASSES, generator=random) - 3
    boxes = torch.rand(LAYERS, images, queries, 4, generator=random) * 0.8 + 0.05
    near = min(targets, queries)
    boxes[:, :, :near] = truths[:, :near] + 0.02 * torch.randn(LAYERS, images, near, 4, generator=random)
    logits[:, :, :near].scatter_add_(
        3, labels[None, :, :near, None].expand(LAYERS, -1, -1, -1), torch.full((LAYERS, images, near, 1), 4.0)
    )
    order = torch.randperm(queries, generator=random)
    logits, boxes = logits[:, :, order], boxes[:, :, order].clamp(0.01, 1)
    moved = Targets(truths, labels, counts.int()).to("cuda")
    return logits.cuda(), boxes.cuda(), moved


def on_the_host(logits, boxes, truth):
    cost = match_cost(logits, boxes, truth.labels, truth.boxes, weights=MatchWeights()).flatten(0, 1)
    if importlib.util.find_spec("scipy") is None:
        return assign_counting(cost.transpose(1, 2), truth.counts.repeat(LAYERS))
    from scipy.optimize import linear_sum_assignment

    tables = cost.cpu().numpy()
    counts = truth.counts.repeat(LAYERS).tolist()
    return [linear_sum_assignment(table[:count]) for table, count in zip(tables, counts)]


@pytest.mark.parametrize("kind", ["coco", "crowd"])
@pytest.mark.parametrize("queries", [100, 300, 900])
@pytest.mark.parametrize("images", [2, 8, 16, 64])
def test_match(benchmark, images, queries, kind):
    logits, boxes, truth = drawn(kind, images, queries)

    def ours():
        return match_counting(logits, boxes, truth)

    contenders = {
        "detrx": ours,
        "costs there, assignment here": lambda: on_the_host(logits, boxes, truth),
        "detrx, device alone": device_only(ours),
    }
    title = f"match {kind} B={images} Q={queries}"
    medians = interleave(contenders, title=title, rounds=10)
    record(benchmark, ours, medians, kind=kind, images=images, queries=queries)


@pytest.mark.parametrize("kind", ["trained", "fresh"])
@pytest.mark.parametrize("size", [(96, 30, 300), (96, 150, 300), (96, 150, 900), (208, 300, 300)], ids=str)
def test_assign(benchmark, size, kind):
    problems, targets, queries = size
    torch.manual_seed(0)
    cost = torch.rand(problems, targets, queries, device="cuda")
    if kind == "fresh":  # near-equal columns: long paths
        cost = 0.01 * cost + torch.rand(problems, targets, 1, device="cuda")
        cost += torch.rand(problems, 1, queries, device="cuda")
    counts = torch.full((problems,), targets, dtype=torch.int32, device="cuda")
    contenders = {
        "detrx": lambda: assign_on_cuda(cost, counts),
        "detrx, copied and solved here": lambda: assign_counting(cost.transpose(1, 2), counts),
    }
    if importlib.util.find_spec("torch_linear_assignment") is not None:
        from torch_linear_assignment import batch_linear_assignment

        contenders["torch-linear-assignment"] = lambda: batch_linear_assignment(cost)
    medians = interleave(contenders, title=f"assign {kind} {size}", rounds=10)
    record(benchmark, contenders["detrx"], medians, kind=kind, size=size)
