"""The Python reference runtime over stand-ins for its packages."""

from __future__ import annotations

import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from gpu_packages import Gpu, Scaled

from detrx.errors import DeviceError, EngineError, MissingBackendError
from detrx.runtime.backend import open_backend
from detrx.runtime.sidecar import Sidecar, file_sha256, read_sidecar, sidecar_path
from detrx.runtime.tensorrt_python import PythonSession
from detrx.types import ModelInfo


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> Gpu:
    found = Gpu(Scaled())
    for name, module in found.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    return found


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr("detrx.native.tensorrt_adapters", lambda: ())
    path = tmp_path / "model.engine"
    path.write_bytes(b"plan")
    info = ModelInfo("rt-n", ("disc", "ring"), (7, 3), (32, 64))
    sidecar = Sidecar(
        info, "10.3.0", "tensorrt", file_sha256(path), "", "fp16", (1, 2, 4), compute_capability="8.7"
    )
    sidecar_path(path).write_text(sidecar.to_json())
    return path


def pictures(images: int) -> np.ndarray:
    return np.random.default_rng(images).uniform(0, 9, (images, 3, 32, 64)).astype(np.float32)


def session_of(path: Path) -> PythonSession:
    return PythonSession(path, read_sidecar(path))


def given_back(gpu: Gpu) -> bool:
    return (gpu.alive, gpu.depth) == (0, 0)


def test_answers_for_any_number_of_images(gpu: Gpu, engine: Path) -> None:
    backend = open_backend(engine)
    assert backend.description == "tensorrt 10.3.0 on Orin, fp16"
    for images in (1, 4, 2, 2, 9):
        pixels = pictures(images)
        flat = 2 * pixels.reshape(images, -1)
        raw = backend.infer(pixels)
        np.testing.assert_array_equal(raw.scores, flat[:, :5])
        np.testing.assert_array_equal(raw.labels, flat[:, :5].astype(np.int64))
        np.testing.assert_array_equal(raw.boxes.reshape(images, -1), flat[:, :20])
    assert gpu.depth == 0
    backend.close()
    backend.close()
    assert given_back(gpu)


def test_eight_threads_see_what_one_sees(gpu: Gpu, engine: Path) -> None:
    backend = open_backend(engine)
    given = [pictures(images % 4 + 1) for images in range(32)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(backend.infer, given))
    for pixels, raw in zip(given, found):
        np.testing.assert_array_equal(
            raw.boxes.reshape(len(pixels), -1), 2 * pixels.reshape(len(pixels), -1)[:, :20]
        )


def test_closed_twice_and_run_afterwards(gpu: Gpu, engine: Path) -> None:
    session = session_of(engine)
    session.close()
    session.close()
    assert given_back(gpu)
    with pytest.raises(EngineError, match="has been closed"):
        session.run((pictures(1),), ())


def test_layers_and_their_times(gpu: Gpu, engine: Path) -> None:
    """The mean over the runs asked for, two layers of one name apart; runs before and after are not counted."""
    gpu.layers, gpu.times = '{"Layers": [1]}', [("a", 1.0), ("a", 0.5), ("b", 2.0)]
    backend = open_backend(engine)
    backend.infer(pictures(2))
    assert backend.layers_json() == gpu.layers
    assert backend.profile(4) == [("a", 1.0), ("a", 0.5), ("b", 2.0)]
    backend.infer(pictures(2))
    assert backend.profile(2) == [("a", 1.0), ("a", 0.5), ("b", 2.0)]
    backend.close()
    for ask in (backend.layers_json, lambda: backend.profile(1)):
        with pytest.raises(EngineError, match="closed"):
            ask()
    assert given_back(gpu)


@pytest.mark.parametrize("shape", [(5, 3, 32, 64), (1, 3, 64, 32)])
def test_pixels_that_do_not_fit(gpu: Gpu, engine: Path, shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"pixels must be at most \(4, 3, 32, 64\), got"):
        session_of(engine).run((np.zeros(shape, np.float32),), ())
    assert gpu.depth == 0


def test_a_plan_or_a_context_that_there_is_not(gpu: Gpu, engine: Path) -> None:
    gpu.missing = True
    with pytest.raises(EngineError, match=r"tensorrt 10\.3\.0 does not take .*detrx export"):
        session_of(engine)
    gpu.missing = False
    sidecar = read_sidecar(engine)
    engine.write_bytes(b"other")
    with pytest.raises(EngineError, match=r"does not take"):
        PythonSession(engine, sidecar)
    assert given_back(gpu)


def test_another_gpu(gpu: Gpu, engine: Path) -> None:
    with pytest.raises(EngineError, match=r"7\.2, and this one has 8\.7"):
        PythonSession(engine, replace(read_sidecar(engine), compute_capability="7.2"))
    assert given_back(gpu)


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("init", r"no GPU: init failed.*nvidia-smi"),
        ("retain_primary_context", "no GPU: .*nvidia-smi"),
        ("push", "no GPU: .*nvidia-smi"),
        ("mem_alloc", r"cannot be opened: mem_alloc failed.*detrx doctor"),
    ],
)
def test_what_the_driver_refuses_at_the_start(gpu: Gpu, engine: Path, function: str, words: str) -> None:
    gpu.fail = function
    with pytest.raises(DeviceError, match=words):
        session_of(engine)
    gpu.fail = ""
    assert given_back(gpu)


@pytest.mark.parametrize("function", ["push", "synchronize"])
def test_what_the_driver_refuses_in_a_run(gpu: Gpu, engine: Path, function: str) -> None:
    backend = open_backend(engine)
    gpu.fail = function
    with pytest.raises(DeviceError, match=rf"{function} failed: launch failure; see `detrx doctor`"):
        backend.infer(pictures(1))
    assert gpu.depth == 0
    gpu.fail = ""
    backend.infer(pictures(1))


def test_a_lost_gpu_is_closed_all_the_same(gpu: Gpu, engine: Path, caplog: pytest.LogCaptureFixture) -> None:
    session = session_of(engine)
    gpu.fail = "free"
    session.close()
    session.close()
    assert "does not take its memory back" in caplog.text
    assert gpu.depth == 0


@pytest.mark.parametrize(
    ("function", "words"),
    [
        ("set_input_shape", r"does not take the shape \(1, 3, 32, 64\)"),
        ("execute_async_v3", "does not run the engine"),
    ],
)
def test_what_tensorrt_refuses(gpu: Gpu, engine: Path, monkeypatch, function: str, words: str) -> None:
    session = session_of(engine)
    monkeypatch.setattr(gpu.network, function, lambda *given: False)
    with pytest.raises(EngineError, match=words):
        session.run((pictures(1),), ())
    assert gpu.depth == 0


def test_pycuda_without_a_driver(gpu: Gpu, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        if name == "pycuda.driver":
            raise ImportError("libcuda.so.1: cannot open shared object file: No such file or directory")
        return gpu.modules[name]

    monkeypatch.setattr("importlib.import_module", absent)
    with pytest.raises(DeviceError, match=r"no NVIDIA driver: libcuda.*`nvidia-smi` must list"):
        session_of(engine)


def test_no_pycuda(gpu: Gpu, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pycuda.driver", None)
    with pytest.raises(MissingBackendError, match=r"pip install pycuda\."):
        session_of(engine)


def test_the_wheel_with_the_bindings_alone_serves(
    gpu: Gpu, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = sidecar_path(engine).read_text()
    sidecar_path(engine).write_text(read.replace('"flavour": "tensorrt"', '"flavour": "rtx"'))
    monkeypatch.setitem(sys.modules, "tensorrt_rtx", None)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", None)
    with pytest.raises(
        MissingBackendError, match=r"pip install tensorrt-rtx-cu13-bindings==10\.3\.0 tensorrt-rtx"
    ):
        session_of(engine)
    monkeypatch.setitem(sys.modules, "tensorrt_rtx_bindings", gpu.modules["tensorrt"])
    session = session_of(engine)
    assert set(session.tensors) == {"pixels", "boxes", "scores", "labels"}
    session.close()
