from __future__ import annotations

from pathlib import Path

import pytest

from detrx.cli.explain import read_points
from detrx.cli.main import main
from detrx.errors import ConfigError
from detrx.explain.run import ExplainReport


def test_what_was_asked_for_reaches_the_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {}

    def explain(model: str, picture: str, **settings: object) -> ExplainReport:
        asked.update(settings, model=model, picture=picture)
        return ExplainReport(
            Path("there/index.html"), (), ("a.jpg: 2 detections reach 0.5; 2 explained",), 3, None
        )

    monkeypatch.setattr("detrx.explain.run.explain", explain)
    given = ["explain", "runs/x", "a.jpg", "--points", "120,80", "3.5,9", "--queries", "4", "--per-head"]
    assert main(given) == 0
    assert (asked["model"], asked["picture"], asked["per_head"]) == ("runs/x", "a.jpg", True)
    assert asked["points"] == [(120.0, 80.0), (3.5, 9.0)]
    assert asked["queries"] == (4,)
    text = capsys.readouterr().out
    assert "a.jpg: 2 detections" in text
    assert "3 more pictures" in text
    assert "look at there/index.html" in text


@pytest.mark.parametrize("text", ["12", "a,b", "1,2,3", ""])
def test_points_are_two_numbers(text: str) -> None:
    with pytest.raises(ConfigError, match="places x,y in pixels"):
        read_points([text])


def test_a_graph_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["explain", "demo", "a.jpg"]) == 2
    assert "must be weights" in capsys.readouterr().err
