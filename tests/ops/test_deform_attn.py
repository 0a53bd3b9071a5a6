from __future__ import annotations

import importlib

import pytest
import torch
from torch.nn import functional as F

from detrx.ops import reference
from detrx.ops.deform_attn import deform_attn, deform_attn_gather

# The package's attribute of that name is the function once it is imported from there, so ask for the module.
module = importlib.import_module("detrx.ops.deform_attn")

CASES = {
    "one pixel": ([(1, 1)], [1], 1, 1, 1),
    "rt-n": ([(10, 10), (5, 5)], [6, 6], 8, 16, 33),
    "wide heads": ([(7, 9), (4, 5), (2, 3)], [4, 4, 4], 2, 32, 5),
    "odd": ([(3, 11), (5, 1)], [3, 1], 3, 7, 4),
    "uneven points": ([(6, 6), (3, 3), (2, 2)], [3, 6, 0], 4, 8, 2),
    "no queries": ([(4, 4)], [2], 2, 8, 0),
    "many points": ([(4, 4), (2, 3)], [40, 25], 2, 8, 3),
}


def problem(case, *, dtype=torch.float32, batch=2, spread=1.6):
    shapes, points, heads, channels, queries = CASES[case]
    g = torch.Generator().manual_seed(0)
    area = sum(h * w for h, w in shapes)
    values = torch.randn(batch, area, heads, channels, generator=g, dtype=dtype)
    locations = (
        torch.rand(batch, queries, heads, sum(points), 2, generator=g, dtype=dtype) - 0.5
    ) * spread + 0.5
    weights = torch.randn(batch, queries, heads, sum(points), generator=g, dtype=dtype).softmax(-1)
    return values, shapes, locations, weights, points


def by_grid_sample(values, shapes, locations, weights, points):
    """The definition: torch's own sampler, level by level."""
    batch, queries, heads, _ = weights.shape
    out = 0.0
    levels = values.split([h * w for h, w in shapes], 1)
    for level, (h, w), grid, share in zip(
        levels, shapes, locations.split(points, 3), weights.split(points, 3)
    ):
        if not share.shape[3]:
            continue
        maps = level.permute(0, 2, 3, 1).reshape(batch * heads, -1, h, w)
        grid = (2 * grid - 1).transpose(1, 2).flatten(0, 1)
        read = F.grid_sample(maps, grid, mode="bilinear", padding_mode="zeros", align_corners=False)
        out = out + (read * share.transpose(1, 2).flatten(0, 1).unsqueeze(1)).sum(-1)
    return out.reshape(batch, -1, queries).transpose(1, 2)


@pytest.mark.parametrize("case", CASES)
def test_reference_equals_grid_sample(case):
    args = problem(case, dtype=torch.float64)
    if case != "no queries":
        torch.testing.assert_close(reference.deform_attn(*args), by_grid_sample(*args))


@pytest.mark.parametrize("body", [deform_attn, deform_attn_gather])
@pytest.mark.parametrize("case", CASES)
def test_value_and_gradients_equal_the_reference(case, body):
    if body is deform_attn_gather and case == "no queries":
        pytest.skip("the body for export always has queries")
    values, shapes, locations, weights, points = problem(case)
    grads = []
    for answer in (reference.deform_attn, body):
        leaves = [t.clone().requires_grad_() for t in (values, locations, weights)]
        out = answer(leaves[0], shapes, leaves[1], leaves[2], points)
        slope = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
        grads.append([out, *torch.autograd.grad((out * slope).sum(), leaves)])
    for wanted, found in zip(*grads):
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("size", [0.01, 1.0, 40.0])
def test_a_softmax_on_the_way_equals_one_before(case, size):
    values, shapes, locations, weights, points = problem(case)
    logits = size * torch.randn(weights.shape, generator=torch.Generator().manual_seed(1))
    grads = []
    for soft in (False, True):
        leaves = [t.clone().requires_grad_() for t in (values, locations, logits)]
        last = leaves[2] if soft else leaves[2].softmax(-1)
        out = deform_attn(leaves[0], shapes, leaves[1], last, points, softmax=soft)
        slope = torch.linspace(-1, 1, out.numel()).reshape(out.shape)
        grads.append([out, *torch.autograd.grad((out * slope).sum(), leaves)])
    for wanted, found in zip(*grads):
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-6)


def test_undefined_logits_go_through():
    values, shapes, locations, weights, points = problem("rt-n")
    weights[0, 1, 2, 3] = torch.nan
    out = deform_attn(values, shapes, locations, weights, points, softmax=True)
    assert out.isnan().any(-1).nonzero().tolist() == [[0, 1]]


@pytest.mark.parametrize("answer", [reference.deform_attn, deform_attn])
def test_gradcheck_in_float64(answer):
    values, shapes, locations, weights, points = problem("odd", dtype=torch.float64, batch=1)
    leaves = [t.requires_grad_() for t in (values, locations, weights)]
    assert torch.autograd.gradcheck(lambda v, x, w: answer(v, shapes, x, w, points), leaves)


@pytest.mark.parametrize("body", [deform_attn, deform_attn_gather])
def test_places_far_away_and_undefined_read_nothing(body):
    values, shapes, locations, weights, points = problem("rt-n")
    for place in (1e30, -1e30, float("inf"), float("nan")):
        assert body(values, shapes, torch.full_like(locations, place), weights, points).eq(0).all()


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_is_widened_inside(dtype):
    args = problem("rt-n")
    low = [t.to(dtype) if isinstance(t, torch.Tensor) else t for t in args]
    wide = [t.float() if isinstance(t, torch.Tensor) else t for t in low]
    assert torch.equal(deform_attn(*low), deform_attn(*wide).to(dtype))


def test_any_layout():
    values, shapes, locations, weights, points = problem("rt-n")
    turned = values.transpose(1, 2).contiguous().transpose(1, 2)
    wanted = deform_attn(values, shapes, locations, weights, points)
    assert torch.equal(deform_attn(turned, shapes, locations, weights, points), wanted)


def test_threads_change_nothing():
    values, shapes, locations, weights, points = problem("wide heads")
    values.requires_grad_()
    before = torch.get_num_threads()
    answers = []
    try:
        for threads in (1, 3):
            torch.set_num_threads(threads)
            out = deform_attn(values, shapes, locations, weights, points)
            answers.append((out, *torch.autograd.grad(out.square().sum(), values)))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(a, b) for a, b in zip(*answers))


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("softmax", [False, True])
def test_opcheck(softmax):
    values, shapes, locations, weights, points = problem("uneven points")
    leaves = [t.requires_grad_() for t in (values, locations, weights)]
    sides = [side for shape in shapes for side in shape]
    torch.library.opcheck(module._op, (leaves[0], sides, leaves[1], leaves[2], points, softmax))


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning", "ignore:.*torch.jit.*:FutureWarning")
def test_tracing_takes_the_gather_body():
    args = problem("rt-n")
    traced = torch.jit.trace(
        lambda v, x, w: deform_attn(v, args[1], x, w, args[4]), (args[0], args[2], args[3])
    )
    assert "detrx::" not in str(traced.inlined_graph)
    assert "grid_sampler" not in str(traced.inlined_graph)
    torch.testing.assert_close(traced(args[0], args[2], args[3]), deform_attn(*args), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("spoil", ["area", "points", "weights", "levels"])
def test_what_does_not_fit_is_refused(spoil):
    values, shapes, locations, weights, points = problem("rt-n")
    if spoil == "area":
        shapes = [(10, 10), (5, 6)]
    elif spoil == "points":
        points = [6, 5]
    elif spoil == "weights":
        weights = weights[:1]
    else:
        shapes, points = [*shapes, (0, 0)], points
    with pytest.raises(ValueError, match=r"\[deform_attn\]"):
        deform_attn(values, shapes, locations, weights, points)
