"""The CUDA kernels on a machine without a GPU: compiled by the C++ compiler over an emulator of blocks and warps.

What runs is csrc/cuda as it is, its bindings, and the Python bodies that call them; see emulation/emulator.h for what
an emulator does not see.
"""

from __future__ import annotations

import contextlib
from types import ModuleType

import pytest
import torch

from detrx import native
from detrx.ops import (
    box_loss,
    cross_entropy,
    cuda_bodies,
    ddf_loss,
    fgl_loss,
    focal_loss,
    loss_reference,
    reference,
)

CLOSE = {
    torch.float32: {"rtol": 2e-5, "atol": 1e-5},
    torch.float16: {"rtol": 2e-3, "atol": 1e-3},
    torch.bfloat16: {"rtol": 2e-2, "atol": 1e-2},
}
# Stages, images, queries, targets, classes, and whether all stages share their owners.
SIZES = {
    "one": (1, 1, 1, 1, 1, True),
    "more than a warp": (2, 3, 33, 5, 7, False),
    "many classes": (2, 2, 31, 9, 300, True),
    "no queries": (2, 2, 0, 3, 4, False),
    "no targets": (2, 2, 31, 0, 4, False),
}
sized = pytest.mark.parametrize("size", SIZES)
typed = pytest.mark.parametrize("dtype", CLOSE, ids=str)


@pytest.fixture(autouse=True)
def bodies(emulator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """cuda_bodies goes to the emulator, whatever it makes room in holds NaN, and every test has its own chances."""
    monkeypatch.setattr(cuda_bodies, "serves", lambda tensor: True)
    monkeypatch.setattr(cuda_bodies, "_kernels", lambda: emulator)
    monkeypatch.setattr(cuda_bodies, "_kind", lambda group, name: getattr(getattr(emulator, group), name))
    monkeypatch.setattr(cuda_bodies, "_stream", lambda tensor: 0)
    monkeypatch.setattr(torch.utils.deterministic, "fill_uninitialized_memory", True)
    emulator.shuffle(0)
    torch.manual_seed(0)


@contextlib.contextmanager
def uninitialised_is_nan():
    torch.use_deterministic_algorithms(True)
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(False)


def some_boxes(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, 4) * 0.4 + 0.2


def some_owners(size: str) -> torch.Tensor:
    stages, images, queries, targets, _, shared = SIZES[size]
    owners = torch.full((1 if shared else stages, images, queries), -1, dtype=torch.int32)
    if targets:
        chosen = torch.randint(0, targets, owners.shape, dtype=torch.int32)
        owners = torch.where(torch.rand(owners.shape) < 0.4, chosen, owners)
    return owners


def hold(found, wanted, dtype=torch.float32):
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one.float(), other.detach().float(), **CLOSE[dtype])


def slope_of(losses, leaf, grads):
    if not leaf.numel():
        return torch.zeros_like(leaf)
    (slope,) = torch.autograd.grad(sum((loss * grad).sum() for loss, grad in zip(losses, grads)), leaf)
    return slope


@typed
@sized
@pytest.mark.parametrize("kind", ["giou", "iou", "diou", "ciou"])
def test_box_loss(size, dtype, kind):
    stages, images, queries, targets, *_ = SIZES[size]
    boxes, truths, owners = (
        some_boxes(stages, images, queries),
        some_boxes(images, targets),
        some_owners(size),
    )
    if targets and queries > 1:
        boxes[0, 0, 0], owners[0, 0, 0] = truths[0, 0], 0  # an exact hit: half of each side's slope
    truths, boxes = truths.to(dtype).float(), boxes.to(dtype).requires_grad_()
    normaliser, grads = torch.tensor(3.5), torch.rand(2, stages) + 0.5
    wanted = loss_reference.box_loss_reference(boxes, truths, owners, kind=kind, normaliser=normaliser)
    with uninitialised_is_nan():
        found = box_loss._op.forward(boxes, truths, owners, normaliser, kind)
        slope = box_loss._op.backward(*grads, boxes, truths, owners, normaliser, kind)
    hold(found, wanted)
    hold([slope], [slope_of(wanted[:2], boxes, grads)], dtype)


@typed
@sized
@pytest.mark.parametrize(
    ("kind", "gamma"), [("focal", 2.0), ("focal", 1.5), ("varifocal", 2.0), ("mal", 1.5)]
)
def test_focal_loss(size, dtype, kind, gamma):
    stages, images, queries, targets, classes, _ = SIZES[size]
    logits = (torch.randn(stages, images, queries, classes) * 3).to(dtype).requires_grad_()
    labels, owners = torch.randint(0, classes, (images, targets)), some_owners(size)
    quality = None if kind == "focal" else torch.rand(stages, images, queries)
    settings, grad = {"kind": kind, "alpha": 0.25, "gamma": gamma}, torch.rand(stages) + 0.5
    wanted = loss_reference.focal_loss_reference(logits, labels, owners, quality=quality, **settings)
    with uninitialised_is_nan():
        found = focal_loss._op.forward(logits, labels, owners, quality, None, *settings.values())
        slope = focal_loss._op.backward(grad, logits, labels, owners, quality, None, *settings.values())
    hold([found], [wanted])
    hold([slope], [slope_of([wanted], logits, [grad])], dtype)


@typed
@sized
def test_cross_entropy(size, dtype):
    stages, images, queries, targets, classes, _ = SIZES[size]
    logits = (torch.randn(stages, images, queries, classes + 1) * 3).to(dtype).requires_grad_()
    labels, owners = torch.randint(0, classes, (images, targets)), some_owners(size)
    grad = torch.rand(stages) + 0.5
    wanted = loss_reference.cross_entropy_reference(logits, labels, owners, no_object=0.1)
    with uninitialised_is_nan():
        found, *kept = cross_entropy._op.forward(logits, labels, owners, 0.1)
        slope = cross_entropy._op.backward(grad, logits, labels, owners, *kept, 0.1)
    hold([found], [wanted])
    hold([slope], [slope_of([wanted], logits, [grad])], dtype)


@typed
@sized
def test_fgl_loss(size, dtype):
    stages, images, queries, targets, *_ = SIZES[size]
    edges = torch.randn(stages, images, queries, 4, 33).to(dtype).requires_grad_()
    references, truths, owners = (
        some_boxes(stages, images, queries),
        some_boxes(images, targets),
        some_owners(size),
    )
    iou, normaliser, grad = torch.rand(stages, images, queries), torch.tensor(2.5), torch.rand(stages) + 0.5
    wanted = loss_reference.fgl_loss_reference(
        edges, references, truths, owners, iou, reg_scale=4.0, up=0.5, normaliser=normaliser
    )
    with uninitialised_is_nan():
        found = fgl_loss._op.forward(edges, references, truths, owners, iou, normaliser, 4.0, 0.5)
        slope = fgl_loss._op.backward(grad, edges, references, truths, owners, iou, normaliser, 4.0, 0.5)
    hold([found], [wanted])
    hold([slope], [slope_of([wanted], edges, [grad])], dtype)


@typed
@sized
def test_ddf_loss(size, dtype):
    students, images, queries, *_, shared = SIZES[size]
    edges = torch.randn(students + 1, images, queries, 4, 33).to(dtype).requires_grad_()
    owners = some_owners(size)
    owners = owners if shared else torch.cat((owners, owners[:1]))
    confidence, iou = torch.rand(images, queries), torch.rand(students + 1, images, queries)
    matched, all_of_them, grad = torch.full((1,), 7.0), torch.tensor(200.0), torch.rand(students) + 0.5
    given = edges, confidence, owners, iou
    wanted = loss_reference.ddf_loss_reference(*given, temperature=3.0, matched=matched, queries=all_of_them)
    given = (*given, torch.tensor([[7.0, 193.0]]).expand(students, 2))
    with uninitialised_is_nan():
        found, *kept = ddf_loss._op.forward(*given, 3.0)
        slope = ddf_loss._op.backward(grad, *given, *kept, 3.0)
    hold([found], [wanted])
    hold([slope], [slope_of([wanted], edges, [grad])], dtype)


@pytest.mark.parametrize("layers", [0, 1])
def test_no_layer_learns_where_none_is_before_the_last(layers):
    owners = torch.zeros(1, 2, 3, dtype=torch.int32)
    counts = torch.empty(0, 2)
    given = torch.randn(layers, 2, 3, 4, 5), torch.rand(2, 3), owners, torch.rand(layers, 2, 3), counts
    with uninitialised_is_nan():
        found, *kept = ddf_loss._op.forward(*given, 3.0)
        slope = ddf_loss._op.backward(found, *given, *kept, 3.0)
    assert found.shape == (0,)
    assert torch.equal(slope, torch.zeros_like(given[0]))


@typed
@pytest.mark.parametrize(
    ("shapes", "points", "heads", "channels", "queries"),
    [
        ([(1, 1)], [1], 1, 1, 1),
        ([(10, 10), (5, 5)], [6, 6], 8, 16, 33),
        ([(7, 9), (4, 5), (2, 3)], [4, 4, 4], 2, 32, 5),
        ([(3, 11), (5, 1)], [3, 1], 3, 7, 4),
        ([(6, 6), (3, 3), (2, 2)], [3, 6, 0], 4, 24, 2),
        ([(4, 4)], [2], 2, 8, 0),
    ],
)
@pytest.mark.parametrize("softmax", [False, True])
def test_deform_attn(shapes, points, heads, channels, queries, softmax, dtype):
    area = sum(height * width for height, width in shapes)
    values = torch.randn(2, area, heads, channels).to(dtype)
    locations = (torch.rand(2, queries, heads, sum(points), 2) - 0.5) * 1.6 + 0.5
    weights = torch.randn(2, queries, heads, sum(points)) * 3
    weights = weights if softmax else weights.softmax(-1)
    leaves = [tensor.float().requires_grad_() for tensor in (values, locations, weights)]
    shares = leaves[2].softmax(-1) if softmax else leaves[2]
    wanted = reference.deform_attn(leaves[0], shapes, leaves[1], shares, points)
    grad = torch.randn(2, queries, heads * channels).to(dtype)
    sides = [side for shape in shapes for side in shape]
    with uninitialised_is_nan():
        found = cuda_bodies.deform_attn(values, sides, locations, weights, points, softmax)
        slopes = cuda_bodies.deform_attn_backward(grad, values, sides, locations, weights, points, softmax)
    hold([found], [wanted], dtype)
    if queries:
        of_values, *rest = torch.autograd.grad((wanted * grad.float()).sum(), leaves)
        hold(slopes[:1], [of_values], dtype)
        for slope, other in zip(slopes[1:], rest):
            torch.testing.assert_close(slope, other, rtol=1e-4, atol=1e-4)


def costs_of(kind: str, problems: int, targets: int, queries: int) -> torch.Tensor:
    if kind == "ties":
        return -torch.randint(0, 4, (problems, targets, queries)).float()
    fresh = torch.rand(problems, targets, 1) + torch.rand(problems, 1, queries)
    cost = fresh + 0.01 * torch.rand(problems, targets, queries)
    if kind == "not finite":
        wild = torch.tensor([float("nan"), float("inf"), float("-inf")])[torch.randint(0, 3, cost.shape)]
        cost = torch.where(torch.rand(cost.shape) < 0.1, wild, cost)
    return cost


@pytest.mark.parametrize("kind", ["fresh", "ties", "not finite"])
@pytest.mark.parametrize(
    ("problems", "targets", "queries"),
    [(2, 0, 7), (4, 4, 1), (2, 3, 0), (6, 12, 33), (2, 40, 31), (3, 9, 300), (2, 5, 900), (1, 4, 2100)],
)
def test_assign(emulator, problems, targets, queries, kind):
    cost = costs_of(kind, problems, targets, queries)
    counts = torch.randint(0, targets + 1, (problems,), dtype=torch.int32)
    counts[0] = targets
    wanted = torch.empty(problems, targets, dtype=torch.int64)
    bad_wanted = torch.empty(problems, dtype=torch.int64)
    tables = (cost.transpose(1, 2), counts, wanted, bad_wanted)
    native.load().assign(*(cuda_bodies.cross(table) for table in tables), 1)
    for seed in (0, 1):
        emulator.shuffle(seed)
        with uninitialised_is_nan():
            match, bad = cuda_bodies.assign(cost, counts)
        assert torch.equal(bad.long(), bad_wanted)
        used = torch.where(cost.isfinite(), cost, 1e6).double()
        for problem in range(problems):
            count = int(counts[problem])
            totals = [total_of(used[problem], m[problem].long(), count) for m in (match, wanted)]
            assert totals[0] == pytest.approx(totals[1], rel=1e-12)


def total_of(cost: torch.Tensor, match: torch.Tensor, count: int) -> float:
    """The cost of a match, after it was seen that it is one."""
    targets = torch.nonzero(match >= 0)[:, 0]
    chosen = match[targets].tolist()
    assert (match[count:] == -1).all()
    assert len(chosen) == len(set(chosen)) == min(count, cost.shape[1])
    return float(cost[targets, match[targets]].sum())


@typed
@pytest.mark.parametrize("softmax", [False, True])
@pytest.mark.parametrize(
    "size", [(2, 3, 33, 5, 7), (1, 2, 4, 9, 3), (1, 1, 1, 1, 1), (1, 2, 150, 6, 91), (1, 2, 0, 3, 4)]
)
def test_match(size, softmax, dtype):
    layers, images, queries, targets, classes = size
    logits = (torch.randn(layers, images, queries, classes) * 2).to(dtype)
    boxes, truths = some_boxes(layers, images, queries).to(dtype), some_boxes(images, targets)
    labels = torch.randint(0, classes, (images, targets))
    counts = torch.randint(0, targets + 1, (images,), dtype=torch.int32)
    factors = {"class_": 2.0, "l1": 5.0, "giou": 2.0, "alpha": 0.25, "gamma": 2.0}
    with uninitialised_is_nan():
        match, bad = cuda_bodies.match(
            logits, boxes, labels, truths, counts, softmax=softmax, factors=list(factors.values())
        )
    assert not bad.any()
    for problem, found in enumerate(match.long()):
        layer, image = divmod(problem, images)
        count = int(counts[image])
        tables = (logits[layer, image], boxes[layer, image], labels[image], truths[image])
        cost = reference.match_cost_reference(
            *tables, **factors, class_cost="softmax" if softmax else "focal"
        )
        best = reference.assign_reference(cost[None].numpy(), counts[image : image + 1].numpy())[0]
        totals = [total_of(cost.T, one, count) for one in (found, torch.from_numpy(best))]
        assert totals[0] == pytest.approx(totals[1], abs=1e-4)


def test_what_cannot_be_matched_is_counted():
    logits, boxes = torch.randn(2, 2, 9, 3), some_boxes(2, 2, 9)
    logits[1, 0, 4] = float("nan")
    labels = torch.tensor([[0, 1], [2, 3]])  # the last is no class
    counts = torch.tensor([2, 2], dtype=torch.int32)
    match, bad = cuda_bodies.match(
        logits, boxes, labels, some_boxes(2, 2), counts, softmax=False, factors=[2.0, 5.0, 2.0, 0.25, 2.0]
    )
    assert bad.tolist() == [0, 9, 2, 9]
    assert (match >= 0).all()


@pytest.mark.parametrize("softmax", [False, True])
def test_without_classes_no_cost_is_finite_and_nothing_is_read(softmax):
    counts = torch.tensor([2], dtype=torch.int32)
    tables = (
        torch.empty(1, 1, 3, 0),
        some_boxes(1, 1, 3),
        torch.zeros(1, 2).long(),
        some_boxes(1, 2),
        counts,
    )
    match, bad = cuda_bodies.match(*tables, softmax=softmax, factors=[2.0, 5.0, 2.0, 0.25, 2.0])
    assert bad.tolist() == [6]
    assert match.shape == (1, 2)


def test_counts_outside_the_table_are_taken_as_its_ends():
    match, _ = cuda_bodies.assign(torch.rand(2, 3, 5), torch.tensor([-1, 9], dtype=torch.int32))
    assert (match[0] == -1).all()
    assert (match[1] >= 0).all()


def test_arguments_are_refused_by_name(emulator):
    with pytest.raises(ValueError, match=r"\[box_loss\] truths must have shape \(2, 3, 4\), got \(2, 3, 5\)"):
        box_loss._op.forward(
            some_boxes(1, 2, 7), torch.rand(2, 3, 5), torch.zeros(1, 2, 7, dtype=torch.int32), None, "giou"
        )
    with pytest.raises(ValueError, match=r"\[cross_entropy\] owners must be int32, got int64"):
        cross_entropy._op.forward(
            torch.rand(1, 2, 7, 3), torch.zeros(2, 3, dtype=torch.int64), torch.zeros(1, 2, 7).long(), 0.1
        )
    with pytest.raises(ValueError, match="at most 8 levels"):
        emulator.deform_attn(
            *map(cuda_bodies.cross, [torch.rand(1, 9, 1, 4)]), [1] * 18,
            *map(cuda_bodies.cross, [torch.rand(1, 1, 1, 9, 2), torch.rand(1, 1, 1, 9)]), [1] * 9, False,
            cuda_bodies.cross(torch.rand(1, 1, 4)), 0,
        )  # fmt: skip
