"""The CUDA kernels compiled by the C++ compiler over an emulator of blocks and warps, for the tests of this folder."""

from __future__ import annotations

import fcntl
import hashlib
import importlib
import importlib.util
import os
import shutil
import subprocess
import sysconfig
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).resolve().parents[2]
EMULATION = Path(__file__).with_name("emulation")
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
# Jumps from one fiber's stack to another are what _FORTIFY_SOURCE takes for a fault.
FLAGS = ("-std=c++17", "-O1", "-U_FORTIFY_SOURCE", "-fPIC", "-fvisibility=hidden")


def sources() -> list[Path]:
    kernels = ROOT / "csrc" / "cuda"
    bindings = [ROOT / "csrc" / "bindings" / f"{name}.cpp" for name in ("bind_cuda", "bind_cuda_run")]
    device = (
        "frame_device.cpp",
        "dmabuf.cpp",
    )  # the emulation has its own of the one, and no need of the other
    hosts = [path for path in sorted(kernels.glob("*.cpp")) if path.name not in device]
    return [*sorted(kernels.glob("*.cu")), *hosts, *bindings, *sorted(EMULATION.glob("*.cpp"))]


def build(folder: Path) -> Path:
    """Compile what is not compiled yet, and link; two test processes do not do so at once."""
    pybind11 = importlib.import_module("pybind11")
    places = (EMULATION, ROOT / "csrc", pybind11.get_include(), sysconfig.get_path("include"))
    includes = [f"-I{place}" for place in places]

    def compile_one(source: Path) -> str:
        target = folder / f"{source.name}.o"
        command = [COMPILER, *FLAGS, *includes, "-x", "c++", "-c", str(source), "-o", str(target)]
        subprocess.run(command, check=True)
        return str(target)

    folder.mkdir(parents=True, exist_ok=True)
    module = folder / "emulated_cuda.so"
    with (folder / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not module.exists():
            with ThreadPoolExecutor(2) as pool:
                objects = list(pool.map(compile_one, sources()))
            half = folder / "half.so"
            subprocess.run([COMPILER, "-shared", *objects, "-o", str(half)], check=True)
            half.replace(module)
    return module


@pytest.fixture(scope="session")
def emulator() -> ModuleType:
    """The functions of detrx._C.cuda for tensors of the CPU, kept in build/ until a source changes."""
    if COMPILER is None or importlib.util.find_spec("pybind11") is None:
        pytest.skip("no C++ compiler or no pybind11 here")
    digest = hashlib.sha256(f"{FLAGS} {sysconfig.get_config_var('EXT_SUFFIX')}".encode())
    rooms = [*(ROOT / "csrc" / room for room in ("bindings", "core", "cuda")), EMULATION]
    for path in sorted(path for room in rooms for path in room.rglob("*.[ch]*")):
        if path.is_file():
            digest.update(path.read_bytes())
    module = build(ROOT / "build" / "cuda_emulation" / digest.hexdigest()[:16])
    spec = importlib.util.spec_from_file_location("emulated_cuda", module)
    assert spec is not None
    assert spec.loader is not None
    loaded = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(loaded)
    return loaded
