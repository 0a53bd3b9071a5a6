"""What is refused before TensorRT has seen an engine, and how a session's answers become Raw: no TensorRT is needed."""

from __future__ import annotations

import os
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detrx import native
from detrx.errors import ConfigError, DeviceError, EngineError, MissingBackendError, TrustError
from detrx.runtime import tensorrt, tensorrt_plugins
from detrx.runtime.backend import open_backend
from detrx.runtime.sidecar import Sidecar, file_sha256, read_sidecar, sidecar_path
from detrx.runtime.tensorrt_python import PACKAGES
from detrx.types import ModelInfo

INFO = ModelInfo("rt-n", ("disc", "ring"), (7, 3), (32, 64))
K = 5


class Library:
    """Of the stand-in for an adapter."""

    version = (10, 3, 0)

    def __init__(self, names: list[str]) -> None:
        self.names = names
        self.plugins: list[str] = []
        if "absent" in names[0]:
            raise FileNotFoundError("Tried: absent")

    def load_plugins(self, path: str) -> None:
        self.plugins.append(path)


class Session:
    """Gives twice the first pixels of each picture."""

    def __init__(self, engine: Any, inputs: list[str], outputs: list[str]) -> None:
        assert inputs == ["pixels"]
        self.outputs = outputs

    def run(self, inputs: tuple[np.ndarray, ...], outputs: tuple[np.ndarray, ...]) -> None:
        (pixels,) = inputs
        flat = 2 * pixels.reshape(len(pixels), -1)
        assert len(pixels) <= 4
        for output in outputs:
            output[...] = flat[:, : output[0].size].reshape(output.shape)

    def profile(self, runs: int) -> list[tuple[str, float]]:
        return [("conv", 0.5)] * runs


def tensor(name: str, dtype: str, *shape: int) -> SimpleNamespace:
    return SimpleNamespace(name=name, dtype=dtype, shape=shape)


class Adapter:
    """Stands in for detrx._trt10."""

    Library, Session = Library, Session

    def __init__(self) -> None:
        self.deserialised = 0
        self.tensors = [
            tensor("pixels", "float32", -1, 3, 32, 64),
            tensor("boxes", "float32", -1, K, 4),
            tensor("scores", "float16", -1, K),
            tensor("labels", "int32", -1, K),
        ]

    def Engine(self, library: Library, device: Any, plan: bytes) -> SimpleNamespace:  # noqa: N802
        self.deserialised += 1
        self.plugins = list(library.plugins)
        return SimpleNamespace(tensors=self.tensors, layers_json=lambda: '{"Layers": []}')

    def cuda_device(self, index: int) -> SimpleNamespace:
        return SimpleNamespace(capability="8.7", name="Orin")

    def take_log(self) -> str:
        return ""


@pytest.fixture
def adapter(monkeypatch: pytest.MonkeyPatch) -> Adapter:
    found = Adapter()
    monkeypatch.setattr(native, "tensorrt_adapters", lambda: (10,))
    monkeypatch.setattr(native, "load_tensorrt", lambda major: found)
    monkeypatch.delenv(tensorrt.LIBRARY, raising=False)
    return found


@pytest.fixture
def engine(tmp_path: Path) -> Path:
    path = tmp_path / "model.engine"
    path.write_bytes(b"plan")
    describe(path)
    return path


def describe(path: Path, **changes: Any) -> None:
    plain = Sidecar(
        INFO, "10.3.0", "tensorrt", file_sha256(path), "ab", "fp16", (1, 2, 4), compute_capability="8.7"
    )
    sidecar_path(path).write_text(replace(plain, **changes).to_json())


def pictures(images: int) -> np.ndarray:
    return np.random.default_rng(images).uniform(0, 0.5, (images, 3, 32, 64)).astype(np.float32)


@pytest.mark.parametrize("images", [1, 3, 4, 9])
def test_answers_become_raw(adapter: Adapter, engine: Path, images: int) -> None:
    """More pictures than the engine takes go in groups; half precision and 32-bit labels come out as Raw has them."""
    backend = open_backend(engine)
    pixels = pictures(images)
    raw = backend.infer(pixels)
    assert (raw.scores.dtype, raw.labels.dtype, raw.boxes.dtype) == (np.float32, np.int64, np.float32)
    np.testing.assert_array_equal(raw.boxes, 2 * pixels.reshape(images, -1)[:, : K * 4].reshape(images, K, 4))
    assert backend.info == INFO
    assert backend.batch is None
    assert backend.description == "TensorRT 10.3.0 on Orin, fp16"


def test_layers_and_their_times(adapter: Adapter, engine: Path) -> None:
    backend = tensorrt.open_model(engine, device="auto", threads=None)
    assert backend.layers_json() == '{"Layers": []}'
    assert backend.profile(2) == [("conv", 0.5), ("conv", 0.5)]
    backend.close()
    with pytest.raises(EngineError, match="closed"):
        backend.layers_json()


def test_a_fixed_batch(adapter: Adapter, engine: Path) -> None:
    describe(engine, batch=(2, 2, 2))
    assert open_backend(engine).batch == 2


def test_eight_threads_see_what_one_sees(adapter: Adapter, engine: Path) -> None:
    backend = open_backend(engine)
    given = [pictures(images % 4 + 1) for images in range(32)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(backend.infer, given))
    for pixels, raw in zip(given, found):
        np.testing.assert_array_equal(raw.boxes, backend.infer(pixels).boxes)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"version": "10.3.1"}, r"built with tensorrt 10\.3\.1, and this machine has tensorrt 10\.3\.0"),
        ({"version": "8.5.2"}, r"built with tensorrt 8\.5\.2, and this machine has tensorrt 10\.3\.0"),
        ({"compute_capability": "7.2"}, r"compute capability 7\.2, and this one has 8\.7"),
        ({"engine_sha256": "00"}, "is not the file that"),
    ],
    ids=["patch", "major", "gpu", "hash"],
)
def test_another_machine(adapter: Adapter, engine: Path, monkeypatch, changes: dict, words: str) -> None:
    """Refused before the engine is deserialised, with both sides and what to type."""
    monkeypatch.setattr(
        native, "tensorrt_adapters", lambda: (10, 8) if "8.5.2" in changes.values() else (10,)
    )
    describe(engine, **changes)
    with pytest.raises(EngineError, match=f"{words}.*detrx export WEIGHTS --to engine"):
        open_backend(engine)
    assert adapter.deserialised == 0


def test_no_description(adapter: Adapter, engine: Path) -> None:
    sidecar_path(engine).unlink()
    with pytest.raises(TrustError):
        open_backend(engine)
    assert adapter.deserialised == 0


@pytest.mark.parametrize(
    ("position", "other", "words"),
    [
        (0, tensor("picture", "float32", -1, 3, 32, 64), "must take 'pixels'"),
        (2, tensor("logits", "float32", -1, K), "give scores, labels, boxes, its tensors are"),
        (0, tensor("pixels", "float32", -1, 3, 32, 32), "its description says canvas"),
        (1, tensor("boxes", "float32", -1, -1, 4), "of the open shape"),
    ],
    ids=["input", "output", "canvas", "open"],
)
def test_another_graph(adapter: Adapter, engine: Path, position: int, other: Any, words: str) -> None:
    adapter.tensors[position] = other
    with pytest.raises(EngineError, match=words):
        open_backend(engine)


def test_masks_and_queries_are_given_where_the_engine_has_them(adapter: Adapter, engine: Path) -> None:
    adapter.tensors += [tensor("queries", "int32", -1, K), tensor("masks", "float16", -1, K, 8, 16)]
    raw = open_backend(engine).infer(pictures(2))
    assert raw.masks is not None
    assert raw.queries is not None
    assert (raw.masks.shape, raw.masks.dtype, raw.queries.dtype) == ((2, K, 8, 16), np.float32, np.int64)


def test_the_cpu_runs_no_engine(engine: Path) -> None:
    with pytest.raises(ConfigError, match=r"runs on an NVIDIA GPU only.*\.onnx"):
        open_backend(engine, device="cpu")


def test_after_close(adapter: Adapter, engine: Path) -> None:
    backend = open_backend(engine)
    backend.close()
    backend.close()
    with pytest.raises(EngineError, match="has been closed; open it again"):
        backend.infer(pictures(1))


def test_after_a_fork(adapter: Adapter, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    backend = open_backend(engine)
    mine = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: mine + 1)
    with pytest.raises(DeviceError, match="spawn"):
        backend.infer(pictures(1))


def test_no_library(adapter: Adapter, engine: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(tensorrt.LIBRARY, "absent/libnvinfer.so")
    with pytest.raises(
        MissingBackendError, match=r"(?s)TensorRT 10\.3\.0.*apt install tensorrt.*Tried: absent"
    ):
        open_backend(engine)


def test_a_session_that_another_thread_closed(adapter: Adapter, engine: Path) -> None:
    session = tensorrt.NativeSession(adapter, Library(["here"]), engine, sidecar=read_sidecar(engine))
    session.close()
    session.close()
    with pytest.raises(EngineError, match="has been closed"):
        session.run((pictures(1),), ())


@pytest.mark.parametrize(
    ("flavour", "package"), [("tensorrt", "tensorrt"), ("rtx", "tensorrt-rtx-cu13-bindings")]
)
def test_neither_adapter_nor_package(engine: Path, monkeypatch, flavour: str, package: str) -> None:
    monkeypatch.setattr(native, "tensorrt_adapters", lambda: ())
    for name in PACKAGES[flavour]:
        monkeypatch.setitem(sys.modules, name, None)
    describe(engine, flavour=flavour)
    with pytest.raises(MissingBackendError, match=rf"pip install {package}==10\.3\.0"):
        open_backend(engine)


def test_where_the_library_is_looked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(tensorrt.LIBRARY, raising=False)
    assert tensorrt.library_names(8)[-1] == "libnvinfer.so.8"
    monkeypatch.setenv(tensorrt.LIBRARY, "mine.so")
    assert tensorrt.library_names(8) == ["mine.so"]


def test_plugins_are_loaded_before_the_engine(
    adapter: Adapter, engine: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """And only those with which it was built."""
    library = tmp_path / "libplugins.so"
    library.write_bytes(b"kernels")
    describe(engine, plugin_sha256=file_sha256(library))
    monkeypatch.setenv("DETRX_TENSORRT_PLUGINS", str(library))
    open_backend(engine)
    assert adapter.plugins == [str(library)]
    library.write_bytes(b"other kernels")
    with pytest.raises(
        EngineError, match=r"built with plugins of SHA-256 \w{12}, and .*libplugins.so has \w{12}"
    ):
        open_backend(engine)
    library.unlink()
    with pytest.raises(MissingBackendError, match=r"plugins for TensorRT 10.*DETRX_TENSORRT_PLUGINS \(now /"):
        open_backend(engine)
    monkeypatch.delenv("DETRX_TENSORRT_PLUGINS")
    monkeypatch.setattr("detrx.runtime.tensorrt_plugins.plugin_library", lambda major: None)
    with pytest.raises(MissingBackendError, match="now unset"):
        open_backend(engine)
    assert adapter.deserialised == 1


def test_an_engine_without_plugins_loads_none(
    adapter: Adapter, engine: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DETRX_TENSORRT_PLUGINS", "/nowhere.so")
    open_backend(engine)
    assert adapter.plugins == []


class Registry:
    """Of the stand-in for TensorRT's Python package, 8.6 and later."""

    def __init__(self, answer: object) -> None:
        self.answer, self.loaded = answer, []

    def load_library(self, path: str) -> object:
        self.loaded.append(path)
        return self.answer


@pytest.mark.parametrize("name", ["a", "b"])
def test_the_python_package_loads_a_library_once(name: str) -> None:
    registry, started = Registry(object()), []
    package: Any = SimpleNamespace(
        __name__=f"tensorrt_{name}",
        __version__="10.3.0",
        get_plugin_registry=lambda: registry,
        init_libnvinfer_plugins=lambda logger, namespace: started.append((logger, namespace)),
    )
    for _ in range(2):
        tensorrt_plugins.load_plugins(package, "log", Path("libplugins.so"))
    assert (registry.loaded, started) == (["libplugins.so"], [("log", "")])
    registry.answer = None
    with pytest.raises(EngineError, match=r"TensorRT 10.3.0 takes none of those in other.so"):
        tensorrt_plugins.load_plugins(package, "log", Path("other.so"))
    package.get_plugin_registry = lambda: SimpleNamespace()  # 8.5
    with pytest.raises(EngineError, match=r"none.so cannot be opened"):
        tensorrt_plugins.load_plugins(package, "log", Path("none.so"))
