"""The adapters as CMake builds them, and a TensorRT and a GPU driver of ours for them to open.

Both need TensorRT's headers: DETRX_TENSORRT_ROOTS names folders that hold include/NvInfer.h, separated by semicolons.
"""

from __future__ import annotations

import fcntl
import hashlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).parent
FAKE = FOLDER / "fake"
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++") or "c++"
SANITIZE = os.environ.get("DETRX_SANITIZE", "")
"""As the build has it; the sanitizers' libraries must then have been loaded into Python (nox -s native_trt)."""
NAMED = [Path(root) for root in os.environ.get("DETRX_TENSORRT_ROOTS", "").split(";") if root]


def version_of(root: Path) -> tuple[int, int, int]:
    """The version of the headers in a folder."""
    text = (root / "include" / "NvInferVersion.h").read_text()

    def number(name: str) -> int:
        value = re.search(rf"#define {name} (\w+)", text)
        assert value is not None
        return int(value[1]) if value[1].isdigit() else number(value[1])

    return number("NV_TENSORRT_MAJOR"), number("NV_TENSORRT_MINOR"), number("NV_TENSORRT_PATCH")


def as_number(version: tuple[int, int, int]) -> int:
    """What getInferLibVersion of this version answers."""
    step = 10000 if version[0] >= 10 else 1000
    return version[0] * step + version[1] * 100 + version[2]


def cuda_headers() -> Path:
    """The folder of cuda_runtime_api.h, which TensorRT's headers include."""
    nvcc = shutil.which("nvcc")
    homes = [
        os.environ.get("CUDA_HOME"),
        Path(nvcc).resolve().parents[1] if nvcc else None,
        "/usr/local/cuda",
    ]
    folders = [Path(home) / "include" for home in homes if home]
    wheels = [Path(path) for path in sys.path]
    folders += [
        folder / "nvidia" / name / "include" for folder in wheels for name in ("cu13", "cuda_runtime")
    ]
    for folder in folders:
        if (folder / "cuda_runtime_api.h").is_file():
            return folder
    raise pytest.UsageError("no cuda_runtime_api.h: set CUDA_HOME, or pip install nvidia-cuda-runtime")


def run(command: list[str]) -> None:
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"


def kept() -> Path:
    """A folder that stays between runs, for what takes a minute to compile."""
    key = hashlib.sha256(repr((ROOT, sys.version, NAMED, SANITIZE)).encode()).hexdigest()[:12]
    folder = Path(os.environ.get("DETRX_TEST_CACHE", tempfile.gettempdir())) / f"detrx-trt-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def build_adapters() -> dict[int, ModuleType]:
    """``detrx._trt8`` and so on, for the headers that were found. Their exceptions are those of detrx.errors."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    pybind11 = pytest.importorskip("pybind11")
    assert cmake is not None, "the adapters are built by cmake: pip install cmake"
    build = kept() / "build"
    targets = [f"_trt{major}" for major in sorted({version_of(root)[0] for root in NAMED})]
    with (kept() / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (build / "CMakeCache.txt").is_file():
            settings = {
                "DETRX_CUDA": "OFF", "DETRX_TENSORRT": "ON", "DETRX_TENSORRT_ROOTS": ";".join(map(str, NAMED)),
                "DETRX_CUDA_HEADERS": cuda_headers(), "DETRX_WERROR": "ON", "DETRX_SANITIZE": SANITIZE,
                "Python_EXECUTABLE": sys.executable, "pybind11_DIR": pybind11.get_cmake_dir(),
            }  # fmt: skip
            defines = [f"-D{name}={value}" for name, value in settings.items()]
            run([cmake, "-S", str(ROOT), "-B", str(build), *defines])
        run([cmake, "--build", str(build), "--target", *targets])
    return {int(name[4:]): load(name, next(build.glob(f"csrc/bindings/{name}.*so"))) for name in targets}


def load(name: str, path: Path) -> ModuleType:
    spec = importlib.util.spec_from_file_location(f"detrx.{name}", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def is_current(library: Path, *sources: Path) -> bool:
    return library.is_file() and library.stat().st_mtime > max(path.stat().st_mtime for path in sources)


def compile_library(source: Path, library: Path, *more: str) -> Path:
    """A shared library of one file, sanitized as the adapters are."""
    flags = ["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"]
    flags += [f"-fsanitize={SANITIZE}"] if SANITIZE else []
    fresh = library.with_suffix(".fresh")
    run([COMPILER, *flags, *more, str(source), "-o", str(fresh)])
    fresh.replace(library)
    return library


def build_fake(root: Path, *, without: str = "") -> Path:
    """Compiles the TensorRT of ours against the headers in a folder; ``without`` leaves one of its functions out."""
    version = ".".join(map(str, version_of(root)))
    folder = kept() / f"fake-{version}{without}"
    folder.mkdir(exist_ok=True)
    library = folder / "libnvinfer.so"
    source, stubs = FAKE / "nvinfer.cpp", FAKE / "stubs.py"
    if is_current(library, source, stubs):
        return library
    run([sys.executable, str(stubs), str(root / "include"), str(folder / "stubs.h")])
    places = [f"-I{ROOT / 'csrc'}", f"-I{folder}", f"-isystem{root / 'include'}", f"-isystem{cuda_headers()}"]
    return compile_library(source, library, *places, *([f"-DFAKE_WITHOUT_{without}"] if without else []))


def build_library(name: str, *, without: str = "") -> Path:
    """Compiles one of the fakes that need no headers; ``without`` leaves one of its functions out."""
    library = kept() / f"lib{name}{without}.so"
    source = FAKE / f"{name}.cpp"
    if is_current(library, source):
        return library
    return compile_library(source, library, *([f"-DFAKE_WITHOUT_{without}"] if without else []))


def build_driver(*, without: str = "") -> Path:
    """Compiles the GPU driver of ours."""
    return build_library("cuda", without=without)


@dataclass
class Pairing:
    """An adapter, built against the oldest headers of its major, and a library of some version of that major."""

    adapter: ModuleType
    library: Path
    root: Path
    """Of its headers."""
    version: tuple[int, int, int]

    def plan(self, *more: str, version: int | None = None) -> bytes:
        """A plan for 1 to 4 pictures of (3, 4, 6), with scores, labels and boxes."""
        integer = 3 if self.version[0] == 8 else 8
        lines = [
            f"fake {as_number(self.version) if version is None else version}",
            "in pixels 0  4 -1 3 4 6  4 1 3 4 6  4 2 3 4 6  4 4 3 4 6",
            "out scores 0  2 -1 5",
            "out boxes 0  3 -1 5 4",
            f"out labels {integer}  2 -1 5",
            *("scale 2", "memory 512", *more),
        ]
        return "\n".join(lines).encode()

    def open(self, *more: str, device: object = None) -> object:
        adapter = self.adapter
        device = device or adapter.host_device()
        return adapter.Engine(adapter.Library([str(self.library)]), device, self.plan(*more))


def pair(root: Path, adapters: dict[int, ModuleType]) -> Pairing:
    version = version_of(root)
    return Pairing(adapters[version[0]], build_fake(root), root, version)
