from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
from PIL import Image

from detrx.cli.export import run
from detrx.errors import ConfigError
from detrx.export import onnx as writer
from detrx.export.engine import Built, EngineSettings
from detrx.export.gate import gate
from detrx.export.parity import ParityError, ParityReport
from detrx.export.run import export
from detrx.runtime.backend import Backend, open_backend
from detrx.runtime.sidecar import read_sidecar
from detrx.types import Raw


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
        ({"to": "tflite"}, "to must be one of onnx, engine, got 'tflite'"),
        ({"precision": "fp8"}, "precision must be one of fp32"),
        ({"graph": "both"}, "graph must be one of pure, plugin"),
        ({"precision": "int8"}, "calibrated on pictures as the model will see them: pass --calibrate"),
        ({"precision": "int4", "graph": "plugin"}, "written for the pure graph"),
        ({"graph": "plugin", "engine": EngineSettings(target="rtx")}, "no plugins; pass --graph pure"),
        ({"batch": 0}, "batch must be 1 or more"),
        ({"top": 0}, "top must be 1 or more"),
        ({"out": "weights.safetensors"}, "out must end in .onnx"),
        ({"canvas": (64, 70)}, "canvas must be two multiples of 32"),
    ],
)
def test_settings_out_of_range(weights: Path, setting: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        export(weights, **setting)


@pytest.mark.parametrize("precision", ["fp16", "int4"])
def test_a_lower_precision_is_smaller_and_says_what_it_kept(
    weights: Path, tmp_path: Path, precision: str
) -> None:
    exact = export(weights, out=tmp_path / "exact.onnx")
    found = export(weights, out=tmp_path / "low.onnx", precision=precision)
    assert found.bytes < exact.bytes
    assert "heads" in found.kept
    assert sorted(p.name for p in tmp_path.iterdir()) == ["exact.onnx", "low.onnx"]
    for name, written in (("exact.onnx", "fp32"), ("low.onnx", precision)):
        assert open_backend(tmp_path / name).description.endswith(f"on CPU, {written}")


def test_int8_is_calibrated_on_a_folder(weights: Path, tmp_path: Path, no_tidying: None) -> None:
    for i in range(3):
        Image.effect_noise((96, 64), 90).convert("RGB").save(tmp_path / f"{i}.png")
    seen: list[tuple[int, int]] = []
    out = tmp_path / "out" / "low.onnx"
    found = export(
        weights,
        out=out,
        precision="int8",
        calibrate=tmp_path,
        progress=lambda done, total: seen.append((done, total)),
    )
    assert seen[-1] == (3, 3)
    assert "in int8" in found.kept


def test_ap_decides_where_there_is_a_data_set(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_tidying: None
) -> None:
    losses = iter([(60.0, 59.8), (60.0, 59.6)])

    def measured(report: ParityReport) -> ParityReport:
        return dataclasses.replace(report, ap=next(losses), ap_images=3)

    monkeypatch.setattr(
        "detrx.export.run.gate", lambda *a, **k: measured(gate(a[0], a[1], limits=k["limits"]))
    )
    found = export(weights, out=tmp_path / "a.onnx", precision="fp16")
    assert "AP 60.00 -> 59.80 on 3 pictures, 0.3 may be lost" in found.report.table()
    with pytest.raises(ParityError, match=r"AP 60\.00 -> 59\.60"):
        export(weights, out=tmp_path / "a.onnx", precision="fp16")


def test_the_plugin_graph_is_exported_and_gated(weights: Path, tmp_path: Path, no_tidying: None) -> None:
    found = export(weights, out=tmp_path / "a.onnx", graph="plugin", engine=EngineSettings(target="8.5"))
    assert found.report.passed
    kinds = {node.op_type for node in onnx.load(str(found.path)).graph.node if node.domain == "detrx"}
    assert kinds == {"DetrxDeformAttn", "DetrxDecode", "DetrxLayerNorm"}


@pytest.mark.parametrize("shift", [0.0, 0.5])
def test_an_engine_is_compared_where_it_runs(
    shift: float, weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_tidying: None
) -> None:
    class Ran:
        """The weights by torch, with scores shifted."""

        def __init__(self, engine: Path) -> None:
            self.inner = open_backend(weights)
            self.info, self.batch, self.description = read_sidecar(engine).info, 1, "an engine"

        def infer(self, pixels: np.ndarray) -> Raw:
            found = self.inner.infer(pixels)
            return dataclasses.replace(found, scores=found.scores - np.float32(shift))

        def close(self) -> None:
            self.inner.close()

    def opened(path: Path, **settings: object) -> Ran | Backend:
        return Ran(path) if path.suffix == ".engine" else open_backend(path, **settings)

    def built(graph: Path, engine: Path, settings: EngineSettings) -> Built:
        engine.write_bytes(graph.read_bytes()[:1000])
        return Built("10.3.0", "tensorrt")

    monkeypatch.setattr("detrx.export.run.open_backend", opened)
    monkeypatch.setattr("detrx.export.run.build_engine", built)
    out = tmp_path / "a.engine"
    if shift:
        with pytest.raises(ParityError, match=r"kept as .*a\.engine\.rejected"):
            export(weights, out=out, to="engine")
    else:
        found = export(weights, out=out, to="engine")
        assert found.engine == "built by TensorRT 10.3.0; the engine itself: compared"
        assert read_sidecar(out).gate["engine"] == "compared"
    assert not list(tmp_path.glob("*draft*"))


def test_no_such_weights(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such file"):
        export(tmp_path / "none.safetensors")
