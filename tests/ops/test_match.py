from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from detrx.errors import ConfigError, TrainingError
from detrx.ops import reference
from detrx.ops.match import MatchWeights, match, match_cost
from detrx.tensors import Targets

WEIGHTS = {"class_": 2.0, "l1": 5.0, "giou": 2.0, "alpha": 0.25, "gamma": 2.0}


def scene(counts, *, layers=2, queries=12, classes=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    batch, most = len(counts), max(counts)
    logits = torch.randn(layers, batch, queries, classes, generator=g)
    boxes = torch.rand(layers, batch, queries, 4, generator=g) * 0.4 + 0.1
    truths = torch.rand(batch, most, 4, generator=g) * 0.4 + 0.1
    labels = torch.randint(classes, (batch, most), generator=g)
    return logits, boxes, Targets(truths, labels, torch.tensor(counts, dtype=torch.int32))


def test_cost_equals_the_reference():
    logits, boxes, targets = scene([3, 6])
    cost = match_cost(logits, boxes, targets, weights=MatchWeights())
    assert cost.shape == (2, 2, 6, 12)
    for layer in range(2):
        for image in range(2):
            wanted = reference.match_cost(
                logits[layer, image],
                boxes[layer, image],
                targets.labels[image],
                targets.boxes[image],
                **WEIGHTS,
            )
            torch.testing.assert_close(cost[layer, image].T.double(), wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("counts", [[3, 0, 5], [0, 0], [1], [20, 2], [12, 12]])
def test_match_is_the_cheapest(counts):
    logits, boxes, targets = scene(counts)
    found = match(logits, boxes, targets)
    assert found.shape == (2, len(counts), max(counts))
    for layer in range(2):
        for image, count in enumerate(counts):
            cost = reference.match_cost(
                logits[layer, image],
                boxes[layer, image],
                targets.labels[image, :count],
                targets.boxes[image, :count],
                **WEIGHTS,
            ).numpy()
            row = found[layer, image].numpy()
            given = np.flatnonzero(row >= 0)
            best = cost[linear_sum_assignment(cost)].sum()
            np.testing.assert_allclose(cost[row[given], given].sum(), best, rtol=1e-5, atol=1e-5)
            assert len(given) == min(count, 12)


def test_extreme_logits_are_finite():
    logits, boxes, targets = scene([3, 2])
    assert match_cost(logits * 1e4, boxes, targets, weights=MatchWeights()).isfinite().all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_widened(dtype):
    logits, boxes, targets = scene([3, 2])
    low = match(logits.to(dtype), boxes.to(dtype), targets)
    assert torch.equal(low, match(logits.to(dtype).float(), boxes.to(dtype).float(), targets))


@pytest.mark.parametrize("part", ["logits", "boxes"])
def test_a_sick_network_is_named(part):
    logits, boxes, targets = scene([3, 2])
    (logits if part == "logits" else boxes)[1, 1] = float("nan")
    with pytest.raises(TrainingError, match=r"24 of layer 1, image 1"):
        match(logits, boxes, targets)
    with pytest.raises(TrainingError, match=r"of the encoder, image 1"):
        match(logits, boxes, targets, names=["the decoder", "the encoder"])


def test_weights_are_checked():
    with pytest.raises(ConfigError, match="not all 0"):
        MatchWeights(class_=0, l1=0, giou=0)
    with pytest.raises(ConfigError, match="alpha"):
        MatchWeights(alpha=2)
