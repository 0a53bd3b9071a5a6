"""Each CUDA kernel against its plain reference, on the device: every type, odd sizes, twice the same.

`make gpu` runs these on a machine that has torch, numpy and pytest, and nothing else to import. Those named small also
run under compute-sanitizer.
"""

from __future__ import annotations

import pytest
import torch

from detrx.ops import loss_reference, reference
from detrx.ops.assign import assign
from detrx.ops.box_loss import box_loss
from detrx.ops.cross_entropy import cross_entropy
from detrx.ops.cuda_bodies import assign as assign_on_cuda
from detrx.ops.cuda_bodies import has_cuda
from detrx.ops.ddf_loss import ddf_loss
from detrx.ops.deform_attn import deform_attn
from detrx.ops.fgl_loss import fgl_loss
from detrx.ops.focal_loss import focal_loss

# What `pytest --only-needs cuda` looks for in a file.
pytestmark = pytest.mark.needs("cuda")

CLOSE = {
    torch.float32: {"rtol": 2e-5, "atol": 2e-5},
    torch.float16: {"rtol": 2e-3, "atol": 2e-3},
    torch.bfloat16: {"rtol": 2e-2, "atol": 2e-2},
}
# Stages, images, queries, targets, classes, and whether all stages share their owners.
SIZES = {
    "small": (2, 3, 33, 5, 7, False),
    "small and shared": (2, 2, 31, 4, 91, True),
    "one": (1, 1, 1, 1, 1, True),
    "no queries": (2, 2, 0, 3, 4, False),
    "no targets": (2, 2, 31, 0, 4, False),
    "coco": (6, 4, 300, 60, 80, False),
    "many": (1, 1, 900, 150, 365, False),
    "wide": (1, 1, 66000, 4, 2, False),
}
sized = pytest.mark.parametrize("size", SIZES)
typed = pytest.mark.parametrize("dtype", CLOSE, ids=str)


def some_boxes(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, 4, device="cuda") * 0.4 + 0.2


def some_owners(size: str) -> torch.Tensor:
    stages, images, queries, targets, _, shared = SIZES[size]
    shape = (1 if shared else stages, images, queries)
    owners = torch.full(shape, -1, dtype=torch.int32, device="cuda")
    if targets:
        chosen = torch.randint(0, targets, shape, dtype=torch.int32, device="cuda")
        owners = torch.where(torch.rand(shape, device="cuda") < 0.4, chosen, owners)
    return owners


def hold(run, answer, leaf, dtype):
    """The losses and the slopes of run equal those of answer, and come out the same, bit for bit, when run again."""
    leaf = leaf.to(dtype).requires_grad_()
    twice = [differentiate(run, leaf) for _ in range(2)]
    for one, other in zip(*twice):
        assert torch.equal(one, other)
    *losses, slope = twice[0]
    *wanted, slope_wanted = differentiate(answer, leaf)
    for one, other in zip(losses, wanted):
        torch.testing.assert_close(one.float(), other.float(), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(slope, slope_wanted, **CLOSE[dtype])


def differentiate(run, leaf):
    answer = run(leaf)
    losses = (answer,) if isinstance(answer, torch.Tensor) else tuple(answer)
    taught = [loss for loss in losses if loss.requires_grad]
    weights = [torch.linspace(0.5, 1.5, loss.numel(), device="cuda").reshape(loss.shape) for loss in taught]
    total = sum((loss * weight).sum() for loss, weight in zip(taught, weights))
    (slope,) = torch.autograd.grad(total, leaf)
    return [*(loss.detach() for loss in losses), slope]


def test_the_kernels_are_built() -> None:
    names = ("assign", "match", "box_loss", "focal_loss", "cross_entropy", "ddf_loss", "fgl_loss")
    assert has_cuda("deform_attn")
    assert all(has_cuda(name) for name in names)


@typed
@sized
@pytest.mark.parametrize("kind", ["giou", "iou", "diou", "ciou"])
def test_box_loss(size, dtype, kind):
    torch.manual_seed(0)
    stages, images, queries, targets, *_ = SIZES[size]
    truths, owners = some_boxes(images, targets).to(dtype).float(), some_owners(size)
    settings = {"kind": kind, "normaliser": torch.tensor(3.5, device="cuda")}
    hold(
        lambda boxes: box_loss(boxes, truths, owners, **settings),
        lambda boxes: loss_reference.box_loss_reference(boxes, truths, owners, **settings),
        some_boxes(stages, images, queries),
        dtype,
    )


@typed
@sized
@pytest.mark.parametrize("kind", ["focal", "varifocal", "mal"])
def test_focal_loss(size, dtype, kind):
    torch.manual_seed(0)
    stages, images, queries, targets, classes, _ = SIZES[size]
    labels = torch.randint(0, classes, (images, targets), device="cuda")
    owners, normaliser = some_owners(size), torch.tensor(100.0, device="cuda")
    quality = None if kind == "focal" else torch.rand(stages, images, queries, device="cuda")
    settings = {"kind": kind, "gamma": 1.5, "quality": quality, "normaliser": normaliser}
    hold(
        lambda logits: focal_loss(logits, labels, owners, **settings),
        lambda logits: loss_reference.focal_loss_reference(logits, labels, owners, **settings),
        torch.randn(stages, images, queries, classes, device="cuda") * 3,
        dtype,
    )


@typed
@sized
def test_cross_entropy(size, dtype):
    torch.manual_seed(0)
    stages, images, queries, targets, classes, _ = SIZES[size]
    if not queries:
        pytest.skip("the mean over no queries has no slope")
    labels, owners = torch.randint(0, classes, (images, targets), device="cuda"), some_owners(size)
    hold(
        lambda logits: cross_entropy(logits, labels, owners),
        lambda logits: loss_reference.cross_entropy_reference(logits, labels, owners),
        torch.randn(stages, images, queries, classes + 1, device="cuda") * 3,
        dtype,
    )


@typed
@sized
def test_fgl_loss(size, dtype):
    torch.manual_seed(0)
    stages, images, queries, targets, *_ = SIZES[size]
    references, truths = some_boxes(stages, images, queries), some_boxes(images, targets)
    owners, iou = some_owners(size), torch.rand(stages, images, queries, device="cuda")
    settings = {"reg_scale": 4.0, "up": 0.5, "normaliser": torch.tensor(100.0, device="cuda")}
    hold(
        lambda edges: fgl_loss(edges, references, truths, owners, iou, **settings),
        lambda edges: loss_reference.fgl_loss_reference(edges, references, truths, owners, iou, **settings),
        torch.randn(stages, images, queries, 4, 33, device="cuda"),
        dtype,
    )


@typed
@sized
def test_ddf_loss(size, dtype):
    torch.manual_seed(0)
    stages, images, queries, *_ = SIZES[size]
    confidence = torch.rand(images, queries, device="cuda")
    owners, iou = some_owners(size), torch.rand(stages, images, queries, device="cuda")
    hold(
        lambda edges: ddf_loss(edges, confidence, owners, iou),
        lambda edges: loss_reference.ddf_loss_reference(edges, confidence, owners, iou),
        torch.randn(stages, images, queries, 4, 33, device="cuda"),
        dtype,
    )


@typed
@pytest.mark.parametrize(
    ("shapes", "points", "heads", "channels", "queries"),
    [
        pytest.param([(10, 10), (5, 5)], [6, 6], 8, 16, 33, id="small"),
        pytest.param([(3, 11), (5, 1)], [3, 1], 3, 7, 4, id="small and odd"),
        pytest.param([(6, 6), (3, 3), (2, 2)], [3, 6, 0], 4, 24, 2, id="small with a level unread"),
        pytest.param([(80, 80), (40, 40), (20, 20)], [4, 4, 4], 8, 32, 300, id="rt-l"),
        pytest.param([(4, 4)], [2], 2, 8, 0, id="no queries"),
    ],
)
@pytest.mark.parametrize("softmax", [False, True])
def test_deform_attn(shapes, points, heads, channels, queries, softmax, dtype):
    torch.manual_seed(0)
    area = sum(height * width for height, width in shapes)
    values = torch.randn(2, area, heads, channels, device="cuda").to(dtype)
    locations = some_locations(shapes, points, (2, queries, heads))
    weights = torch.randn(2, queries, heads, sum(points))
    weights = weights if softmax else weights.softmax(-1)
    grad = torch.randn(2, queries, heads * channels, device="cuda").to(dtype)
    found = [t.cuda().requires_grad_() for t in (values, locations, weights)]
    out = deform_attn(found[0], shapes, found[1], found[2], points, softmax=softmax)
    assert out.dtype == dtype
    wide = [t.detach().double().cpu().requires_grad_() for t in found]
    shares = wide[2].softmax(-1) if softmax else wide[2]
    wanted = reference.deform_attn(wide[0], shapes, wide[1], shares, points)
    answers, truths = [out], [wanted]
    if queries:
        answers += torch.autograd.grad(out, found, grad)
        truths += torch.autograd.grad(wanted, wide, grad.double().cpu())
    # A location's slope is a difference of pixels times the level's side.
    for answer, truth, slack in zip(answers, truths, (10, 10, 100, 10)):
        close = {name: slack * value for name, value in CLOSE[dtype].items()}
        torch.testing.assert_close(answer.double().cpu(), truth, **close)


def some_locations(shapes, points, of: tuple[int, ...]) -> torch.Tensor:
    """Inside and around each level, and not so near the middle of a pixel that rounding chooses between two slopes."""
    levels = []
    for (height, width), count in zip(shapes, points):
        sides = torch.tensor([width, height])
        cell = (torch.rand(*of, count, 2) * (sides + 4)).floor() - 2
        levels.append((cell + 0.55 + 0.9 * torch.rand(*of, count, 2)) / sides)
    return torch.cat(levels, -2)


def test_deform_attn_keeps_an_order_where_torch_is_asked_to():
    torch.manual_seed(0)
    values = torch.randn(2, 100, 8, 16, device="cuda", requires_grad=True)
    locations = torch.rand(2, 300, 8, 4, 2, device="cuda")
    weights = torch.rand(2, 300, 8, 4, device="cuda")
    torch.use_deterministic_algorithms(True)
    try:
        slopes = [
            torch.autograd.grad(
                deform_attn(values, [(10, 10)], locations, weights, [4]).square().sum(), values
            )
            for _ in range(2)
        ]
    finally:
        torch.use_deterministic_algorithms(False)
    assert torch.equal(slopes[0][0], slopes[1][0])


@pytest.mark.parametrize("kind", ["fresh", "ties", "not finite"])
@pytest.mark.parametrize(
    "size",
    [
        pytest.param((4, 12, 33), id="small"),
        pytest.param((2, 40, 31), id="small with targets left over"),
        pytest.param((3, 0, 7), id="no targets"),
        pytest.param((3, 4, 0), id="no queries"),
        pytest.param((40, 60, 300), id="coco"),
        pytest.param((12, 150, 900), id="crowd"),
        pytest.param((2, 150, 100), id="crowd with targets left over"),
        pytest.param((1, 30, 70000), id="wide"),
    ],
)
def test_assign(size, kind):
    torch.manual_seed(0)
    problems, targets, queries = size
    cost = -torch.randint(0, 4, (problems, queries, targets)).float()
    if kind != "ties":
        cost = torch.rand(problems, 1, targets) + torch.rand(problems, queries, 1)
        cost += 0.01 * torch.rand(problems, queries, targets)
    if kind == "not finite" and cost.numel():
        cost.view(-1)[torch.randint(0, cost.numel(), (cost.numel() // 20 + 1,))] = float("nan")
    counts = torch.randint(0, targets + 1, (problems,), dtype=torch.int32)
    counts[0] = targets
    moved = cost.cuda().transpose(1, 2)
    match, bad = assign_on_cuda(moved, counts.cuda())
    again, _ = assign_on_cuda(moved, counts.cuda())
    assert torch.equal(match, again)
    used = torch.where(cost.isfinite(), cost, 1e6).double()
    wanted = assign(used, counts)
    spoilt = ~cost.isfinite() & (torch.arange(targets) < counts[:, None])[:, None]
    assert torch.equal(bad.cpu().long(), spoilt.sum((1, 2)))
    for problem in range(problems):
        totals = [
            total_of(used[problem], m[problem].cpu().long(), int(counts[problem])) for m in (match, wanted)
        ]
        assert totals[0] == pytest.approx(totals[1], rel=1e-12)


def total_of(cost: torch.Tensor, match: torch.Tensor, count: int) -> float:
    """The cost (Q, M) of a match, after it was seen that it is one."""
    targets = torch.nonzero(match >= 0)[:, 0]
    chosen = match[targets].tolist()
    assert (match[count:] == -1).all()
    assert len(chosen) == len(set(chosen)) == min(count, cost.shape[0])
    return float(cost[match[targets], targets].sum())
