"""Assignment of all layers and images, costs given, against what else solves it on a CPU."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from detrx.ops.assign import assign
from detrx.ops.match_cost import match_cost
from detrx.ops.match_weights import MatchWeights

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from scenes import count_targets, scene
from side_by_side import interleave


def costs(counts: Tensor, *, queries: int, trained: bool, layers: int = 6) -> Tensor:
    """(L * B, Q, M), the queries adjacent, as a criterion that gathers by target has them."""
    logits, boxes, targets = scene(counts, queries=queries, trained=trained, layers=layers)
    cost = match_cost(logits, boxes, targets.labels, targets.boxes, weights=MatchWeights())
    return cost.flatten(0, 1).transpose(1, 2)


def near_equal(*, problems: int, queries: int, targets: int) -> Tensor:
    """(N, Q, M): every target likes the same queries, and little else tells the costs apart: the longest paths."""
    g = torch.Generator().manual_seed(0)
    own = torch.rand(problems, targets, 1, generator=g) + 0.1 * torch.rand(problems, 1, queries, generator=g)
    return (own + 0.01 * torch.rand(problems, targets, queries, generator=g)).transpose(1, 2)


def scipy_loop(cost: Tensor, counts: list[int]) -> Tensor:
    """As criteria write it: one problem after the other, the answers gathered in a tensor."""
    match = torch.full((cost.shape[0], cost.shape[2]), -1)
    for n, (one, count) in enumerate(zip(cost.numpy(), counts)):
        query, target = linear_sum_assignment(one[:, :count])
        match[n, torch.from_numpy(target)] = torch.from_numpy(query)
    return match


def others(cost: Tensor, counts: list[int]) -> dict[str, Callable[[], Any]]:
    """The other solvers that are installed."""
    found: dict[str, Callable[[], Any]] = {}
    if importlib.util.find_spec("torch_linear_assignment"):
        from torch_linear_assignment import batch_linear_assignment

        # Real targets first; the padding costs the same everywhere and so decides nothing.
        padded = torch.stack(
            [one.clone().index_fill_(1, torch.arange(n, one.shape[1]), 0.0) for one, n in zip(cost, counts)]
        )
        found["torch-linear-assignment"] = lambda: batch_linear_assignment(padded)
    if importlib.util.find_spec("lap"):
        import lap

        found["lapx"] = lambda: [
            lap.lapjv(one[:, :n], extend_cost=True) for one, n in zip(cost.double().numpy(), counts)
        ]
    return found


def compare(benchmark: Any, cost: Tensor, counts: Tensor, *, title: str) -> None:
    each = counts.tolist()
    contenders = {"detrx": lambda: assign(cost, counts), "scipy": lambda: scipy_loop(cost, each)}
    contenders.update(others(cost, each))
    totals = [
        cost.transpose(1, 2).gather(2, found.clamp(min=0)[:, :, None])[..., 0][found >= 0].double().sum()
        for found in (contenders["detrx"](), contenders["scipy"]())
    ]
    torch.testing.assert_close(*totals, rtol=1e-9, atol=0)
    rounds = max(3, min(15, 30_000_000 // max(cost.numel(), 1)))
    interleave(contenders, rounds=rounds, title=title, into=benchmark.extra_info)
    benchmark.extra_info.update(
        problems=len(cost), queries=cost.shape[1], targets=int(counts.sum()), title=title
    )
    benchmark(contenders["detrx"])


@pytest.mark.parametrize("layout", ["queries adjacent", "targets adjacent"])
@pytest.mark.parametrize("trained", [True, False], ids=["trained", "fresh"])
@pytest.mark.parametrize("kind", ["coco", "crowd"])
@pytest.mark.parametrize("queries", [300, 900])
def test_assign(benchmark, queries, kind, trained, layout):
    counts = count_targets(kind, 16, generator=torch.Generator().manual_seed(16))
    cost = costs(counts, queries=queries, trained=trained)
    if layout == "targets adjacent":
        cost = cost.contiguous()
    state = "trained" if trained else "fresh"
    compare(benchmark, cost, counts.repeat(6), title=f"assign {state} {kind} N=96 Q={queries}, {layout}")


@pytest.mark.parametrize(
    ("problems", "queries", "targets"),
    [(1, 10, 3), (1, 100, 7), (6, 100, 7), (6, 300, 60), (96, 300, 60), (16, 300, 290)],
)
def test_assign_near_equal(benchmark, problems, queries, targets):
    cost = near_equal(problems=problems, queries=queries, targets=targets)
    counts = torch.full((problems,), targets)
    compare(benchmark, cost, counts, title=f"assign near equal N={problems} Q={queries} T={targets}")
