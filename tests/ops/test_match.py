"""The fused match against plain references, scipy and the matchers that others use."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment

from detrx import native
from detrx.errors import ConfigError, TrainingError
from detrx.ops import reference
from detrx.ops.cross import cross
from detrx.ops.match import MatchWeights, _op, match, match_counting, raise_bad
from detrx.ops.match_cost import match_cost
from detrx.tensors import Targets

FOCAL = MatchWeights()
SOFTMAX = MatchWeights(class_=1.0, l1=5.0, giou=2.0, class_cost="softmax")
KINDS = pytest.mark.parametrize(
    "weights", [FOCAL, SOFTMAX, MatchWeights(gamma=1.5)], ids=["2", "softmax", "1.5"]
)


def scene(counts, *, layers=2, queries=12, classes=5, seed=0):
    g = torch.Generator().manual_seed(seed)
    batch, most = len(counts), max(counts, default=0)
    logits = torch.randn(layers, batch, queries, classes, generator=g) * 2 - 1
    boxes = torch.rand(layers, batch, queries, 4, generator=g) * 0.4 + 0.05
    truths = torch.rand(batch, most, 4, generator=g) * 0.4 + 0.05
    labels = torch.randint(classes, (batch, most), generator=g)
    return logits, boxes, Targets(truths, labels, torch.tensor(counts, dtype=torch.int32))


def native_cost(logits, boxes, targets, weights):
    """(L, B, M, Q), NaN past the counts."""
    layers, batch, queries, _ = logits.shape
    cost = torch.full((layers * batch, targets.labels.shape[1], queries), float("nan"))
    parts = [cross(t) for t in (logits, boxes, targets.labels, targets.boxes, targets.counts)]
    native.load().match_cost(*parts, weights.numbers, weights.class_cost == "softmax", cross(cost))
    return cost.unflatten(0, (layers, batch))


def wanted_cost(logits, boxes, targets, weights, layer, image):
    count = int(targets.counts[image])
    return reference.match_cost_reference(
        logits[layer, image],
        boxes[layer, image],
        targets.labels[image, :count],
        targets.boxes[image, :count],
        **dataclasses.asdict(weights),
    )


def check(found, logits, boxes, targets, weights):
    """Every target has its own query, in total as cheaply as scipy finds on float64 costs."""
    layers, batch, queries, _ = logits.shape
    assert found.dtype == torch.int32
    assert found.shape == (layers * batch, targets.labels.shape[1])
    for n, row in enumerate(found.numpy()):
        layer, image = divmod(n, batch)
        count = int(targets.counts[image])
        cost = wanted_cost(logits, boxes, targets, weights, layer, image).numpy()
        assert (row[count:] == -1).all()
        given = np.flatnonzero(row >= 0)
        assert len(set(row[given])) == len(given) == min(count, queries)
        best = cost[linear_sum_assignment(cost)].sum()
        np.testing.assert_allclose(cost[row[given], given].sum(), best, rtol=1e-5, atol=1e-5)


@KINDS
@pytest.mark.parametrize("queries", [1, 15, 16, 33, 100])
def test_costs_are_within_two_millionths_of_float64(weights, queries):
    logits, boxes, targets = scene([3, 6, 0], queries=queries, classes=19)
    cost = native_cost(logits, boxes, targets, weights)
    for layer in range(2):
        for image, count in enumerate([3, 6, 0]):
            wanted = wanted_cost(logits, boxes, targets, weights, layer, image)
            torch.testing.assert_close(cost[layer, image, :count].T.double(), wanted, rtol=0, atol=2e-6)
            assert cost[layer, image, count:].isnan().all()


@KINDS
def test_costs_over_the_whole_range_of_logits(weights):
    logits = torch.linspace(-90, 90, 5003).reshape(1, 1, -1, 1)
    logits = torch.cat([logits, torch.zeros_like(logits)], dim=-1)
    boxes = torch.full((1, 1, 5003, 4), 0.5)
    targets = Targets(torch.full((1, 1, 4), 0.5), torch.zeros(1, 1, dtype=torch.int64), torch.ones(1).int())
    cost = native_cost(logits, boxes, targets, weights)
    wanted = wanted_cost(logits, boxes, targets, weights, 0, 0)
    torch.testing.assert_close(cost[0, 0].T.double(), wanted, rtol=3e-7, atol=2e-6)


@pytest.mark.parametrize("classes", [3, 16, 91, 100])
def test_softmax_far_from_zero(classes):
    logits, boxes, targets = scene([3, 5], queries=40, classes=classes)
    shift = torch.tensor([-1e4, -200.0, -90.0, -60.0, 0.0, 60.0, 69.0, 80.0, 90.0, 1e4]).repeat(4)
    logits = logits * 4 + shift[:, None]
    logits[..., 1] = -float("inf")  # a class that is ruled out
    cost = native_cost(logits, boxes, targets, SOFTMAX)
    for layer in range(2):
        for image, count in enumerate([3, 5]):
            wanted = wanted_cost(logits, boxes, targets, SOFTMAX, layer, image)
            torch.testing.assert_close(cost[layer, image, :count].T.double(), wanted, rtol=0, atol=2e-6)


@KINDS
def test_the_fallback_has_the_same_costs(weights):
    logits, boxes, targets = scene([4, 2])
    cost = match_cost(logits, boxes, targets.labels, targets.boxes, weights=weights)
    ours = native_cost(logits, boxes, targets, weights)
    torch.testing.assert_close(torch.where(ours.isnan(), cost, ours), cost, rtol=0, atol=4e-6)


def test_costs_equal_those_of_transformers():
    peers = pytest.importorskip("transformers.loss.loss_for_object_detection")
    logits, boxes, targets = scene([5, 9, 1], layers=1, queries=40, classes=11)
    truth = [
        {"class_labels": targets.labels[i, :n], "boxes": targets.boxes[i, :n]}
        for i, n in enumerate([5, 9, 1])
    ]
    matcher = peers.HungarianMatcher(class_cost=1, bbox_cost=5, giou_cost=2)
    pairs = matcher({"logits": logits[0], "pred_boxes": boxes[0]}, truth)
    found = match(logits, boxes, targets, weights=SOFTMAX)
    for row, (query, target) in zip(found, pairs):
        assert row[target].tolist() == query.tolist()


@KINDS
@pytest.mark.parametrize("counts", [[3, 0, 5], [0, 0], [1], [20, 2], [12, 12], [13, 11]])
def test_match_is_the_cheapest(weights, counts):
    logits, boxes, targets = scene(counts)
    check(match(logits, boxes, targets, weights=weights), logits, boxes, targets, weights)


@pytest.mark.parametrize("queries", [1, 2, 31, 33, 100, 256, 300, 900])
@pytest.mark.parametrize("weights", [FOCAL, SOFTMAX], ids=["focal", "softmax"])
def test_odd_sizes(weights, queries):
    logits, boxes, targets = scene([0, 1, 31, 33, 2], queries=queries, classes=91, layers=1)
    check(match(logits, boxes, targets, weights=weights), logits, boxes, targets, weights)


def test_as_many_targets_as_queries():
    logits, boxes, targets = scene([100, 101, 99], queries=100, layers=1)
    check(match(logits, boxes, targets), logits, boxes, targets, FOCAL)


def test_hundreds_of_small_problems():
    for seed in range(60):
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, 24, 6).tolist()
        logits, boxes, targets = scene(
            counts, queries=int(rng.integers(1, 30)), classes=int(rng.integers(1, 9)), seed=seed
        )
        boxes = (boxes * 8).round() / 8 + 0.05 if seed % 2 else boxes  # ties
        check(match(logits, boxes, targets), logits, boxes, targets, FOCAL)


@pytest.mark.parametrize("class_", [0.3, 1.0, 20.0])
def test_hundreds_of_problems_whose_softmax_is_taken_where_it_matters(class_):
    weights = dataclasses.replace(SOFTMAX, class_=class_)
    for seed in range(40):
        rng = np.random.default_rng(seed)
        counts = rng.integers(0, 16, 5).tolist()
        logits, boxes, targets = scene(
            counts, queries=int(rng.integers(32, 90)), classes=int(rng.integers(16, 40)), seed=seed
        )
        if seed % 2:  # ties
            boxes, logits = (boxes * 8).round() / 8 + 0.05, logits.round()
        check(match(logits, boxes, targets, weights=weights), logits, boxes, targets, weights)


def test_a_sick_logit_far_from_all_targets_is_counted():
    logits, boxes, targets = scene([3, 5], queries=50, classes=30)
    boxes[..., 4, :2] = 50.0
    logits[1, 0, 4, 29] = float("nan")
    logits[0, 1, 4, 7] = float("inf")
    assert match_counting(logits, boxes, targets, weights=SOFTMAX)[1].tolist() == [0, 5, 3, 0]


def test_equal_targets_get_queries_of_their_own():
    logits, boxes, targets = scene([6, 6])
    truths = targets.boxes[:, :1].expand(-1, 6, -1)
    twins = Targets(truths, targets.labels[:, :1].expand(-1, 6), targets.counts)
    check(match(logits, boxes, twins), logits, boxes, twins, FOCAL)


def test_reference_is_as_cheap():
    logits, boxes, targets = scene([3, 0, 5, 14])
    found = reference.match_reference(
        logits, boxes, targets.labels, targets.boxes, targets.counts, **dataclasses.asdict(FOCAL)
    )
    check(found, logits, boxes, targets, FOCAL)
    assert torch.equal(found, match(logits, boxes, targets))


def test_nothing_to_match():
    logits, boxes, targets = scene([0, 0])
    assert match(logits, boxes, targets).shape == (4, 0)
    none = Targets(torch.zeros(0, 3, 4), torch.zeros(0, 3).long(), torch.zeros(0).int())
    assert match(logits[:, :0], boxes[:, :0], none).shape == (0, 3)
    logits, boxes, targets = scene([2, 1], queries=0)
    assert match(logits, boxes, targets).tolist() == [[-1, -1]] * 4


@pytest.mark.parametrize("weights", [FOCAL, SOFTMAX], ids=["focal", "softmax"])
def test_extreme_logits_are_finite(weights):
    logits, boxes, targets = scene([3, 2])
    for scale in (100.0, 1e4, 1e30):
        assert native_cost(logits * scale, boxes, targets, weights)[:, 0].isfinite().all()


@pytest.mark.parametrize("weights", [FOCAL, SOFTMAX], ids=["focal", "softmax"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_other_types_are_read_as_they_are(dtype, weights):
    logits, boxes, targets = scene([3, 20, 2], queries=37, classes=23)
    low_logits, low_boxes = logits.to(dtype), boxes.to(dtype)
    for a, b in ((low_logits, low_boxes), (logits, low_boxes), (low_logits, boxes)):
        found = match(a, b, targets, weights=weights)
        assert torch.equal(found, match(a.float(), b.float(), targets, weights=weights))


@pytest.mark.parametrize("weights", [FOCAL, SOFTMAX], ids=["focal", "softmax"])
def test_other_layouts_are_read_as_they_lie(weights):
    logits, boxes, targets = scene([3, 20, 2], queries=37, classes=23)
    found = match(logits, boxes, targets, weights=weights)
    turned = logits.permute(3, 1, 0, 2).contiguous().permute(2, 1, 3, 0)
    spread = torch.stack([boxes, boxes], dim=-1)[..., 0]
    assert torch.equal(match(turned, spread, targets, weights=weights), found)
    doubled = torch.cat([logits, logits], dim=2)[:, :, :37]
    apart = Targets(targets.boxes.mT.contiguous().mT, targets.labels.T.contiguous().T, targets.counts.long())
    assert torch.equal(match(doubled, boxes, apart, weights=weights), found)


@pytest.mark.parametrize("threads", [2, 3, 4])
def test_threads_change_nothing(threads):
    logits, boxes, targets = scene([30, 1, 0, 60, 12], queries=90, layers=6)
    alone = match(logits, boxes, targets, threads=1)
    assert torch.equal(match(logits, boxes, targets, threads=threads), alone)


@pytest.mark.parametrize("weights", [FOCAL, SOFTMAX], ids=["focal", "softmax"])
@pytest.mark.parametrize("part", ["logits", "boxes"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_sick_network_is_named(part, value, weights):
    logits, boxes, targets = scene([3, 2])
    (logits if part == "logits" else boxes)[1, 1] = value
    with pytest.raises(TrainingError, match=r"24 of layer 1, image 1"):
        match(logits, boxes, targets, weights=weights)
    with pytest.raises(TrainingError, match=r"of the encoder, image 1"):
        match(logits, boxes, targets, weights=weights, names=["the decoder", "the encoder"])


def test_one_sick_query_is_counted_and_left_out():
    logits, boxes, targets = scene([3, 5], queries=12)
    boxes[1, 1, 4] = float("nan")
    logits[0, 0, 7] = float("nan")
    found, bad = match_counting(logits, boxes, targets)
    assert bad.tolist() == [3, 0, 0, 5]
    keep = [q for q in range(12) if q != 4]
    kept = match(
        logits[1:, 1:, keep],
        boxes[1:, 1:, keep],
        Targets(targets.boxes[1:], targets.labels[1:], targets.counts[1:]),
    )
    assert found[3].tolist() == [keep[q] for q in kept[0].tolist()]
    with pytest.raises(TrainingError, match=r"3 of layer 0, image 0"):
        raise_bad(bad, images=2)


def test_a_sick_problem_with_more_targets_than_queries():
    logits, boxes, targets = scene([9, 2], queries=5)
    boxes[0, 0, 3] = float("nan")
    found, bad = match_counting(logits, boxes, targets)
    assert bad.tolist() == [9, 0, 0, 0]
    assert sorted(found[0][found[0] >= 0].tolist()) == [0, 1, 2, 3, 4]


def test_what_lies_past_the_counts_is_not_read():
    logits, boxes, targets = scene([3, 1])
    wanted = match(logits, boxes, targets)
    targets.boxes[1, 1:] = float("nan")
    targets.labels[1, 1:] = 1 << 40
    assert torch.equal(match(logits, boxes, targets), wanted)


def test_bad_arguments_are_refused():
    logits, boxes, targets = scene([3, 1])
    with pytest.raises(ValueError, match=r"labels must be in \[0, 2\), got"):
        match(logits[..., :2], boxes, Targets(targets.boxes, targets.labels * 0 + 2, targets.counts))
    with pytest.raises(ValueError, match=r"labels must be in \[0, 5\), got -1"):
        match(logits, boxes, Targets(targets.boxes, targets.labels * 0 - 1, targets.counts))
    with pytest.raises(ValueError, match=r"counts must be in \[0, 3\], got 4 for image 1"):
        match(logits, boxes, Targets(targets.boxes, targets.labels, torch.tensor([3, 4])))
    with pytest.raises(ValueError, match=r"boxes must have shape \(2, 2, 12, 4\)"):
        match(logits, boxes[:, :1], targets)
    with pytest.raises(ValueError, match="threads must be >= 1"):
        match(logits, boxes, targets, threads=0)


def test_boxes_without_area_have_finite_costs():
    logits, boxes, targets = scene([3, 2])
    boxes[..., 2:] = 0
    flat = Targets(
        torch.cat([targets.boxes[..., :2], torch.zeros(2, 3, 2)], -1), targets.labels, targets.counts
    )
    _, bad = match_counting(logits, boxes, flat)
    assert bad.sum() == 0


def test_weights_are_checked():
    with pytest.raises(ConfigError, match="not all 0"):
        MatchWeights(class_=0, l1=0, giou=0)
    with pytest.raises(ConfigError, match="alpha"):
        MatchWeights(alpha=2)
    with pytest.raises(ConfigError, match='"focal" or "softmax"'):
        MatchWeights(class_cost="sigmoid")  # type: ignore[arg-type]


def test_the_operator_keeps_the_rules_of_torch():
    logits, boxes, targets = scene([3, 1])
    arguments = (logits, boxes, targets.labels, targets.boxes, targets.counts, FOCAL.numbers, False, 1)
    torch.library.opcheck(_op, arguments)


def test_the_fallback_of_other_devices_finds_the_same():
    logits, boxes, targets = scene([3, 0, 20])
    arguments = (targets.labels, targets.boxes, targets.counts, FOCAL.numbers, False, 1)
    found, bad = _op._init_fn(logits, boxes, *arguments)
    assert torch.equal(found, match(logits, boxes, targets))
    boxes[1, 2] = float("nan")
    assert torch.equal(_op._init_fn(logits, boxes, *arguments)[1], match_counting(logits, boxes, targets)[1])
    assert bad.dtype == torch.int32


def test_compiled_and_under_autocast():
    logits, boxes, targets = scene([3, 1])
    wanted = match(logits, boxes, targets)

    def step(a, b):
        return match_counting(a * 1, b, targets)[0] + 0

    torch._dynamo.reset()
    compiled = torch.compile(step, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(logits, boxes), wanted)
    with torch.autocast("cpu", torch.bfloat16):
        assert torch.equal(match(logits.requires_grad_(), boxes, targets), wanted)


def test_no_tensor_of_all_queries_by_all_targets():
    logits, boxes, targets = scene([40] * 8, queries=50, layers=3)
    most = []

    class Sizes(torch.utils._python_dispatch.TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            out = func(*args, **(kwargs or {}))
            most.extend(t.numel() for t in (out if isinstance(out, tuple) else (out,)) if torch.is_tensor(t))
            return out

    with Sizes():
        match(logits, boxes, targets)
    assert 0 < max(most) <= 3 * 8 * 40
