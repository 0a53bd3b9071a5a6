"""The door between Python and C++: what crosses it, what is refused, and that Python goes on meanwhile."""

from __future__ import annotations

import multiprocessing
import threading
import time

import numpy as np
import pytest

from detrx import native


def problem(problems=3, targets=4, queries=9):
    cost = np.random.default_rng(0).random((problems, targets, queries), dtype=np.float32)
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
    with pytest.raises(ValueError, match="items must be f, got d"):
        module.assign(cost.astype(np.float64), counts, match, bad, 1)
    with pytest.raises(ValueError, match="must have 3 dimensions, got 2"):
        module.assign(cost[0], counts, match, bad, 1)
    with pytest.raises(TypeError):
        module.assign(cost.tolist(), counts, match, bad, 1)
    match.flags.writeable = False
    with pytest.raises((ValueError, BufferError), match=r"read-only|not writable"):
        module.assign(cost, counts, match, bad, 1)


def test_python_ticks_during_a_long_native_call():
    rng = np.random.default_rng(0)
    cost = np.ones((40, 150, 300), np.float32) + rng.random((40, 150, 1), np.float32)
    cost += rng.random((40, 1, 300), np.float32) + 0.01 * rng.random(cost.shape, np.float32)
    counts, match, bad = np.full(40, 150, np.int32), np.empty((40, 150), np.int64), np.empty(40, np.int64)
    ticks, stop = [], threading.Event()

    def tick():
        while not stop.wait(0.001):
            ticks.append(time.perf_counter())

    clock = threading.Thread(target=tick)
    clock.start()
    start = time.perf_counter()
    while time.perf_counter() - start < 0.05:
        called = time.perf_counter()
        native.load().assign(cost, counts, match, bad, 1)
        returned = time.perf_counter()
    stop.set()
    clock.join()
    inside = [t for t in ticks if called < t < returned]
    assert len(inside) >= 3, f"{len(inside)} ticks in {returned - called:.3f} s"


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
