"""Assignment of all layers and images against a loop over scipy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from scipy.optimize import linear_sum_assignment

from detrx.ops.assign import assign

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from side_by_side import interleave


def costs(kind: str, *, problems: int, queries: int, targets: int) -> torch.Tensor:
    """(N, Q, M): a trained network tells its queries apart; a fresh one hardly does."""
    g = torch.Generator().manual_seed(0)
    noise = torch.rand(problems, targets, queries, generator=g)
    if kind == "trained":
        cost = 5 + noise
        best = torch.rand(problems, queries, generator=g).argsort(-1)[:, :targets, None]
        cost.scatter_(2, best, noise.gather(2, best))
    else:
        row = torch.rand(problems, targets, 1, generator=g)
        cost = 1 + 0.01 * noise + row + 0.1 * torch.rand(problems, 1, queries, generator=g)
    return cost.transpose(1, 2)


@pytest.mark.parametrize("kind", ["trained", "fresh"])
@pytest.mark.parametrize(
    ("problems", "queries", "targets"), [(6, 100, 7), (96, 300, 7), (96, 300, 60), (96, 900, 60)]
)
def test_assign(benchmark, kind, problems, queries, targets):
    cost = costs(kind, problems=problems, queries=queries, targets=targets)
    counts = torch.full((problems,), targets)
    each = [one.numpy() for one in cost]
    contenders = {
        "detrx": lambda: assign(cost, counts),
        "scipy": lambda: [linear_sum_assignment(one) for one in each],
    }
    interleave(contenders, rounds=15, title=f"assign {kind} N={problems} Q={queries} T={targets}")
    benchmark(contenders["detrx"])
