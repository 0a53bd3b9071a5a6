"""The door between Python and C++: what crosses it, what is refused, and that Python goes on meanwhile."""

from __future__ import annotations

import multiprocessing
import runpy
import subprocess
import sys
import sysconfig
import threading
from pathlib import Path

import numpy as np
import pytest

from detrx import native

ticks = runpy.run_path(str(Path(__file__).parents[1] / "tick_rate.py"))
tick_rate = ticks["tick_rate"]
needs_two_cores = pytest.mark.skipif(
    ticks["cores"]() < 2, reason="on one core the call and Python's thread share it"
)


def problem(problems=3, targets=4, queries=9):
    cost = np.random.default_rng(0).random((problems, queries, targets), dtype=np.float32)
    counts = np.full(problems, targets, dtype=np.int32)
    return cost, counts, np.empty((problems, targets), np.int64), np.empty(problems, np.int64)


def test_says_what_it_is():
    module = native.load()
    assert "cpu" in module.BUILT_WITH
    assert issubclass(module.ArgumentError, ValueError)
    assert issubclass(module.DeviceError, RuntimeError)
    assert module.__version__


def test_exceptions_cross_with_their_message():
    cost, counts, match, bad = problem()
    module = native.load()
    with pytest.raises(
        module.ArgumentError, match=r"\[assign\] counts must be in \[0, 4\], got 5 for problem 1"
    ):
        module.assign(cost, np.array([1, 5, 2], np.int32), match, bad, 1)
    with pytest.raises(ValueError, match=r"match must have shape \(3, 4\), got \(2, 4\)"):
        module.assign(cost, counts, match[:2], bad, 1)
    with pytest.raises(ValueError, match="threads must be >= 1"):
        module.assign(cost, counts, match, bad, 0)


def test_a_wrong_type_rank_or_owner_is_refused():
    cost, counts, match, bad = problem()
    module = native.load()
    with pytest.raises(ValueError, match="items must be float32, got float64"):
        module.assign(cost.astype(np.float64), counts, match, bad, 1)
    with pytest.raises(ValueError, match="must have 3 dimensions, got 2"):
        module.assign(cost[0], counts, match, bad, 1)
    with pytest.raises(TypeError):
        module.assign(cost.tolist(), counts, match, bad, 1)
    match.flags.writeable = False
    with pytest.raises((ValueError, BufferError), match=r"read-only|not writable"):
        module.assign(cost, counts, match, bad, 1)


@needs_two_cores
def test_python_goes_on_during_a_long_native_call():
    rng = np.random.default_rng(0)
    cost = np.ones((60, 600, 300), np.float32) + rng.random((60, 1, 300), np.float32)
    cost += rng.random((60, 600, 1), np.float32) + 0.01 * rng.random(cost.shape, np.float32)
    counts, match, bad = np.full(60, 300, np.int32), np.empty((60, 300), np.int64), np.empty(60, np.int64)
    assert tick_rate(lambda: native.load().assign(cost, counts, match, bad, 1), enough=0.8) >= 0.8


@needs_two_cores
def test_a_call_that_keeps_the_gil_would_be_seen():
    assert tick_rate(lambda: sum(range(20_000_000)), enough=0.8, tries=2) < 0.5


def test_free_threaded_python_stays_free():
    if not sysconfig.get_config_var("Py_GIL_DISABLED"):
        pytest.skip("this Python has a GIL")
    code = "import sys; was = sys._is_gil_enabled(); import detrx._C; print(was, sys._is_gil_enabled())"
    done = subprocess.run([sys.executable, "-X", "gil=0", "-c", code], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False"], done.stderr


def test_many_python_threads_may_call_at_once():
    cost, counts, _, _ = problem(problems=64, targets=20, queries=60)
    answers = [problem(64, 20, 60)[2:] for _ in range(6)]
    calls = [
        threading.Thread(target=native.load().assign, args=(cost, counts, match, bad, 3))
        for match, bad in answers
    ]
    for call in calls:
        call.start()
    for call in calls:
        call.join()
    assert all(np.array_equal(match, answers[0][0]) for match, _ in answers)


def _solve(queue):
    cost, counts, match, bad = problem(problems=64, targets=20, queries=60)
    native.load().assign(cost, counts, match, bad, 2)
    queue.put(match)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_may_call_after_its_parent_did():
    cost, counts, match, bad = problem(problems=64, targets=20, queries=60)
    native.load().assign(cost, counts, match, bad, 2)
    context = multiprocessing.get_context("fork")
    queue = context.Queue()
    child = context.Process(target=_solve, args=(queue,))
    child.start()
    found = queue.get(timeout=20)
    child.join(20)
    np.testing.assert_array_equal(found, match)


def test_half_floats_are_widened_exactly_and_rounded_to_even():
    every = np.arange(1 << 16, dtype=np.uint16).view(np.float16)
    wide = np.empty(1 << 16, np.float32)
    native.load().convert(every, wide)
    with np.errstate(over="ignore", invalid="ignore"):
        np.testing.assert_array_equal(wide, every.astype(np.float32))
        between = [(wide[1:] + wide[:-1]) / 2, wide * 1.0003, [65520, -65519.99, 1e-8, 3e-8, 1e30]]
        between = np.concatenate([*between, np.random.default_rng(0).normal(size=999) * 1e-5])
        between = between.astype(np.float32)
        back = np.empty(len(between), np.float16)
        native.load().convert(between, back)
        np.testing.assert_array_equal(back, between.astype(np.float16))


def test_capsules_of_every_type_cross():
    torch = pytest.importorskip("torch")
    from detrx.ops.cross import cross

    module = native.load()
    every = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(torch.bfloat16)
    wide = torch.empty(1 << 16)
    module.convert(cross(every), cross(wide))
    assert torch.equal(wide.isnan(), every.isnan())
    assert torch.equal(wide.nan_to_num(0), every.float().nan_to_num(0))
    values = torch.cat([wide * 1.003, torch.randn(999), torch.tensor([3.3961775e38, float("nan")])])
    for dtype in (torch.bfloat16, torch.float16, torch.float32):
        rounded = torch.empty(len(values), dtype=dtype)
        module.convert(cross(values), cross(rounded))
        torch.testing.assert_close(rounded, values.to(dtype), rtol=0, atol=0, equal_nan=True)
    strided = torch.randn(50, 3).half()
    answer = torch.empty(50, 2)
    module.convert(cross(strided[:, 1]), cross(answer[:, 0]))
    assert torch.equal(answer[:, 0], strided[:, 1].float())


def test_capsules_are_checked_as_arrays_are():
    torch = pytest.importorskip("torch")
    from detrx.ops.cross import cross

    cost, counts, match, bad = (torch.from_numpy(array) for array in problem())
    module = native.load()
    module.assign(cross(cost.requires_grad_()), cross(counts), cross(match), cross(bad), 1)
    assert (match >= 0).all()
    with pytest.raises(ValueError, match="items must be float32, got bfloat16"):
        module.assign(cross(cost.bfloat16()), cross(counts), cross(match), cross(bad), 1)
    with pytest.raises(ValueError, match="must have 3 dimensions, got 2"):
        module.assign(cross(cost[0]), cross(counts), cross(match), cross(bad), 1)
    with pytest.raises(ValueError, match="items must be floats, integers or truth values"):
        module.convert(cross(torch.zeros(3, dtype=torch.complex64)), cross(torch.zeros(3)))
    with pytest.raises(ValueError, match="float32, float16 or bfloat16, got int64"):
        module.convert(cross(torch.zeros(3, dtype=torch.int64)), cross(torch.zeros(3)))


def test_capsules_do_not_leak():
    torch = pytest.importorskip("torch")
    from detrx.ops.cross import cross

    array, out = np.ones(8, np.float32), torch.empty(8)
    before = sys.getrefcount(array)
    tensor = torch.from_numpy(array)
    for _ in range(9):
        native.load().convert(cross(tensor), cross(out))
    del tensor
    assert sys.getrefcount(array) == before
