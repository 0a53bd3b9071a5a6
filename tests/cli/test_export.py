from __future__ import annotations

from pathlib import Path

import pytest

from detrx.cli.main import main
from detrx.export.engine import EngineSettings
from detrx.export.parity import ImageParity, ParityError, ParityReport
from detrx.export.run import ExportResult
from detrx.types import ModelInfo

INFO = ModelInfo("tiny", ("disc",), (1,), (64, 96))


def answer(box: float) -> ParityReport:
    return ParityReport("weights", "file", (ImageParity("cells.jpg", 1e-6, box),))


def test_what_was_asked_for_reaches_the_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = {}
    written = tmp_path / "a.onnx"
    written.write_bytes(b"1234")

    def export(model: str, **settings: object) -> ExportResult:
        asked.update(settings, model=model)
        return ExportResult(written, INFO, answer(0.01), 1.5, 4)

    monkeypatch.setattr("detrx.export.run.export", export)
    line = ["export", "a.safetensors", "--batch", "None", "--canvas", "320", "640", "--images", "x", "y"]
    line += ["--graph", "plugin", "--tensorrt", "8.5", "--calibrate", "photos", "--batches", "1", "2", "4"]
    assert main(line) == 0
    assert asked["model"] == "a.safetensors"
    assert (asked["batch"], asked["canvas"], asked["images"]) == (None, (320, 640), ("x", "y"))
    assert (asked["graph"], asked["calibrate"]) == ("plugin", "photos")
    assert asked["engine"] == EngineSettings(target="8.5", batch=(1, 2, 4))
    text = capsys.readouterr().out
    assert "cells.jpg" in text
    assert f"detrx detect PHOTO_OR_FOLDER --model {written}" in text


def test_a_refusal_ends_with_3_and_the_table(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def export(model: str, **_: object) -> ExportResult:
        raise ParityError(f"[export] refused\n{answer(7).table()}", answer(7))

    monkeypatch.setattr("detrx.export.run.export", export)
    assert main(["export", "a.safetensors"]) == 3
    assert "cells.jpg" in capsys.readouterr().err


def test_other_mistakes_end_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["export", str(tmp_path / "none.safetensors")]) == 2
    assert "no such file" in capsys.readouterr().err
    assert main(["export", "a.safetensors", "--to", "tflite"]) == 2
    assert "to must be one of onnx" in capsys.readouterr().err
