"""Cost and assignment of six decoder layers, against the matchers that others use."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from detrx.ops.match import MatchWeights, match
from detrx.tensors import Targets

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from peers.matchers import facebook, rfdetr
from scenes import count_targets, scene
from side_by_side import interleave

SOFTMAX = MatchWeights(class_=1.0, l1=5.0, giou=2.0, class_cost="softmax")

LARGEST = 60_000_000
"""Queries of the batch times targets of the batch that facebook's matrices are tried with: a gigabyte or two."""


def compare(benchmark: Any, counts: torch.Tensor, *, queries: int, trained: bool, title: str) -> None:
    """Ours and the peers', with the focal cost and with the softmax cost; every answer is checked once."""
    logits, boxes, targets = scene(counts, queries=queries, trained=trained)
    size = len(counts) * queries * int(counts.sum())
    rounds = max(1, min(15, 30_000_000 // size))
    peer = rfdetr()
    if peer is None:
        print(f"\n{title}: without rf-detr, which is not installed")
    else:
        contenders = {
            "detrx": lambda: match(logits, boxes, targets),
            "rf-detr": lambda: peer(logits, boxes, targets),
        }
        agree(contenders["rf-detr"](), contenders["detrx"](), targets, queries)
        interleave(contenders, rounds=rounds, title=f"{title}, focal", into=benchmark.extra_info)
    if size > LARGEST:
        print(f"\n{title}: without facebook's matcher, whose matrices do not fit in memory")
    else:
        contenders = {
            "detrx softmax": lambda: match(logits, boxes, targets, weights=SOFTMAX),
            "facebook": lambda: facebook(logits, boxes, targets),
        }
        agree(contenders["facebook"](), contenders["detrx softmax"](), targets, queries)
        interleave(contenders, rounds=rounds, title=f"{title}, softmax", into=benchmark.extra_info)
    benchmark.extra_info.update(
        images=len(counts), queries=queries, targets=int(counts.sum()), trained=trained, title=title
    )
    benchmark(match, logits, boxes, targets)


def agree(theirs: Any, ours: torch.Tensor, targets: Targets, queries: int) -> None:
    """Nearly all targets have the same query: costs that differ in the last digit may swap two of them."""
    same = total = 0
    for n, pairs in enumerate(pair for layer in theirs for pair in layer):
        query, target = (torch.as_tensor(part) for part in pairs)
        same += int((ours[n][target] == query).sum())
        total += min(queries, int(targets.counts[n % len(targets.counts)]))
    if same < 0.99 * total:
        raise AssertionError(f"only {same} of {total} targets have the same query")


@pytest.mark.parametrize("kind", ["coco", "crowd"])
@pytest.mark.parametrize("queries", [100, 300, 900])
@pytest.mark.parametrize("images", [2, 8, 16, 64])
def test_match(benchmark, images, queries, kind):
    counts = count_targets(kind, images, generator=torch.Generator().manual_seed(images))
    compare(benchmark, counts, queries=queries, trained=True, title=f"match B={images} Q={queries} T={kind}")


@pytest.mark.parametrize("kind", ["coco", "crowd"])
@pytest.mark.parametrize("queries", [300, 900])
def test_match_of_a_fresh_network(benchmark, queries, kind):
    counts = count_targets(kind, 16, generator=torch.Generator().manual_seed(16))
    compare(benchmark, counts, queries=queries, trained=False, title=f"match fresh B=16 Q={queries} T={kind}")


@pytest.mark.parametrize("targets", [1, 4, 16, 64, 150, 300])
def test_match_by_targets(benchmark, targets):
    counts = torch.full((8,), targets, dtype=torch.int32)
    compare(benchmark, counts, queries=300, trained=True, title=f"match B=8 Q=300 T={targets} each")
