"""What of NVIDIA's is on this machine. Nothing is loaded into this process: a broken library ends a child of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Dict, List, Tuple

from detrx.native import TENSORRT_MAJORS
from detrx.runtime.tensorrt import library_names

WHEELS = (
    "tensorrt", "tensorrt-cu13", "tensorrt-cu12", "tensorrt-cu11", "tensorrt-lean", "tensorrt-dispatch",
    "tensorrt-rtx", "tensorrt-rtx-cu13", "tensorrt-rtx-cu12", "pycuda", "onnxruntime-gpu", "nvidia-cuda-runtime",
    "nvidia-cuda-runtime-cu12",
)  # fmt: skip
HEADERS = ("/usr/include", "/usr/include/aarch64-linux-gnu", "/usr/include/x86_64-linux-gnu")
DRIVER = "DETRX_CUDA_DRIVER"
"""The environment variable that names the GPU driver's library where it is not the system's."""
SECONDS = 20
"""For one library; libnvinfer has some hundred megabytes to read."""
_ASK = """
import ctypes, sys
library = ctypes.CDLL(sys.argv[1])
value = ctypes.c_int()
if len(sys.argv) > 3:
    getattr(library, sys.argv[2])(ctypes.byref(value))
else:
    value.value = getattr(library, sys.argv[2])()
print(value.value)
"""


def ask_library(name: str, function: str, *, by_pointer: bool = False) -> Tuple[int, str]:
    """A number that a C function answers, asked in a child process.

    Args:
        name: path or soname.
        function: takes nothing, or with ``by_pointer`` the address of an int.

    Returns:
        The number and "", or -1 and why there is none.
    """
    command = [sys.executable, "-c", _ASK, name, function, *(["pointer"] if by_pointer else [])]
    try:
        done = subprocess.run(command, capture_output=True, timeout=SECONDS)
    except subprocess.TimeoutExpired:
        return -1, f"does not answer within {SECONDS} seconds"
    if done.returncode < 0:
        return -1, f"crashes (signal {-done.returncode})"
    if done.returncode:
        said = done.stderr.decode(errors="replace").strip().splitlines()
        return -1, said[-1] if said else "fails"
    return int(done.stdout), ""


def tensorrt_text(number: int) -> str:
    """8502 is TensorRT 8.5.2, 100300 is 10.3.0, and 10701, between the two, is TensorRT-RTX 1.7.1."""
    if number < 10000:
        return f"TensorRT {number // 1000}.{number // 100 % 10}.{number % 100}"
    name = "TensorRT-RTX" if number < 100000 else "TensorRT"
    return f"{name} {number // 10000}.{number // 100 % 100}.{number % 100}"


def tensorrt_libraries() -> Dict[str, str]:
    """Name of each libnvinfer that can be opened, or that is there and cannot, and what it says of itself."""
    found = {}
    for name in dict.fromkeys(name for major in TENSORRT_MAJORS for name in library_names(major)):
        number, why = ask_library(name, "getInferLibVersion")
        if number >= 0:
            found[name] = tensorrt_text(number)
        elif "No such file" not in why:
            found[name] = why
    return found


def cuda_driver() -> str:
    """The CUDA version that the driver is for, as "12.6", or why there is none."""
    library = os.environ.get(DRIVER, "libcuda.so.1")
    number, why = ask_library(library, "cuDriverGetVersion", by_pointer=True)
    return f"{number // 1000}.{number % 1000 // 10}" if number >= 0 else f"no driver: {why}"


def headers() -> Dict[str, str]:
    """Version of the TensorRT headers in each folder where there are some."""
    roots = [root for root in os.environ.get("DETRX_TENSORRT_ROOTS", "").split(";") if root]
    found = {}
    for folder in [*(Path(root) / "include" for root in roots), *map(Path, HEADERS)]:
        place = folder / "NvInferVersion.h"
        if place.is_file():
            text = place.read_text(encoding="utf-8", errors="replace")
            numbers = re.findall(
                r"#define (?:NV_TENSORRT|TRT)_(?:MAJOR|MINOR|PATCH)(?:_ENTERPRISE)? +(\d+)", text
            )
            found[str(folder)] = ".".join(numbers[:3])
    return found


def wheels() -> List[str]:
    """Name and version of each package of NVIDIA's that matters here."""
    found = []
    for name in WHEELS:
        try:
            found.append(f"{name} {metadata.version(name)}")
        except metadata.PackageNotFoundError:
            continue
    return found


def jetson(root: Path = Path("/")) -> str:
    """Board, L4T release and power mode of a Jetson; empty elsewhere.

    Args:
        root: where its files are looked for.
    """
    release = root / "etc/nv_tegra_release"
    if not release.is_file():
        return ""
    said = release.read_text(encoding="utf-8", errors="replace")
    numbers = re.search(r"R(\d+).*?REVISION: *([\d.]+)", said)
    parts = [f"L4T {numbers[1]}.{numbers[2]}" if numbers else said.splitlines()[0].strip("# ")]
    board = root / "proc/device-tree/model"
    if board.is_file():
        parts.insert(0, board.read_text(encoding="utf-8", errors="replace").strip("\0\n"))
    status = root / "var/lib/nvpmodel/status"
    if status.is_file():
        parts.append(f"power mode {status.read_text(encoding='utf-8', errors='replace').strip()}")
    return ", ".join(parts)
