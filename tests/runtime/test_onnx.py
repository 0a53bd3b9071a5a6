"""The ONNX Runtime backend: answers, and what it refuses (faults row 49)."""

from __future__ import annotations

import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx.errors import ConfigError, DeviceError, ExportError, MissingBackendError
from detrx.runtime.backend import find_model, open_backend

onnx = pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))
TICKS: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tick_rate.py"))
write_model = TINY["write_model"]


def test_it_answers_with_raw(tmp_path: Path) -> None:
    backend = open_backend(write_model(tmp_path / "m.onnx", batch=None), device="cpu", threads=1)
    assert backend.info == TINY["INFO"]
    assert backend.batch is None
    assert "ONNX Runtime" in backend.description
    pixels = np.stack([np.zeros((3, 64, 96)), np.ones((3, 64, 96))]).astype(np.float32)
    raw = backend.infer(pixels)
    np.testing.assert_allclose(raw.scores, [TINY["SCORES"], TINY["SCORES"] + 0.01], atol=1e-6)
    np.testing.assert_array_equal(raw.labels[1], TINY["LABELS"])
    assert raw.boxes.shape == (2, 4, 4)
    backend.close()


@pytest.mark.skipif(TICKS["cores"]() < 2, reason="on one core inference and Python's thread share it")
def test_python_goes_on_during_inference() -> None:
    backend = open_backend(find_model("demo"), device="cpu", threads=1)
    pixels = np.zeros((1, 3, *backend.info.canvas), np.float32)
    assert TICKS["tick_rate"](lambda: backend.infer(pixels), enough=0.8) >= 0.8
    backend.close()


def test_a_fixed_batch_is_known(tmp_path: Path) -> None:
    assert open_backend(write_model(tmp_path / "m.onnx", batch=2)).batch == 2


def test_a_graph_of_others_is_refused_with_the_remedy(tmp_path: Path) -> None:
    for changes, says in (
        ({"info": None}, "no class names"),
        ({"metadata": "{}"}, "damaged description"),
        ({"metadata": TINY["INFO"].to_json().replace("96", "128")}, "says canvas"),
    ):
        with pytest.raises(ExportError, match=says) as caught:
            open_backend(write_model(tmp_path / "m.onnx", **changes))
        assert "detrx export" in str(caught.value)


def test_other_inputs_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    model.graph.input[0].name = "images"
    model.graph.node[0].input[0] = "images"
    onnx.save(model, str(path))
    with pytest.raises(ExportError, match="must take 'pixels'"):
        open_backend(path)


@pytest.mark.parametrize("keep", [0, 10, 200, -30])
def test_a_damaged_file_is_refused(tmp_path: Path, keep: int) -> None:
    path = write_model(tmp_path / "m.onnx")
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ExportError, match=r"m\.onnx"):
        open_backend(path)


def test_weights_outside_the_file_are_refused(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    model = onnx.load(path)
    tensor = model.graph.initializer[2]
    for key, value in (("location", "../../etc/passwd"), ("offset", "0"), ("length", "64")):
        tensor.external_data.add(key=key, value=value)
    tensor.data_location = onnx.TensorProto.EXTERNAL
    tensor.ClearField("raw_data")
    path.write_bytes(model.SerializeToString())
    with pytest.raises(ExportError, match="other files"):
        open_backend(path)


def test_settings_are_checked(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx")
    with pytest.raises(ConfigError, match="device must be one of"):
        open_backend(path, device="gpu")
    with pytest.raises(ConfigError, match="threads"):
        open_backend(path, threads=0)
    with pytest.raises(ConfigError, match="no such file"):
        open_backend(tmp_path / "none.onnx")
    with pytest.raises(ConfigError, match="detrx export"):
        open_backend(tmp_path / "model.engine")


def test_cuda_is_not_replaced_silently(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("onnxruntime.get_available_providers", lambda: ["CPUExecutionProvider"])
    with pytest.raises(DeviceError, match="device='cpu'"):
        open_backend(write_model(tmp_path / "m.onnx"), device="cuda")


def test_a_missing_library_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(MissingBackendError, match="pip install"):
        open_backend(write_model(tmp_path / "m.onnx"))
