"""The adapters as CMake builds them, and a TensorRT of ours for them to open.

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
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
FAKE = Path(__file__).with_name("fake")
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


@pytest.fixture(scope="session")
def kept() -> Path:
    """A folder that stays between runs, for what takes a minute to compile."""
    key = hashlib.sha256(repr((ROOT, sys.version, NAMED, SANITIZE)).encode()).hexdigest()[:12]
    folder = Path(os.environ.get("DETRX_TEST_CACHE", tempfile.gettempdir())) / f"detrx-trt-{key}"
    folder.mkdir(parents=True, exist_ok=True)
    return folder


@pytest.fixture(scope="session")
def adapters(kept: Path) -> dict[int, ModuleType]:
    """``detrx._trt8`` and so on, for the headers that were found. Their exceptions are those of detrx.errors."""
    cmake = shutil.which("cmake", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")
    pybind11 = pytest.importorskip("pybind11")
    assert cmake is not None, "the adapters are built by cmake: pip install cmake"
    build = kept / "build"
    targets = [f"_trt{major}" for major in sorted({version_of(root)[0] for root in NAMED})]
    with (kept / "lock").open("w") as lock:
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


@pytest.fixture(scope="session")
def compiler() -> tuple[str, Path]:
    """The C++ compiler and the folder of CUDA's headers."""
    return COMPILER, cuda_headers()


BuildFake = Callable[..., Path]


@pytest.fixture(scope="session")
def build_fake(kept: Path) -> BuildFake:
    """Compiles the fake against the headers in a folder; ``without`` leaves one of its functions out."""

    def build(root: Path, *, without: str = "") -> Path:
        version = ".".join(map(str, version_of(root)))
        folder = kept / f"fake-{version}{without}"
        folder.mkdir(exist_ok=True)
        library = folder / "libnvinfer.so"
        sources = [FAKE / "nvinfer.cpp", FAKE / "stubs.py"]
        if library.is_file() and library.stat().st_mtime > max(path.stat().st_mtime for path in sources):
            return library
        run([sys.executable, str(FAKE / "stubs.py"), str(root / "include"), str(folder / "stubs.h")])
        fresh = folder / "fresh.so"
        flags = ["-std=c++17", "-O1", "-w", "-fPIC", "-shared", "-fvisibility=hidden", "-pthread"]
        flags += [f"-fsanitize={SANITIZE}"] if SANITIZE else []
        flags += [f"-DFAKE_WITHOUT_{without}"] if without else []
        places = [
            f"-I{ROOT / 'csrc'}",
            f"-I{folder}",
            f"-isystem{root / 'include'}",
            f"-isystem{cuda_headers()}",
        ]
        run([COMPILER, *flags, *places, str(sources[0]), "-o", str(fresh)])
        fresh.replace(library)
        return library

    return build


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

    def open(self, *more: str) -> object:
        adapter = self.adapter
        return adapter.Engine(adapter.Library([str(self.library)]), adapter.host_device(), self.plan(*more))


@pytest.fixture(params=NAMED, ids=lambda root: root.name)
def pairing(
    request: pytest.FixtureRequest, adapters: dict[int, ModuleType], build_fake: BuildFake
) -> Pairing:
    """Each of the versions whose headers are here."""
    version = version_of(request.param)
    return Pairing(adapters[version[0]], build_fake(request.param), request.param, version)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The first test waits for the compiler."""
    if config.pluginmanager.hasplugin("timeout"):
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.timeout(1200))
