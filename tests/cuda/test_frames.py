"""A Detector whose frames are captured: all kinds of engine over the emulator, whose graphs run when somebody waits."""

from __future__ import annotations

import ctypes
import importlib.util
import logging
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from detrx import Detector, native
from detrx.camera_picture import CameraPicture
from detrx.errors import ConfigError, DeviceError
from detrx.live.pipeline import Pipeline
from detrx.live.source import open_source
from detrx.runtime.frames import Filled
from detrx.runtime.sidecar import Sidecar, file_sha256, sidecar_path
from detrx.runtime.torch import TOP, TorchBackend
from detrx.runtime.torch_engine import TorchEngine
from detrx.types import ModelInfo, Raw

INFO = ModelInfo("rt-n", ("disc", "ring"), (7, 3), (32, 64))
SIZES = [(18, 40), (64, 64), (1, 1), (33, 7), (18, 40), (200, 300)]
K = 5


def memory(address: int, dtype: Any, shape: tuple[int, ...]) -> np.ndarray:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * count).from_address(address), dtype).reshape(shape)


class Session:
    """Of a stand-in for detrx._trt10: gives twice the first pixels of each picture."""

    stream = 0
    fail = 0
    """The call of enqueue_one that fails."""

    def __init__(self, engine: Any, inputs: list[str], outputs: list[str]) -> None:
        self.kinds = [np.dtype(kind) for kind in ("float16", "int32", "float32")]
        self.shapes = [(1, K), (1, K), (1, K, 4)]
        self.calls = 0

    def run(self, inputs: tuple[np.ndarray, ...], outputs: tuple[np.ndarray, ...]) -> None:
        flat = 2 * inputs[0].reshape(len(inputs[0]), -1)
        for output in outputs:
            output[...] = flat[:, : output[0].size].reshape(output.shape)

    def enqueue_one(self, pixels: int, outputs: list[int], stream: int) -> None:
        self.calls += 1
        if self.calls == self.fail:
            raise RuntimeError("enqueueV3 refuses")
        places = zip(outputs, self.kinds, self.shapes)
        self.run(
            (memory(pixels, np.float32, (1, 3, *INFO.canvas)),), tuple(memory(*place) for place in places)
        )


def stand_in() -> Any:
    shapes = {"pixels": (3, *INFO.canvas), "scores": (K,), "labels": (K,), "boxes": (K, 4)}
    kinds = {"scores": "float16", "labels": "int32"}
    tensors = [
        SimpleNamespace(name=name, dtype=kinds.get(name, "float32"), shape=(-1, *shape))
        for name, shape in shapes.items()
    ]
    return SimpleNamespace(
        Library=lambda names: SimpleNamespace(version=(10, 3, 0)),
        Engine=lambda *given: SimpleNamespace(tensors=tensors),
        Session=Session,
        cuda_device=lambda index: SimpleNamespace(capability="8.7", name="Orin"),
        take_log=lambda: "",
    )


@pytest.fixture
def captured(emulator: ModuleType, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs over the emulator, which record what an engine enqueues and not the engine's call."""

    def make(engine: Any, **settings: Any) -> Any:
        return emulator.FrameGraph(lambda *given: emulator.enqueue(partial(engine, *given)), **settings)

    kernels = SimpleNamespace(
        FrameGraph=make, decode=emulator.decode, decode_workspace=emulator.decode_workspace
    )
    kinds = {"PixelFormat": emulator.PixelFormat, "Colours": emulator.Colours, "DeviceError": RuntimeError}
    built = SimpleNamespace(load=lambda: SimpleNamespace(cuda=kernels, **kinds))
    monkeypatch.setattr("detrx.runtime.frames.native", built)
    monkeypatch.setattr("detrx.runtime.torch_engine.native", built)
    monkeypatch.setattr(Session, "fail", 0)


def write_engine(folder: Path, plan: bytes = b"plan", **changes: Any) -> Path:
    path = folder / "model.engine"
    path.write_bytes(plan)
    sidecar = Sidecar(INFO, "10.3.0", "tensorrt", file_sha256(path), "", "fp16", (1, 2, 4))
    sidecar_path(path).write_text(replace(sidecar, **changes).to_json())
    return path


@pytest.fixture
def engine(captured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the native session, by a stand-in for its adapter."""
    adapter = stand_in()
    monkeypatch.setattr(native, "tensorrt_adapters", lambda: (10,))
    monkeypatch.setattr(native, "load_tensorrt", lambda major: adapter)
    return write_engine(tmp_path)


@pytest.fixture
def python_engine(captured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of the session over Python packages, by stand-ins for them."""
    source = Path(__file__).parents[1] / "runtime" / "gpu_packages.py"
    spec = importlib.util.spec_from_file_location("gpu_packages", source)
    assert spec is not None
    assert spec.loader is not None
    packages = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "gpu_packages", packages)  # dataclasses look there
    spec.loader.exec_module(packages)
    for name, module in packages.Gpu(packages.Scaled()).modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(native, "tensorrt_adapters", lambda: ())
    return write_engine(tmp_path)


@pytest.fixture
def weights(captured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Of PyTorch on the CPU, captured as if it were a GPU."""
    pytest.importorskip("timm")
    from detrx.models.checkpoint import save_checkpoint
    from detrx.models.zoo import MODELS, build

    torch.manual_seed(0)
    config = replace(MODELS["rt-n"], queries=20, decoder_layers=1)
    path = tmp_path / "best.safetensors"
    tensors = {f"model.{name}": tensor for name, tensor in build(config, classes=2).state_dict().items()}
    save_checkpoint(path, tensors, info=replace(INFO, canvas=(64, 96)), config=config)
    monkeypatch.setattr(
        TorchBackend,
        "capturable",
        lambda self, info: TorchEngine(self._model, info.canvas, device="cpu", top=TOP),
    )
    monkeypatch.setattr(
        TorchEngine, "_wrap", lambda self, *place: torch.from_numpy(memory(place[0], place[1], place[2]))
    )
    return path


def picture(seed: int, size: tuple[int, int] = (18, 40)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def raw_of(detector: Detector, image: Any) -> Raw:
    pixels, _ = detector.prepare([image])
    assert isinstance(pixels, Filled) == (detector._frames is not None)
    return detector.infer(pixels)


def assert_same(found: Raw, wanted: Raw, **close: float) -> None:
    np.testing.assert_array_equal(found.labels, wanted.labels)
    for name in ("scores", "boxes"):
        np.testing.assert_allclose(getattr(found, name), getattr(wanted, name), **close)


@pytest.mark.parametrize("kind", ["engine", "python_engine", "weights"])
def test_captured_frames_answer_as_those_step_by_step(kind: str, request: pytest.FixtureRequest) -> None:
    path = request.getfixturevalue(kind)
    close = {"rtol": 1e-4, "atol": 1e-5} if kind == "weights" else {"rtol": 0}
    images = [picture(seed, size) for seed, size in enumerate(SIZES)]
    with Detector(path, slots=0) as plain:
        wanted = [raw_of(plain, image) for image in images]
        together = plain.predict(images)
    with Detector(path, slots=2) as framed:
        for image, raw, objects in zip(images, wanted, together):
            assert_same(raw_of(framed, image), raw, **close)
            assert_same(raw_of(framed, CameraPicture(image[..., ::-1], "bgr")), raw, **close)
            (found,) = framed.predict([image])
            np.testing.assert_allclose(found.boxes, objects.boxes, rtol=1e-4, atol=1e-3)
        for one, other in zip(
            framed.predict(images), together
        ):  # a batch goes the plain way, in the same memory
            np.testing.assert_allclose(one.boxes, other.boxes, rtol=1e-4, atol=1e-3)
        assert_same(raw_of(framed, images[0]), wanted[0], **close)


@pytest.mark.needs("tensorrt-headers")
def test_the_native_session_captures(captured: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Over a TensorRT of ours, compiled from its headers."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[1] / "trt"))
    import building

    root = max(building.NAMED, key=building.version_of)
    version = building.version_of(root)
    pairing = building.pair(root, building.build_adapters())
    text = pairing.plan().decode().replace("3 4 6", "3 32 64")
    path = write_engine(tmp_path, text.encode(), version=".".join(map(str, version)))
    host = pairing.adapter.host_device()
    monkeypatch.setattr(native, "tensorrt_adapters", lambda: (version[0],))
    monkeypatch.setattr(native, "load_tensorrt", lambda major: pairing.adapter)
    monkeypatch.setattr(pairing.adapter, "cuda_device", lambda index: host)
    monkeypatch.setenv("DETRX_TENSORRT_LIBRARY", str(pairing.library))
    with Detector(path, slots=2) as framed, Detector(path, slots=0) as plain:
        for seed, size in enumerate(SIZES):
            assert_same(raw_of(framed, picture(seed, size)), raw_of(plain, picture(seed, size)), rtol=0)
            framed.predict([picture(1), picture(2)])


def test_a_stream_comes_in_order_with_as_many_lanes_as_slots(engine: Path) -> None:
    with Detector(engine, slots=3, threshold=0) as framed, Detector(engine, slots=0, threshold=0) as plain:
        assert framed.calls(most=16).at_once == 3
        source = open_source("test://shapes?frames=9", timeout=5)
        pipeline = Pipeline(framed, source)
        assert pipeline.lanes == 3
        found = list(pipeline)
        assert [one.frame.index for one in found] == list(range(9))
        for one in found:
            np.testing.assert_allclose(one.detections.boxes, plain.predict(one.frame.image).boxes, rtol=1e-5)


def test_where_no_slot_is_free_a_frame_runs_step_by_step(engine: Path) -> None:
    with Detector(engine, slots=2) as detector:
        held = [detector.prepare([picture(seed)])[0] for seed in range(3)]
        assert [isinstance(pixels, Filled) for pixels in held] == [True, True, False]
        found = [detector.infer(pixels) for pixels in held]
        for seed, raw in enumerate(found):
            assert_same(raw, raw_of(detector, picture(seed)), rtol=0)
        with pytest.raises(RuntimeError, match="runs once"):
            detector.infer(held[0])


def test_a_picture_that_is_forgotten_gives_its_slot_back(engine: Path) -> None:
    with Detector(engine, slots=1) as detector:
        for _ in range(3):
            assert isinstance(detector.prepare([picture(1)])[0], Filled)
        with pytest.raises(TypeError, match="must be uint8"):
            detector.prepare([np.zeros((4, 4, 3), np.float32)])
        assert isinstance(detector.prepare([picture(1)])[0], Filled)


def test_eight_threads_see_what_one_sees(engine: Path) -> None:
    with Detector(engine, slots=3) as detector, Detector(engine, slots=0) as plain:
        images = [picture(seed, SIZES[seed % len(SIZES)]) for seed in range(24)]
        with ThreadPoolExecutor(8) as pool:
            found = list(pool.map(lambda image: detector.infer(detector.prepare([image])[0]), images))
        for image, raw in zip(images, found):
            assert_same(raw, raw_of(plain, image), rtol=0)


def test_closing_while_frames_fly(engine: Path) -> None:
    detector = Detector(engine, slots=2)
    wanted = raw_of(detector, picture(1))
    flying = detector.prepare([picture(1)])[0]
    assert isinstance(flying, Filled)
    graph, slot = flying._frames._graph, flying._slot
    graph.submit(slot)
    waiting = detector.prepare([picture(2)])[0]
    detector.close()
    detector.close()
    answers = [np.empty(shape, kind) for kind, shape in flying._frames._engine.answers.values()]
    graph.take(slot, [array.reshape(-1).view(np.uint8) for array in answers])
    flying._slot = -1
    np.testing.assert_array_equal(answers[0].astype(np.float32), wanted.scores)
    with pytest.raises(DeviceError, match="it was closed"):
        waiting.run()
    with pytest.raises(DeviceError, match="it was closed"):
        detector.predict(picture(1))


@pytest.mark.parametrize(
    ("changes", "fail", "words"),
    [
        ({"batch": (2, 2, 2)}, 0, "takes 2 pictures to a call"),
        ({"info": replace(INFO, marked=True)}, 0, "shrinks its pictures smoothly"),
        ({}, 1, "enqueueV3 refuses"),
        ({}, 4, "enqueueV3 refuses"),
    ],
    ids=["batch", "marked", "first run", "second slot"],
)
def test_what_cannot_be_captured_runs_step_by_step_and_says_why(
    engine: Path, monkeypatch: pytest.MonkeyPatch, caplog, changes: dict, fail: int, words: str
) -> None:
    monkeypatch.setattr(Session, "fail", fail)
    if fail > 2:  # while it is recorded: by the call itself and not by what is enqueued
        monkeypatch.setattr(
            "detrx.runtime.frames._kernels", lambda: SimpleNamespace(FrameGraph=recording_nothing)
        )
    with caplog.at_level(logging.WARNING), Detector(
        write_engine(engine.parent, **changes), slots=2
    ) as detector:
        assert raw_of(detector, picture(1)).scores.shape[1] == K
    assert f"step by step, not as one captured graph: {'[frames] ' if not fail else ''}" in caplog.text
    assert words in caplog.text


def recording_nothing(engine: Any, *, answers: list[int], slots: int, **settings: Any) -> None:
    """Calls the engine as a frame graph does: twice a slot."""
    rooms = [np.zeros(size, np.uint8) for size in answers]
    pixels = np.zeros((3, *INFO.canvas), np.float32)
    for _ in range(2 * slots):
        engine(pixels.ctypes.data, [room.ctypes.data for room in rooms], 0)


def test_a_build_without_cuda_runs_step_by_step(engine: Path, monkeypatch, caplog) -> None:
    monkeypatch.setattr("detrx.runtime.frames.native", SimpleNamespace(load=SimpleNamespace))
    with caplog.at_level(logging.WARNING), Detector(engine) as detector:
        raw_of(detector, picture(1))
    assert "cmake.define.DETRX_CUDA=ON" in caplog.text


def test_slots_are_asked_for_by_number(engine: Path) -> None:
    for slots in (-1, 9):
        with pytest.raises(ConfigError, match="slots must be 0 to 8"):
            Detector(engine, slots=slots)
