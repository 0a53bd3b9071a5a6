from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from detrx.cli.export import run
from detrx.errors import ConfigError
from detrx.export import onnx as writer
from detrx.export.parity import ParityError
from detrx.export.run import export
from detrx.runtime.backend import open_backend


@pytest.fixture
def no_tidying(monkeypatch: pytest.MonkeyPatch) -> None:
    """Simplifying takes most of an export's time, and the gate does not care."""
    monkeypatch.setattr(writer, "_simplify", lambda graph: graph)


@pytest.fixture
def tampering(monkeypatch: pytest.MonkeyPatch, no_tidying: None) -> None:
    """Every graph that is written gets the bias of the class scores wrong (fresh heads share one)."""
    write = writer.write_onnx

    def write_wrongly(*args: object, **kwargs: object) -> Path:
        path = write(*args, **kwargs)
        graph = onnx.load(str(path))
        (bias,) = (t for t in graph.graph.initializer if t.name.endswith("score_head.bias"))
        values = onnx.numpy_helper.to_array(bias) + np.array([0.2, 0, 0], np.float32)
        bias.CopyFrom(onnx.numpy_helper.from_array(values, bias.name))
        onnx.save(graph, str(path))
        return path

    monkeypatch.setattr(writer, "write_onnx", write_wrongly)


def test_an_export_passes_the_gate_on_generated_scenes(weights: Path, tmp_path: Path) -> None:
    result = export(weights, out=tmp_path / "new" / "tiny.onnx")
    assert result.report.passed
    assert len(result.report.images) == 8
    assert result.path.stat().st_size == result.bytes
    assert [p.name for p in result.path.parent.iterdir()] == ["tiny.onnx"]
    backend = open_backend(result.path)
    assert (backend.info, backend.batch) == (result.info, 1)
    backend.close()


def test_pictures_canvas_and_batch_can_be_chosen(weights: Path, tmp_path: Path, no_tidying: None) -> None:
    for i in range(3):
        Image.new("RGB", (50 + i, 40), (200, 30, 60)).save(tmp_path / f"{i}.png")
    result = export(weights, out=tmp_path / "a.onnx", batch=None, top=4, canvas=(32, 64), images=[tmp_path])
    assert [one.name for one in result.report.images] == ["0.png", "1.png", "2.png"]
    backend = open_backend(result.path)
    assert (backend.info.canvas, backend.batch) == ((32, 64), None)
    assert backend.infer(np.zeros((3, 3, 32, 64), np.float32)).scores.shape == (3, 4)
    backend.close()


def test_a_graph_that_answers_otherwise_is_rejected(weights: Path, tmp_path: Path, tampering: None) -> None:
    target = tmp_path / "tiny.onnx"
    target.write_text("the last good one")
    with pytest.raises(ParityError, match=r"kept as .*tiny\.onnx\.rejected") as caught:
        export(weights, out=target)
    assert not caught.value.report.passed
    assert target.read_text() == "the last good one"
    onnx.checker.check_model(str(tmp_path / "tiny.onnx.rejected"))
    assert json.loads((tmp_path / "tiny.onnx.rejected.json").read_text())["images"]
    assert sorted(p.name for p in tmp_path.iterdir()) == [
        "tiny.onnx",
        "tiny.onnx.rejected",
        "tiny.onnx.rejected.json",
    ]


def test_the_command_ends_with_3(
    weights: Path, tmp_path: Path, tampering: None, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run([str(weights), "--out", str(tmp_path / "a.onnx")]) == 3
    text = capsys.readouterr().err
    assert "limit" in text
    assert "scene" in text


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"to": "engine"}, "to must be one of onnx, got 'engine'"),
        ({"precision": "int8"}, "precision must be one of fp32"),
        ({"batch": 0}, "batch must be 1 or more"),
        ({"top": 0}, "top must be 1 or more"),
        ({"out": "weights.safetensors"}, "out must end in .onnx"),
        ({"canvas": (64, 70)}, "canvas must be two multiples of 32"),
    ],
)
def test_settings_out_of_range(weights: Path, setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export(weights, **setting)


def test_no_such_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        export(tmp_path / "none.safetensors")
