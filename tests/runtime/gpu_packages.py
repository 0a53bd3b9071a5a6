"""Stand-ins for the Python packages tensorrt and pycuda, over memory of this process.

They do as little as they can: what a benchmark measures over them is the least that the real ones could take.
"""

from __future__ import annotations

import ctypes
from dataclasses import dataclass, field
from types import ModuleType, SimpleNamespace
from typing import Any, Callable, Protocol

import numpy as np


class Network(Protocol):
    """What stands behind the stand-in for TensorRT."""

    tensors: dict[str, tuple[str, tuple[int, ...]]]

    def set_tensor_address(self, name: str, address: int) -> object: ...

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool: ...

    def execute_async_v3(self, stream: int) -> bool: ...


class Scaled:
    """A network that gives twice the first pixels of each picture."""

    def __init__(self) -> None:
        self.tensors = {
            "pixels": ("float32", (-1, 3, 32, 64)),
            "boxes": ("float32", (-1, 5, 4)),
            "scores": ("float32", (-1, 5)),
            "labels": ("int64", (-1, 5)),
        }
        self.addresses: dict[str, int] = {}
        self.images = 0

    def array(self, name: str) -> np.ndarray:
        dtype, shape = self.tensors[name]
        full = (self.images, *shape[1:])
        count = int(np.prod(full)) * np.dtype(dtype).itemsize
        memory = (ctypes.c_char * count).from_address(self.addresses[name])
        return np.frombuffer(memory, dtype).reshape(full)

    def set_tensor_address(self, name: str, address: int) -> None:
        self.addresses[name] = address

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        self.images = shape[0]
        return True

    def execute_async_v3(self, stream: int) -> bool:
        flat = 2 * self.array("pixels").reshape(self.images, -1)
        for name in ("boxes", "scores", "labels"):
            to = self.array(name)
            to[...] = flat[:, : to[0].size].reshape(to.shape)
        return True


@dataclass
class Gpu:
    """What the stand-ins share: who may fail, and what has not been given back."""

    network: Network
    fail: str = ""
    """The function of pycuda that raises."""
    depth: int = 0
    """Of the stack of contexts."""
    alive: int = 0
    """Contexts and memory."""
    missing: bool = False
    """There is no engine, or no execution context, to be had."""
    layers: str = '{"Layers": []}'
    """What the inspector says."""
    times: list[tuple[str, float]] = field(default_factory=list)
    """What a profiler is told in each run."""
    modules: dict[str, ModuleType] = field(init=False)
    """By name, for sys.modules."""

    def __post_init__(self) -> None:
        pycuda = ModuleType("pycuda")
        driver = pycuda.driver = driver_of(self)  # type: ignore[attr-defined]
        self.modules = {"tensorrt": tensorrt_of(self), "pycuda": pycuda, "pycuda.driver": driver}


def tensorrt_of(gpu: Gpu) -> Any:
    tensors = gpu.network.tensors

    class Profiled:
        """The network, and what a profiler of it is told."""

        profiler: Any = None

        def __getattr__(self, name: str) -> Any:
            return getattr(gpu.network, name)

        def execute_async_v3(self, stream: int) -> bool:
            for name, ms in gpu.times if self.profiler is not None else ():
                self.profiler.report_layer_time(name, ms)
            return gpu.network.execute_async_v3(stream)

    class Engine:
        num_io_tensors = len(tensors)

        def get_tensor_name(self, index: int) -> str:
            return list(tensors)[index]

        def get_tensor_dtype(self, name: str) -> str:
            return tensors[name][0]

        def get_tensor_shape(self, name: str) -> tuple[int, ...]:
            return tensors[name][1]

        def create_execution_context(self) -> Network | None:
            return None if gpu.missing else Profiled()

        def create_engine_inspector(self) -> SimpleNamespace:
            return SimpleNamespace(get_engine_information=lambda kind: gpu.layers if kind == "json" else "")

    class Logger:
        WARNING = 2

        def __init__(self, severity: int) -> None:
            assert severity == self.WARNING

    class Runtime:
        def __init__(self, logger: Logger) -> None:
            self.logger = logger

        def deserialize_cuda_engine(self, plan: bytes) -> Engine | None:
            assert gpu.depth == 1
            return None if plan == b"other" else Engine()

    module: Any = ModuleType("tensorrt")
    module.__version__ = "10.3.0"
    module.Logger, module.Runtime, module.nptype = Logger, Runtime, np.dtype
    module.IProfiler, module.gpu = object, gpu
    module.LayerInformationFormat = SimpleNamespace(JSON="json")
    return module


class DriverError(Exception):
    """pycuda.driver.Error"""


def may_fail(gpu: Gpu) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Makes a function raise while ``gpu.fail`` names it."""

    def wrap(function: Callable[..., Any]) -> Callable[..., Any]:
        def called(*given: Any) -> Any:
            if gpu.fail == function.__name__:
                raise DriverError(f"{function.__name__} failed: launch failure")
            return function(*given)

        return called

    return wrap


def driver_of(gpu: Gpu) -> Any:
    @may_fail(gpu)
    def init() -> None:
        pass

    @may_fail(gpu)
    def synchronize() -> None:
        pass

    module: Any = ModuleType("pycuda.driver")
    module.Error, module.init = DriverError, init
    module.Stream = lambda: SimpleNamespace(handle=0, synchronize=synchronize)
    add_contexts(gpu, module)
    add_memory(gpu, module)
    return module


def add_contexts(gpu: Gpu, module: Any) -> None:
    class Context:
        @may_fail(gpu)
        def push(self) -> None:
            gpu.depth += 1

        @staticmethod
        def pop() -> None:
            gpu.depth -= 1

        def detach(self) -> None:
            gpu.alive -= 1

    class Device:
        def __init__(self, index: int) -> None:
            assert index == 0

        def compute_capability(self) -> tuple[int, int]:
            return (8, 7)

        def name(self) -> str:
            return "Orin"

        @may_fail(gpu)
        def retain_primary_context(self) -> Context:
            gpu.alive += 1
            return Context()

    module.Context, module.Device = Context, Device


def add_memory(gpu: Gpu, module: Any) -> None:
    class Allocation:
        """Aligned as the GPU's."""

        def __init__(self, size: int) -> None:
            place = np.empty(size + 256, np.uint8)
            start = -place.ctypes.data % 256
            self.address = place.ctypes.data + start
            self.bytes = memoryview(place)[start : start + size]
            gpu.alive += 1

        def __int__(self) -> int:
            return self.address

        @may_fail(gpu)
        def free(self) -> None:
            assert gpu.depth > 0
            gpu.alive -= 1

    @may_fail(gpu)
    def mem_alloc(size: int) -> Allocation:
        return Allocation(size)

    def upload(to: Allocation, given: np.ndarray, stream: Any) -> None:
        to.bytes[: given.nbytes] = memoryview(given).cast("B")

    def download(to: np.ndarray, given: Allocation, stream: Any) -> None:
        memoryview(to).cast("B")[:] = given.bytes[: to.nbytes]

    module.mem_alloc, module.pagelocked_empty = mem_alloc, np.empty
    module.memcpy_htod_async, module.memcpy_dtoh_async = upload, download
