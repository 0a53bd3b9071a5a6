from __future__ import annotations

from pathlib import Path

import pytest

from detrx.cli.eval import show
from detrx.cli.main import main
from detrx.evaluation.coco import Metrics


def metrics() -> Metrics:
    counts = {"images": 7, "truths": 31}
    return Metrics(
        *[0.5] * 3, -1.0, *[0.5] * 8, {"disc": (0.61234, 0.9), "ring": (-1.0, -1.0)}, counts=counts
    )


def test_the_table_has_a_row_a_class_and_no_minus_one(capsys: pytest.CaptureFixture[str]) -> None:
    show(metrics(), title="a on b")
    text = capsys.readouterr().out
    assert "0.6123" in text
    assert "-1" not in text
    assert "small -" in text
    assert "7 images, 31 objects" in text


def test_what_was_asked_for_reaches_the_library(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {}

    def evaluate(model: str, **settings: object) -> Metrics:
        asked.update(settings, model=model)
        return metrics()

    monkeypatch.setattr("detrx.evaluation.run.evaluate", evaluate)
    assert main(["eval", "a.onnx", "--data", "cells", "--threads", "2", "--out", "there"]) == 0
    assert (asked["model"], asked["data"], asked["split"]) == ("a.onnx", "cells", "test")
    assert (asked["threads"], asked["out"], asked["batch"]) == (2, "there", 1)
    assert "there/index.html" in capsys.readouterr().out


def test_no_model_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["eval", "a.onnx", "--data", str(tmp_path)]) == 2
    assert "no such file or model: a.onnx" in capsys.readouterr().err
