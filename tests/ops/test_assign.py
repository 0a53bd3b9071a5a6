"""One test holds the reference, the native body and scipy together: all must find the same total cost."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import linear_sum_assignment
from torch._subclasses.fake_tensor import FakeTensorMode

from detrx.errors import TrainingError
from detrx.ops import reference
from detrx.ops.assign import _counting_op, _op, assign, assign_counting

KINDS = {
    "uniform": lambda rng, shape: rng.random(shape),
    "normal": lambda rng, shape: rng.normal(size=shape),
    "ties": lambda rng, shape: rng.integers(0, 4, shape),
    "constant": lambda rng, shape: np.full(shape, 0.7),
    "near equal": lambda rng, shape: 1 + 1e-6 * rng.random(shape),
    "huge": lambda rng, shape: rng.choice([-1e30, 0.0, 1e30], shape),
    "twin targets": lambda rng, shape: np.repeat(rng.random((*shape[:2], 1)), shape[2], axis=2),
    "twin queries": lambda rng, shape: np.repeat(rng.random((shape[0], 1, shape[2])), shape[1], axis=1),
    "fresh network": lambda rng, shape: (
        1
        + 0.1 * rng.random((shape[0], shape[1], 1))
        + 0.01 * rng.random(shape)
        + rng.random((shape[0], 1, shape[2]))
    ),
}


def check_one(cost, match):
    """cost (Q, T), match (T,): every target has its own query, as cheaply as scipy finds."""
    queries, count = cost.shape
    given = match >= 0
    assert given.sum() == min(queries, count)
    assert len(set(match[given])) == given.sum()
    assert (match < queries).all()
    rows, columns = linear_sum_assignment(cost.astype(np.float64))
    ours = cost.astype(np.float64)[match[given], np.flatnonzero(given)].sum()
    best = cost.astype(np.float64)[rows, columns].sum()
    np.testing.assert_allclose(ours, best, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("kind", KINDS)
def test_total_cost_equals_scipy(kind):
    rng = np.random.default_rng(sorted(KINDS).index(kind))
    for _ in range(30):
        problems, queries, targets = 12, int(rng.integers(1, 45)), int(rng.integers(0, 60))
        cost = KINDS[kind](rng, (problems, queries, targets)).astype(np.float32)
        counts = rng.integers(0, targets + 1, problems)
        match = assign(torch.from_numpy(cost), torch.from_numpy(counts)).numpy()
        for one, count, row in zip(cost, counts, match):
            check_one(one[:, :count], row[:count])
            assert (row[count:] == -1).all()


@pytest.mark.parametrize(
    ("queries", "targets"), [(1, 1), (1, 5), (7, 7), (8, 9), (31, 33), (300, 300), (900, 20)]
)
def test_odd_sizes(queries, targets):
    cost = np.random.default_rng(0).random((2, queries, targets), dtype=np.float32)
    match = assign(torch.from_numpy(cost), torch.tensor([targets, targets // 2])).numpy()
    check_one(cost[0], match[0])
    check_one(cost[1][:, : targets // 2], match[1][: targets // 2])


@pytest.mark.parametrize(("queries", "targets"), [(9, 4), (4, 9), (6, 6), (3, 1)])
def test_reference_finds_the_same_total(queries, targets):
    rng = np.random.default_rng(1)
    cost = rng.random((5, queries, targets))
    match = reference.assign_reference(cost, np.full(5, targets))
    for one, row in zip(cost, match):
        check_one(one, row)


def test_no_problems_and_no_targets():
    assert assign(torch.empty(0, 5, 3), torch.empty(0, dtype=torch.int32)).shape == (0, 3)
    assert assign(torch.empty(4, 5, 0), torch.zeros(4, dtype=torch.int32)).shape == (4, 0)
    assert assign(torch.empty(2, 0, 3), torch.tensor([3, 1])).tolist() == [[-1] * 3] * 2


def test_any_layout_and_type():
    cost = torch.rand(6, 11, 4, dtype=torch.float64)
    counts = torch.tensor([4, 3, 2, 1, 0, 4])
    wanted = assign(cost.float(), counts)
    backwards = cost.float().flip(1).contiguous().numpy()[:, ::-1]
    assert torch.equal(assign(cost.transpose(1, 2).contiguous().transpose(1, 2).float(), counts), wanted)
    assert torch.equal(assign(cost, counts.int()), wanted)
    sliced = torch.stack([cost, cost], dim=2).flatten(1, 2)[:, ::2].float()
    assert torch.equal(assign(sliced, counts), wanted)
    np.testing.assert_array_equal(backwards, cost.float().numpy())


@pytest.mark.parametrize("threads", [1, 2, 5])
def test_threads_change_nothing(threads):
    cost = torch.rand(64, 50, 20)
    counts = torch.arange(64) % 21
    assert torch.equal(assign(cost, counts, threads=threads), assign(cost, counts, threads=1))


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_a_cost_that_is_not_finite_is_refused(value):
    cost = torch.rand(3, 9, 4)
    cost[1, 2, 3] = value
    with pytest.raises(TrainingError, match="1 of problem 1"):
        assign(cost, torch.tensor([4, 4, 4]))


def test_what_is_not_used_may_be_anything():
    cost = torch.rand(2, 9, 4)
    cost[:, :, 2:] = float("nan")
    assert (assign(cost, torch.tensor([2, 0]))[0, :2] >= 0).all()


def test_healthy_targets_are_assigned_well_beside_a_sick_one():
    cost = torch.rand(1, 20, 5)
    cost[0, :, 2] = float("nan")
    match, bad = assign_counting(cost, torch.tensor([5]))
    healthy = [0, 1, 3, 4]
    assert bad.tolist() == [20]
    check_one(cost[0, :, healthy].numpy(), match[0, healthy].numpy())


@pytest.mark.parametrize("operator", [_op, _counting_op])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_opcheck(operator, dtype):
    cost = torch.rand(3, 7, 4, generator=torch.Generator().manual_seed(0)).to(dtype)
    for layout in (cost, cost.transpose(1, 2).contiguous().transpose(1, 2)):
        torch.library.opcheck(operator, (layout, torch.tensor([4, 0, 2]), 1))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiles_in_one_graph():
    cost, counts = torch.rand(3, 7, 4, generator=torch.Generator().manual_seed(0)), torch.tensor([4, 0, 2])
    wanted = assign(cost, counts)

    def both(cost):
        return assign(cost * 2, counts), *assign_counting(cost, counts)

    for dynamic in (False, True):
        compiled = torch.compile(both, fullgraph=True, backend="aot_eager", dynamic=dynamic)
        match, again, bad = compiled(cost)
        assert torch.equal(match, wanted)
        assert torch.equal(again, wanted)
        assert not bad.any()
    cost[2, 0, 1] = torch.nan
    with pytest.raises(TrainingError, match="1 of problem 2"):
        compiled(cost)


def test_fake_tensors_are_traced_and_not_followed():
    with FakeTensorMode():
        match = assign(torch.empty(3, 7, 4), torch.empty(3, dtype=torch.int64))
        found, bad = assign_counting(torch.empty(3, 7, 4), torch.empty(3, dtype=torch.int64))
    assert match.shape == found.shape == (3, 4)
    assert match.dtype == found.dtype == bad.dtype == torch.int64
    assert bad.shape == (3,)


def test_shapes_that_do_not_fit_are_refused():
    for cost, counts in (((3, 7), (3,)), ((3, 7, 4), (2,)), ((3, 7, 4), (3, 1))):
        with pytest.raises(
            ValueError, match=r"\[assign\] cost must have shape \(N, Q, M\) and counts \(N,\)"
        ):
            assign(torch.rand(cost), torch.zeros(counts, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"threads must be >= 1, got 0"):
        assign(torch.rand(3, 7, 4), torch.zeros(3, dtype=torch.int64), threads=0)
