from __future__ import annotations

import math

import pytest
import torch
from rich.console import Console

from detrx.train.report import Means, Pace, Report, clock

LOSSES = {"loss": 3.25, "vfl": 0.75, "l1": 0.5, "vfl_aux0": 9.0}


def pace(progress: float = 0.25) -> Pace:
    return Pace(
        epoch=2,
        step=30,
        progress=progress,
        left=90.0,
        rate=4e-4,
        pictures_per_second=12.5,
        memory_mb=1234.0,
        skipped=1,
        losses=LOSSES,
    )


def test_plain_lines_where_there_is_no_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    with Report() as report:
        report.step(pace())
        report.step(pace(0.26))
    said = capfd.readouterr()
    (line,) = said.err.splitlines()
    assert line.startswith(" 25.0% epoch 2  step 30  left 1:30  loss 3.250")
    for words in ("vfl 0.750", "l1 0.500", "12.5 pictures/s", "1234 MB", "1 steps skipped"):
        assert words in line
    assert "aux" not in line
    assert "\r" not in said.err
    assert said.out == ""


def test_a_bar_on_a_terminal(capfd: pytest.CaptureFixture[str]) -> None:
    report = Report()
    report._console = Console(stderr=True, force_terminal=True, width=200)
    with report:
        report.step(pace())
    assert "left 1:30" in capfd.readouterr().err


def test_quiet_says_nothing(capfd: pytest.CaptureFixture[str]) -> None:
    with Report(quiet=True) as report:
        report.step(pace())
        report.say("hello")
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.6, "1:00"), (3661, "1:01:01"), (math.inf, "-:--")]
)
def test_clock(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def test_means_leave_out_the_steps_that_did_not_count() -> None:
    means = Means()
    for value, kept in ((1.0, True), (float("nan"), False), (3.0, True)):
        means.add({"loss": torch.tensor(value), "l1": torch.tensor(1.0)}, kept=torch.tensor(kept))
    means.add({"loss": torch.tensor(5.0)})
    assert means.count == 4
    assert means.take() == {"loss": 3.0, "l1": pytest.approx(2 / 3)}
    assert means.count == 0
    means.add({"loss": torch.tensor(float("nan"))}, kept=torch.tensor(False))
    assert means.take() == {}
