"""TensorRT engines: by the native adapter where it is built, else by the Python packages of TensorRT.

Both are sessions with the same face, so that all that is refused is refused here, once, and before TensorRT has seen
the file.
"""

from __future__ import annotations

import importlib.util
import logging
import os
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, List, Optional, Protocol, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx import native
from detrx.errors import ConfigError, DeviceError, EngineError, MissingBackendError
from detrx.runtime.sidecar import REBUILD, Sidecar, outputs_of, read_sidecar, require_fit, version_of
from detrx.runtime.tensorrt_plugins import required_plugins
from detrx.types import ModelInfo, Raw

log = logging.getLogger(__name__)

LIBRARY = "DETRX_TENSORRT_LIBRARY"
"""The environment variable that names the libnvinfer to open, instead of those that are found."""
_TYPES = {"labels": np.int64, "queries": np.int64}
EnqueueOne = Callable[[int, List[int], int], None]
"""Enqueues one picture: addresses of pixels and of outputs, the stream."""


class Session(Protocol):
    """An engine that is ready to run. Any thread may call it; one is let in at a time."""

    description: str
    """Library, version and device, for people."""
    tensors: Dict[str, Tuple[np.dtype[Any], Tuple[int, ...]]]
    """Type and shape of each input and output; -1 is the number of images."""

    def run(self, inputs: Tuple[NDArray[Any], ...], outputs: Tuple[NDArray[Any], ...]) -> None:
        """Fill the outputs, contiguous arrays in the order in which the session was told to give them."""
        ...

    def layers_json(self) -> str:
        """What TensorRT's inspector says of the engine."""
        ...

    def profile(self, runs: int) -> List[Tuple[str, float]]:
        """Name and mean milliseconds of each layer, over runs with the shape and the pixels of the last one."""
        ...

    def lend(self) -> Tuple[EnqueueOne, int]:
        """What enqueues one picture, and the stream on which ``run`` works: theirs is one memory."""
        ...

    def close(self) -> None: ...


class NativeSession:
    """``detrx._trt8``, ``_trt10`` or ``_trt11`` over the TensorRT that is installed."""

    def __init__(
        self, adapter: ModuleType, library: Any, path: Path, *, sidecar: Sidecar, device: Any = None
    ) -> None:
        """
        Args:
            adapter: the module.
            library: its ``Library``, of the version that the engine was built with.
            device: its memory and stream; None takes the first GPU.

        Raises:
            EngineError, DeviceError: as :func:`open_model` says.
        """
        device = device or adapter.cuda_device(0)
        require_fit(path, sidecar, capability=device.capability)
        plugins = required_plugins(path, sidecar)
        if plugins is not None:
            library.load_plugins(str(plugins))
        self._engine: Any = adapter.Engine(library, device, path.read_bytes())
        self.tensors = {
            tensor.name: (np.dtype(tensor.dtype), tuple(tensor.shape)) for tensor in self._engine.tensors
        }
        outputs = outputs_of(self.tensors, path)
        self._session: Any = adapter.Session(self._engine, ["pixels"], list(outputs))
        self.description = f"TensorRT {'.'.join(map(str, library.version))} on {device.name}"
        self.run = self._session.run
        for line in adapter.take_log().splitlines():
            log.warning("TensorRT: %s", line)

    def layers_json(self) -> str:
        return str(self._engine.layers_json())

    def profile(self, runs: int) -> List[Tuple[str, float]]:
        found: List[Tuple[str, float]] = self._session.profile(runs)
        return found

    def lend(self) -> Tuple[EnqueueOne, int]:
        return self._session.enqueue_one, self._session.stream

    def close(self) -> None:
        self._session = self._engine = None
        self.run = _closed


def _closed(inputs: Tuple[NDArray[Any], ...], outputs: Tuple[NDArray[Any], ...]) -> None:  # noqa: ARG001
    """What a session runs that another thread has closed in the meantime."""
    raise EngineError("[session] the engine has been closed; open it again")


class TensorRtBackend:
    """An engine whose graph ends in boxes, described by the file beside it."""

    def __init__(self, path: Path, sidecar: Sidecar, session: Session) -> None:
        least, _, most = sidecar.batch
        self.info = sidecar.info
        self.batch: Optional[int] = most if least == most else None
        self.description = f"{session.description}, {sidecar.precision}"
        self._least, self._most = least, most
        self._path = path
        self._session: Optional[Session] = session
        self._process = os.getpid()
        self._outputs = outputs_of(session.tensors, path)
        self._layout = [session.tensors[name] for name in self._outputs]
        self._pixels = session.tensors["pixels"][0]
        _check_shapes(session.tensors, sidecar, path)

    def infer(self, pixels: NDArray[np.float32]) -> Raw:
        """As :class:`detrx.runtime.backend.Backend`.

        Raises:
            EngineError: after ``close``, or where TensorRT fails.
            DeviceError: in a process forked from the one that opened it, or the GPU is lost.
            ValueError: pixels of another shape than the engine's.
        """
        session = self._opened()
        if len(pixels) <= self._most:
            return self._raw(self._run(session, pixels))
        groups = range(0, len(pixels), self._most)
        parts = [self._run(session, pixels[start : start + self._most]) for start in groups]
        return self._raw([np.concatenate(arrays) for arrays in zip(*parts)])

    def layers_json(self) -> str:
        """What TensorRT's inspector says of the engine, in its own JSON; raises as infer."""
        return self._opened().layers_json()

    def profile(self, runs: int) -> List[Tuple[str, float]]:
        """Name and mean milliseconds of each layer, over runs with the pixels of the last infer; raises as infer."""
        return self._opened().profile(runs)

    def _opened(self) -> Session:
        if self._session is None:
            raise EngineError(f"[TensorRtBackend] {self._path} has been closed; open it again")
        if os.getpid() != self._process:
            raise DeviceError(
                "[TensorRtBackend] a GPU cannot be used in a process forked from the one that opened it; "
                "open the engine in each process, or start them with multiprocessing's spawn"
            )
        return self._session

    def capturable(self, info: ModelInfo) -> SessionEngine:  # noqa: ARG002
        """For :mod:`detrx.runtime.frames`.

        Raises:
            ConfigError: the engine takes several pictures to a call.
        """
        if self._session is None or self._least > 1:
            raise ConfigError(f"[frames] {self._path} takes {self._least} pictures to a call, not 1")
        return SessionEngine(self._session, dict(zip(self._outputs, self._layout)))

    def _run(self, session: Session, pixels: NDArray[np.float32]) -> List[NDArray[Any]]:
        images = len(pixels)
        outputs = [np.empty((images, *shape[1:]), dtype) for dtype, shape in self._layout]
        session.run((np.ascontiguousarray(pixels, self._pixels),), tuple(outputs))
        return outputs

    def _raw(self, outputs: Sequence[NDArray[Any]]) -> Raw:
        found: Dict[str, Any] = {
            name: array.astype(_TYPES.get(name, np.float32), copy=False)
            for name, array in zip(self._outputs, outputs)
        }
        return Raw(**found)

    def close(self) -> None:
        session, self._session = self._session, None
        if session is not None and os.getpid() == self._process:
            session.close()


class SessionEngine:
    """A session's work on one picture, as :class:`detrx.runtime.frames.Engine` has it."""

    device = 0

    def __init__(self, session: Session, outputs: Dict[str, Tuple[np.dtype[Any], Tuple[int, ...]]]) -> None:
        self.answers = {name: (dtype, (1, *shape[1:])) for name, (dtype, shape) in outputs.items()}
        pixels = session.tensors["pixels"][0]
        if pixels not in (np.float32, np.float16):
            raise ConfigError(f"[frames] pixels must be float32 or float16, the engine takes {pixels}")
        self.half = pixels == np.float16
        # The native session lives as long as its method does.
        self.enqueue, self.stream = session.lend()

    def capturing(self) -> AbstractContextManager[None]:
        return nullcontext()


def open_model(path: Path, *, device: str, threads: Optional[int]) -> TensorRtBackend:  # noqa: ARG001
    """What :func:`detrx.runtime.backend.open_backend` calls for ``.engine`` and ``.plan``.

    Raises:
        ConfigError: ``device`` is "cpu".
        TrustError: no description lies beside the engine.
        EngineError: the engine is not the described one, was built with another TensorRT or for another GPU, or
            TensorRT refuses it.
        DeviceError: there is no NVIDIA driver or no GPU, or its memory does not suffice.
        MissingBackendError: there is no TensorRT.
    """
    if device == "cpu":
        raise ConfigError(
            f"[TensorRtBackend] {path} runs on an NVIDIA GPU only, device='cpu' was asked for; run the .onnx file"
        )
    sidecar = read_sidecar(path)
    return TensorRtBackend(path, sidecar, _open_session(path, sidecar))


def _open_session(path: Path, sidecar: Sidecar) -> Session:
    major = version_of(sidecar.version)[0]
    built = native.tensorrt_adapters()
    if sidecar.flavour == "rtx" or major not in built:
        from detrx.runtime.tensorrt_python import PythonSession

        log.info("no native adapter for %s %s, its Python package runs the engine", sidecar.flavour, major)
        return PythonSession(path, sidecar)
    adapter, library = _open_library(path, sidecar, [major, *(other for other in built if other != major)])
    return NativeSession(adapter, library, path, sidecar=sidecar)


def _open_library(path: Path, sidecar: Sidecar, majors: Sequence[int]) -> Tuple[ModuleType, Any]:
    """The TensorRT that the engine was built with; the other majors are opened to say which one is here instead."""
    reasons = []
    for major in majors:
        adapter = native.load_tensorrt(major)
        try:
            library = adapter.Library(library_names(major))
        except FileNotFoundError as error:
            reasons.append(str(error))
            continue
        require_fit(path, sidecar, version=library.version)
        return adapter, library
    said = "\n".join(reasons)
    raise MissingBackendError(
        f"TensorRT {sidecar.version}, with which {path} was built,",
        f"Install it (JetPack: sudo apt install tensorrt; elsewhere: pip install tensorrt=={sidecar.version}), or name "
        f"its libnvinfer.so in {LIBRARY}; see `detrx doctor`.\n{said}",
    )


def library_names(major: int) -> List[str]:
    """Where to look for libnvinfer, in this order: what the user named, the Python package, the system."""
    named = os.environ.get(LIBRARY)
    if named:
        return [named]
    name = f"libnvinfer.so.{major}"
    spec = importlib.util.find_spec("tensorrt_libs")
    folders = list(spec.submodule_search_locations or ()) if spec else []
    return [*(str(Path(folder) / name) for folder in folders), name]


def _check_shapes(tensors: Dict[str, Any], sidecar: Sidecar, path: Path) -> None:
    shape = tensors["pixels"][1]
    if tuple(shape[1:]) != (3, *sidecar.info.canvas):
        raise EngineError(
            f"[engine] {path} takes {shape} and its description says canvas {sidecar.info.canvas}; `{REBUILD}`"
        )
    for name in outputs_of(tensors, path):
        if any(side < 0 for side in tensors[name][1][1:]):
            raise EngineError(
                f"[engine] {path} gives {name} of the open shape {tensors[name][1]}, only the number of images may "
                f"be open; `{REBUILD}`"
            )
