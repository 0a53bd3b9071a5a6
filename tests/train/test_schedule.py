from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from detrx.train.schedule import Clock, ema_decay, is_strong, rate

SHARES = st.floats(0, 1, allow_nan=False)


@given(SHARES, st.floats(0, 0.5), st.floats(0, 0.5), SHARES)
def test_the_rate_is_a_share(progress: float, warmup: float, flat: float, final: float) -> None:
    assert 0 <= rate(progress, warmup=warmup, flat=flat, final=final) <= 1


@given(SHARES, SHARES, st.floats(0.01, 0.5), st.floats(0, 0.49), SHARES)
def test_the_rate_rises_then_never_rises_again(
    a: float, b: float, warmup: float, flat: float, final: float
) -> None:
    early, late = min(a, b), max(a, b)
    first, second = (rate(p, warmup=warmup, flat=flat, final=final) for p in (early, late))
    if late < warmup:
        assert first <= second
    elif early >= warmup:
        assert first >= second


def test_the_corners_of_the_rate() -> None:
    def at(progress: float) -> float:
        return rate(progress, warmup=0.1, flat=0.4, final=0.02)

    assert at(0) == 0.01
    assert at(0.05) == pytest.approx(0.5)
    assert at(0.1) == at(0.3) == at(0.5) == 1
    assert at(0.75) == pytest.approx(0.51)
    assert at(1) == pytest.approx(0.02)
    assert at(2) == pytest.approx(0.02)


def test_a_rate_that_falls_at_once() -> None:
    def at(progress: float) -> float:
        return rate(progress, warmup=0.0, flat=2 / 3, final=0.1, fall="step")

    assert [at(0), at(0.66), at(0.67), at(1)] == [1, 1, 0.1, 0.1]


@given(SHARES, SHARES, st.floats(0, 0.9999), st.floats(0.001, 1))
def test_the_average_gets_slower(a: float, b: float, decay: float, ramp: float) -> None:
    early, late = (ema_decay(p, decay=decay, ramp=ramp) for p in sorted((a, b)))
    assert 0 <= early <= late <= decay


def test_the_average_begins_at_the_weights() -> None:
    assert ema_decay(0, decay=0.999, ramp=0.05) == 0
    assert ema_decay(1, decay=0.999, ramp=0.05) == pytest.approx(0.999, abs=1e-6)


def test_strong_changes_end() -> None:
    assert is_strong(0.84, until=0.85)
    assert not is_strong(0.85, until=0.85)
    assert not is_strong(0.0, until=0.0)


def test_a_clock_of_steps() -> None:
    clock = Clock(steps=10, budget=None, step=5)
    assert clock.progress == 0.5
    assert clock.progress_at(7) == 0.7
    clock.step = 20
    assert clock.progress == 1


def test_a_clock_of_seconds_goes_on_where_it_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("detrx.train.schedule.time.monotonic", lambda: now)
    clock = Clock(steps=None, budget=60.0, before=15.0)
    assert clock.progress == 0.25
    now = 115.0
    assert clock.seconds == 30
    assert clock.progress == 0.25
    clock.tick()
    assert clock.progress == 0.5
    assert clock.left == 30
    clock.tick(45.0)  # as the first process says
    assert clock.progress == 0.75
    now = 1000.0
    clock.tick()
    assert clock.progress == 1
    assert clock.left == 0
