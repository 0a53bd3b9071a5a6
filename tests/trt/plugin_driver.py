"""The library with our plugins, its kernels compiled over the emulator of tests/cuda, and what TensorRT asks of it."""

from __future__ import annotations

import ctypes
import fcntl
import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import building
import numpy as np

EMULATION = building.ROOT / "tests" / "cuda" / "emulation"
KERNELS = ("attention", "decode", "deform_attn", "layer_norm")
INT32, INT64, FLOAT32, FLOAT64 = 5, 10, 1, 2
"""As PluginFieldType numbers them."""
TYPES = {"float32": 0, "float16": 1, "int8": 2, "int32": 3, "bfloat16": 7}
"""As DataType numbers them."""
LINEAR, CHW4 = 0, 3
"""As TensorFormat numbers them."""


def build_plugins(root: Path) -> Path:
    """The plugins against the headers in a folder, over kernels that compute on the CPU."""
    plugins = building.ROOT / "csrc" / "trt" / "plugins"
    rooms = [building.ROOT / "csrc" / room for room in ("core", "cuda", "trt")]
    files = [path for room in (*rooms, EMULATION) for path in sorted(room.rglob("*.[ch]*")) if path.is_file()]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:12]
    kernels, folder = building.kept() / f"kernels-{digest}", building.kept() / f"plugins-{root.name}-{digest}"
    library = folder / "libdetrx_plugins.so"
    with (building.kept() / "plugins.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not library.is_file():
            for place in (kernels, folder):
                place.mkdir(exist_ok=True)
            sources = [
                building.ROOT / "csrc" / "cuda" / f"{name}.{end}" for name in KERNELS for end in ("cu", "cpp")
            ]
            places = [f"-I{EMULATION}", f"-I{building.ROOT / 'csrc'}"]
            objects = [compile_object(source, kernels, places) for source in sources]
            places += [f"-isystem{root / 'include'}", f"-isystem{building.cuda_headers()}"]
            objects += [compile_object(source, folder, places) for source in sorted(plugins.glob("*.cpp"))]
            half = folder / "half.so"
            building.run([building.COMPILER, "-shared", *sanitized(), *map(str, objects), "-o", str(half)])
            half.replace(library)
    return library


def sanitized() -> list[str]:
    return [f"-fsanitize={building.SANITIZE}"] if building.SANITIZE else []


def compile_object(source: Path, folder: Path, places: Sequence[str]) -> Path:
    made = folder / f"{source.name}.o"
    if not made.is_file():
        # Jumps from one fiber's stack to another are what _FORTIFY_SOURCE takes for a fault.
        flags = ["-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-w", "-fPIC", "-fvisibility=hidden", *sanitized()]
        half = made.with_suffix(".half")
        command = [building.COMPILER, *flags, *places, "-x", "c++", "-c", str(source), "-o", str(half)]
        building.run(command)
        half.replace(made)
    return made


def build_driver(root: Path) -> Path:
    library = building.kept() / f"libplugin_driver-{root.name}.so"
    source = building.FAKE / "plugin_driver.cpp"
    if building.is_current(library, source):
        return library
    places = [f"-isystem{root / 'include'}", f"-isystem{building.cuda_headers()}"]
    return building.compile_library(source, library, *places)


class Port(ctypes.Structure):
    """A tensor as TensorRT describes it."""

    _fields_ = (
        ("type", ctypes.c_int32),
        ("format", ctypes.c_int32),
        ("rank", ctypes.c_int32),
        ("sides", ctypes.c_int64 * 8),
    )


def ports_of(*ports: tuple[str, Sequence[int]], layout: int = LINEAR) -> ctypes.Array[Port]:
    """Of (type, shape) each."""
    made = (Port * len(ports))()
    for port, (kind, shape) in zip(made, ports):
        port.type, port.format, port.rank = TYPES[kind], layout, len(shape)
        port.sides[: len(shape)] = list(shape)
    return made


class Plugin:
    """One plugin, asked through the driver."""

    def __init__(self, driver: Driver, kind: str, handle: int) -> None:
        self.driver, self.kind, self.handle = driver, kind, handle
        self.name = driver.call("name", ctypes.c_char_p)(self._self()).decode()

    def _self(self) -> ctypes.c_void_p:
        return ctypes.c_void_p(self.handle)

    def _another(self, function: str, *arguments: Any) -> Plugin:
        handle = self.driver.call(function, ctypes.c_void_p)(*arguments)
        assert handle, self.driver.said()
        return Plugin(self.driver, self.kind, handle)

    def clone(self) -> Plugin:
        return self._another("clone", self._self())

    def reopen(self) -> Plugin:
        """What comes out of a plan that this was written into."""
        return self._another("reopen", self.kind.encode(), self._self())

    def written(self) -> bytes:
        room = ctypes.create_string_buffer(4096)
        count = self.driver.call("write", ctypes.c_int)(self._self(), room, len(room))
        return room.raw[:count]

    def close(self) -> None:
        self.driver.call("destroy", None)(self._self())

    def fits(self, port: int, ports: ctypes.Array[Port], inputs: int) -> bool:
        ask = self.driver.call("fits", ctypes.c_bool)
        return bool(ask(self._self(), port, ports, inputs, len(ports) - inputs))

    def outputs(self, *inputs: tuple[str, Sequence[int]]) -> list[tuple[str, tuple[int, ...]]] | None:
        """Type and shape of each output; None where the plugin says that there are none."""
        found = (Port * 8)()
        ask = self.driver.call("outputs", ctypes.c_int)
        count = ask(self._self(), ports_of(*inputs), len(inputs), found)
        names = {number: name for name, number in TYPES.items()}
        return (
            None
            if count < 0
            else [(names[port.type], tuple(port.sides[: port.rank])) for port in found[:count]]
        )

    def configure(self, *inputs: tuple[str, Sequence[int]], outputs: int = 1) -> int:
        ask = self.driver.call("configure", ctypes.c_int)
        return int(ask(self._self(), ports_of(*inputs), len(inputs), (Port * outputs)(), outputs))

    def run(self, *arrays: np.ndarray[Any, Any], code: int = 0) -> list[np.ndarray[Any, Any]]:
        """What it computes; outputs hold rubbish before."""
        inputs = [(array.dtype.name, array.shape) for array in arrays]
        found = self.outputs(*inputs)
        assert found is not None, self.driver.said()
        answers = [np.full(shape, 77, kind) for kind, shape in found]
        ports = ports_of(*inputs)
        bytes_ = self.driver.call("workspace", ctypes.c_int64)(self._self(), ports, len(inputs))
        workspace = ctypes.create_string_buffer(max(1, bytes_))
        pointers = [
            (ctypes.c_void_p * len(some))(*(a.ctypes.data for a in some)) for some in (arrays, answers)
        ]
        run = self.driver.call("run", ctypes.c_int)
        got = run(self._self(), ports, len(inputs), ports_of(*found), len(found), *pointers, workspace)
        assert got == code, self.driver.said()
        return answers


class Driver:
    """The plugins of one version of TensorRT."""

    def __init__(self, root: Path) -> None:
        self.major = building.version_of(root)[0]
        self._library = ctypes.CDLL(str(build_driver(root)))
        self.plugins = build_plugins(root)
        self.count = self.call("open", ctypes.c_int)(str(self.plugins).encode())
        assert self.count >= 0, self.said()

    def call(self, name: str, answer: Any) -> Any:
        function = getattr(self._library, f"driver_{name}")
        function.restype = answer
        return function

    def said(self) -> str:
        """What plugins have logged since the last call."""
        return str(self.call("said", ctypes.c_char_p)().decode())

    def creators(self) -> list[list[str]]:
        return [line.split() for line in self.call("creators", ctypes.c_char_p)().decode().splitlines()]

    def create(self, kind: str, fields: dict[str, tuple[int, Any]]) -> Plugin | None:
        """Fields are (PluginFieldType, numbers) each; None where they are refused."""
        wide = {INT32: np.int32, INT64: np.int64, FLOAT32: np.float32, FLOAT64: np.float64}
        data = [np.atleast_1d(np.asarray(numbers, wide[type_])) for type_, numbers in fields.values()]
        count = len(fields)
        handle = self.call("create", ctypes.c_void_p)(
            kind.encode(),
            count,
            (ctypes.c_char_p * count)(*(name.encode() for name in fields)),
            (ctypes.c_int * count)(*(type_ for type_, _ in fields.values())),
            (ctypes.c_void_p * count)(*(array.ctypes.data for array in data)),
            (ctypes.c_int * count)(*(len(array) for array in data)),
        )
        return Plugin(self, kind, handle) if handle else None

    def read(self, kind: str, content: bytes) -> Plugin | None:
        handle = self.call("read", ctypes.c_void_p)(kind.encode(), content, len(content))
        return Plugin(self, kind, handle) if handle else None
