"""TensorRT engines by the Python packages ``tensorrt`` or ``tensorrt_rtx`` and ``pycuda``.

Slower than the native adapter and the reference that it is tested against; the way for TensorRT-RTX, whose C++
interface is another.
"""

from __future__ import annotations

import importlib
import logging
import threading
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Callable, Dict, Iterator, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DeviceError, EngineError, MissingBackendError
from detrx.native import TENSORRT_BUILD
from detrx.runtime.sidecar import REBUILD, Sidecar, outputs_of, require_fit, version_of
from detrx.runtime.tensorrt_plugins import load_plugins, required_plugins

log = logging.getLogger(__name__)

PACKAGES = {"tensorrt": ("tensorrt",), "rtx": ("tensorrt_rtx", "tensorrt_rtx_bindings")}
"""The bindings of each, and of TensorRT-RTX what they are called where the package over them is not installed."""
WHEELS = {
    "tensorrt": ("tensorrt",),
    "tensorrt_rtx": ("tensorrt-rtx-cu13-bindings", "tensorrt-rtx-cu13-libs"),
}
ADVICE = "see `detrx doctor`; after a failure of the GPU itself only a new process can use it"


class PythonSession:
    """One context, one stream, and memory for the largest input, all made when it is opened."""

    def __init__(self, path: Path, sidecar: Sidecar) -> None:
        """
        Raises:
            MissingBackendError: a package is not installed.
            EngineError: the engine does not fit, or TensorRT refuses it.
            DeviceError: there is no GPU, or its memory does not suffice.
        """
        self._trt = _package(PACKAGES[sidecar.flavour], sidecar)
        version = version_of(self._trt.__version__)
        require_fit(path, sidecar, version=version, flavour=sidecar.flavour)
        self._cuda = _package(("pycuda.driver",), sidecar)
        self._lock = threading.Lock()
        self._run_context: Any = None
        self._stream: Any = None
        self._device: Dict[str, Any] = {}
        self._host: Dict[str, NDArray[Any]] = {}
        self._context_of_device = _primary_context(self._cuda)
        try:
            self._open(path, sidecar)
        except self._cuda.Error as error:
            self._release()
            raise DeviceError(f"[PythonSession] {path} cannot be opened: {error}; {ADVICE}") from error
        except BaseException:
            self._release()
            raise
        self._cuda.Context.pop()

    def _open(self, path: Path, sidecar: Sidecar) -> None:
        device = self._cuda.Device(0)
        require_fit(path, sidecar, capability="{}.{}".format(*device.compute_capability()))
        self.description = f"{self._trt.__name__} {self._trt.__version__} on {device.name()}"
        self._deserialise(path, required_plugins(path, sidecar))
        self._names = ("pixels", *outputs_of(self.tensors, path))
        self._allocate(sidecar.batch[2])

    def _deserialise(self, path: Path, plugins: Optional[Path]) -> None:
        trt = self._trt
        self._logger = trt.Logger(trt.Logger.WARNING)
        if plugins is not None:
            load_plugins(trt, self._logger, plugins)
        self._runtime = trt.Runtime(self._logger)
        self._engine = self._runtime.deserialize_cuda_engine(path.read_bytes())
        self._run_context = self._engine and self._engine.create_execution_context()
        if self._run_context is None:
            raise EngineError(f"[engine] {trt.__name__} {trt.__version__} does not take {path}; `{REBUILD}`")
        names = [self._engine.get_tensor_name(index) for index in range(self._engine.num_io_tensors)]
        self.tensors: Dict[str, Tuple[np.dtype[Any], Tuple[int, ...]]] = {
            name: (
                np.dtype(trt.nptype(self._engine.get_tensor_dtype(name))),
                tuple(self._engine.get_tensor_shape(name)),
            )
            for name in names
        }

    def _allocate(self, images: int) -> None:
        """Memory for so many images, and every address told to TensorRT once."""
        self._stream = self._cuda.Stream()
        self._shape: Tuple[int, ...] = ()
        for name, (dtype, shape) in self.tensors.items():
            full = tuple(images if side < 0 else side for side in shape)
            host = self._cuda.pagelocked_empty(full, dtype)
            self._host[name] = host
            self._device[name] = self._cuda.mem_alloc(max(host.nbytes, 1))
            self._run_context.set_tensor_address(name, int(self._device[name]))

    def run(self, inputs: Tuple[NDArray[Any], ...], outputs: Tuple[NDArray[Any], ...]) -> None:
        """Fill the outputs: scores, labels, boxes and what else the graph gives, in the order of Raw's fields.

        Raises:
            ValueError: more images than there is memory for, or another shape.
            EngineError: TensorRT fails, or the session has been closed.
            DeviceError: the GPU does not answer.
        """
        with self._on_device():
            self._run(inputs[0], outputs)

    def layers_json(self) -> str:
        """What TensorRT's inspector says of the engine; raises as run."""
        with self._on_device():
            inspector = self._engine.create_engine_inspector()
            inspector.execution_context = self._run_context
            return str(inspector.get_engine_information(self._trt.LayerInformationFormat.JSON))

    def profile(self, runs: int) -> List[Tuple[str, float]]:
        """Name and mean milliseconds of each layer, over runs with the pixels of the last one; raises as run."""
        times = _times(self._trt)
        with self._on_device():
            self._run_context.profiler = times  # until the session is closed, so that later runs are slower
            for _ in range(runs):
                times.place = 0
                self._execute(self._stream.handle)
                self._stream.synchronize()
            times.place = -1
        return [(name, ms / runs) for name, ms in times.rows]

    def lend(self) -> Tuple[Callable[[int, List[int], int], None], int]:
        """As :class:`detrx.runtime.tensorrt.Session`."""
        return self._enqueue_one, self._stream.handle

    def _enqueue_one(self, pixels: int, answers: List[int], stream: int) -> None:
        with self._on_device():
            context, own = self._run_context, self._device
            self._shape = ()  # run names its own again
            self._take_shape((1, *self._host["pixels"].shape[1:]))
            try:
                for name, address in zip(self._names, (pixels, *answers)):
                    context.set_tensor_address(name, address)
                self._execute(stream)
            finally:
                for name in self._names:
                    context.set_tensor_address(name, int(own[name]))

    @contextmanager
    def _on_device(self) -> Iterator[None]:
        """One thread at a time, with the device's context current, while the session is open."""
        with self._lock:
            if self._run_context is None:
                raise EngineError("[PythonSession] the engine has been closed; open it again")
            try:
                self._context_of_device.push()
                try:
                    yield
                finally:
                    self._cuda.Context.pop()
            except self._cuda.Error as error:
                raise DeviceError(f"[PythonSession] {error}; {ADVICE}") from error

    def _take_shape(self, shape: Tuple[int, ...]) -> None:
        if shape == self._shape:
            return
        if not self._run_context.set_input_shape("pixels", shape):
            raise EngineError(f"[PythonSession] {self._trt.__name__} does not take the shape {shape}")
        self._shape = shape

    def _execute(self, stream: int) -> None:
        if not self._run_context.execute_async_v3(stream):
            raise EngineError(
                f"[PythonSession] {self._trt.__name__} does not run the engine; its log says why"
            )

    def _run(self, pixels: NDArray[Any], outputs: Tuple[NDArray[Any], ...]) -> None:
        images = len(pixels)
        if pixels.shape[1:] != self._host["pixels"].shape[1:] or images > len(self._host["pixels"]):
            raise ValueError(
                f"[PythonSession] pixels must be at most {self._host['pixels'].shape}, got {pixels.shape}"
            )
        stream = self._stream
        self._take_shape(pixels.shape)
        staged = self._host["pixels"][:images]
        np.copyto(staged, pixels)
        self._cuda.memcpy_htod_async(self._device["pixels"], staged, stream)
        self._execute(stream.handle)
        places: List[NDArray[Any]] = [self._host[name][:images] for name in self._names[1:]]
        for name, place in zip(self._names[1:], places):
            self._cuda.memcpy_dtoh_async(place, self._device[name], stream)
        stream.synchronize()
        for place, output in zip(places, outputs):
            np.copyto(output, place)

    def close(self) -> None:
        """Give everything back in the context that it was made in: nothing is left for the interpreter's end.

        A second call does nothing.
        """
        with self._lock:
            if self._run_context is not None:
                self._context_of_device.push()
                self._release()

    def _release(self) -> None:
        """Called with the device's context current, and leaves it."""
        try:
            self._run_context = self._engine = self._runtime = self._stream = None
            for memory in self._device.values():
                memory.free()
            self._device, self._host = {}, {}
        except self._cuda.Error as error:
            log.warning("the GPU does not take its memory back: %s", error)
        finally:
            self._cuda.Context.pop()
            self._context_of_device.detach()


def _times(trt: Any) -> Any:
    class Times(trt.IProfiler):  # type: ignore[misc]  # the base is known at run time
        """Adds up the layers of each run by their place in it, for two layers may have one name."""

        def __init__(self) -> None:
            super().__init__()
            self.rows: List[Tuple[str, float]] = []
            self.place = -1
            """Of the next layer; -1 while nobody listens."""

        def report_layer_time(self, name: str, ms: float) -> None:
            if self.place < 0:
                return
            if self.place == len(self.rows):
                self.rows.append((name, 0.0))
            self.rows[self.place] = (name, self.rows[self.place][1] + ms)
            self.place += 1

    return Times()


def _package(names: Tuple[str, ...], sidecar: Sidecar) -> ModuleType:
    """The first of them that is installed."""
    errors = []
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError as error:
            errors.append(error)
            if "libcuda" in str(error):
                raise DeviceError(
                    f"[PythonSession] no NVIDIA driver: {error}; `nvidia-smi` must list a GPU"
                ) from error
    wheels = [f"{wheel}=={sidecar.version}" for wheel in WHEELS.get(names[0], ())] or ["pycuda"]
    other = "" if sidecar.flavour == "rtx" else f" Or use the native adapter. {TENSORRT_BUILD}."
    remedy = f"Type: pip install {' '.join(wheels)}.{other} ({errors[-1]})"
    raise MissingBackendError(names[0], remedy) from errors[-1]


def _primary_context(cuda: Any) -> Any:
    """The context that TensorRT, torch and the native code share; it is the current one afterwards."""
    try:
        cuda.init()
        context = cuda.Device(0).retain_primary_context()
        try:
            context.push()
        except cuda.Error:
            context.detach()
            raise
    except cuda.Error as error:
        raise DeviceError(f"[PythonSession] no GPU: {error}; `nvidia-smi` must list one") from error
    return context
