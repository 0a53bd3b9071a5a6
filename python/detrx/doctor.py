"""What this machine has for detrx, what is missing, and what to type for it."""

from __future__ import annotations

import importlib
import os
import platform
import shutil
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Callable, List, Tuple

import detrx
from detrx import native
from detrx.bench import processor
from detrx.errors import pip_install
from detrx.images import opencv
from detrx.live.sink import why_no_window
from detrx.runtime import probe
from detrx.runtime.backend import BUNDLED
from detrx.runtime.tensorrt_plugins import BUILD as PLUGIN_BUILD
from detrx.runtime.tensorrt_plugins import PLUGINS, plugin_library

OPENCV_WHEELS = (
    "opencv-python-headless",
    "opencv-python",
    "opencv-contrib-python",
    "opencv-contrib-python-headless",
)
"""Each brings a cv2 of its own into the same folder."""


@dataclass(frozen=True)
class Finding:
    """One line of the examination."""

    what: str
    state: str
    """"ok", "missing" or "note": only what the runtime half cannot do without is missing."""
    found: str
    remedy: str = ""
    """What to type, where something is missing."""


def examine() -> List[Finding]:
    """Look at everything; a check that fails is a finding, never an exception."""
    return [_guarded(what, check) for what, check in CHECKS]


def _guarded(what: str, check: Callable[[], Tuple[str, str, str]]) -> Finding:
    try:
        return Finding(what, *check())
    # A broken installation may raise anything on import, and the examination must go on.
    except Exception as error:
        return Finding(what, "missing", f"{type(error).__name__}: {error}")


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _package(*names: str, state: str, remedy: str) -> Callable[[], Tuple[str, str, str]]:
    def check() -> Tuple[str, str, str]:
        for name in names:
            if _version(name):
                return "ok", f"{name} {_version(name)}", ""
        return state, "not installed", remedy

    return check


def _detrx() -> Tuple[str, str, str]:
    return "ok", f"{detrx.__version__} in {Path(detrx.__file__).parent}", ""


def _python() -> Tuple[str, str, str]:
    return "ok", f"{platform.python_version()} at {sys.executable}", ""


def _machine() -> Tuple[str, str, str]:
    memory = ""
    if hasattr(os, "sysconf") and "SC_PHYS_PAGES" in os.sysconf_names:
        memory = f", {os.sysconf('SC_PHYS_PAGES') * os.sysconf('SC_PAGE_SIZE') / 2**30:.1f} GiB"
    return "ok", f"{processor()}, {os.cpu_count()} cores{memory}, {platform.platform()}", ""


def _native() -> Tuple[str, str, str]:
    built = getattr(native.load(), "BUILT_WITH", ())
    found = f"detrx._C, built with {', '.join(map(str, built)) or 'the CPU alone'}"
    if "cuda" not in built and _gpu()[0] == "ok":
        remedy = "pip install -C cmake.define.DETRX_CUDA=ON .  # in the folder of detrx's source; needs nvcc"
        return "note", f"{found}, although there is a GPU: training on it is slower than it could be", remedy
    return "ok", found, ""


def _opencv() -> Tuple[str, str, str]:
    try:
        cv2 = opencv()
    except ImportError:
        return "missing", "not installed", pip_install("cpu")
    lines = [line.strip() for line in cv2.getBuildInformation().splitlines()]
    parts = [line for line in lines if line.startswith(("GUI:", "GStreamer:", "FFMPEG:"))]
    found = f"{cv2.__version__} ({', '.join(' '.join(part.split()) for part in parts)})"
    wheels = [name for name in OPENCV_WHEELS if _version(name)]
    if len(wheels) > 1:
        remedy = f"pip uninstall -y {' '.join(wheels)} && pip install {wheels[0]}"
        return "note", f"{found}; {' and '.join(wheels)} overwrite each other", remedy
    return "ok", found, ""


def _onnxruntime() -> Tuple[str, str, str]:
    try:
        ort = importlib.import_module("onnxruntime")
    except ImportError:
        return "missing", "not installed", pip_install("cpu")
    providers = [name.replace("ExecutionProvider", "") for name in ort.get_available_providers()]
    return "ok", f"{ort.__version__} with {', '.join(providers)}", ""


def _torch() -> Tuple[str, str, str]:
    if not _version("torch"):
        return (
            "note",
            "not installed; only training, export and .safetensors need it",
            pip_install("train"),
        )
    torch = importlib.import_module("torch")
    device = torch.cuda.get_device_name(0) if torch.cuda.is_available() else "no CUDA device"
    return "ok", f"{torch.__version__}, {device}", ""


def _gpu() -> Tuple[str, str, str]:
    board = probe.jetson()
    if board:
        return "ok", f"Jetson, {board}", ""
    driver = Path("/proc/driver/nvidia/version")
    if driver.is_file():
        return "ok", driver.read_text().splitlines()[0], ""
    return "note", "no NVIDIA driver; detrx runs on the CPU", ""


def _cuda() -> Tuple[str, str, str]:
    found = probe.cuda_driver()
    compiler = shutil.which("nvcc", path=f"{os.environ.get('PATH', '')}{os.pathsep}/usr/local/cuda/bin")
    text = f"driver for CUDA {found}" if found[0].isdigit() else found
    return "ok" if found[0].isdigit() else "note", f"{text}; {compiler or 'no nvcc'}", ""


def _tensorrt() -> Tuple[str, str, str]:
    found = [f"{what} ({name})" for name, what in probe.tensorrt_libraries().items()]
    found += probe.wheels()
    if any(text.lower().startswith("tensorrt") for text in found):
        return "ok", ", ".join(found), ""
    remedy = "sudo apt install tensorrt" if probe.jetson() else "pip install tensorrt"
    return "note", "; ".join(["none that opens, and only .engine files need it", *found]), remedy


def _adapters() -> Tuple[str, str, str]:
    places = [f"headers {version} in {folder}" for folder, version in probe.headers().items()]
    built = [f"TensorRT {major}" for major in native.tensorrt_adapters()]
    text = ", ".join(
        [f"built for {' and '.join(built)}" if built else "none built", *(places or ["no headers"])]
    )
    if built:
        return "ok", text, ""
    remedy = (
        "pip install -C cmake.define.DETRX_TENSORRT=ON .  # in the folder of detrx's source"
        if places
        else "apt install libnvinfer-dev, or name a folder of headers in DETRX_TENSORRT_ROOTS; then pip install ."
    )
    return "note", f"{text}; engines run by TensorRT's Python package, slower", remedy


def _plugins() -> Tuple[str, str, str]:
    """Only engines of the plugin graph need them, and only TensorRT 8.5 needs that graph."""
    named = os.environ.get(PLUGINS)
    if named and not Path(named).is_file():
        return "missing", f"{named}, which {PLUGINS} names, is not there", f"unset {PLUGINS}"
    if named:
        return "ok", f"{named}, as {PLUGINS} says", ""
    found = {major: plugin_library(major) for major in native.TENSORRT_MAJORS}
    built = [f"TensorRT {major} ({path.name})" for major, path in found.items() if path is not None]
    if built:
        return "ok", f"built for {' and '.join(built)}", ""
    return "note", "none built; only engines of `export --graph plugin` need them", PLUGIN_BUILD


def _cameras() -> Tuple[str, str, str]:
    found = sorted(Path("/dev").glob("video*"))
    if not found:
        return "note", "none; `test://shapes` stands in for one", ""
    shut = [path for path in found if not os.access(path, os.R_OK | os.W_OK)]
    if shut:
        return "missing", f"no permission for {', '.join(map(str, shut))}", "sudo usermod -aG video $USER"
    return "ok", ", ".join(map(str, found)), ""


def _display() -> Tuple[str, str, str]:
    reason = why_no_window()
    if reason is None:
        return "ok", "windows can be opened", ""
    return "note", reason, "detrx webcam 0 --no-window"


def _bundled() -> Tuple[str, str, str]:
    path = BUNDLED["demo"]
    if not path.is_file():
        return (
            "missing",
            f"{path} is not there",
            "pip install --force-reinstall --no-deps .  # in the folder of detrx's source",
        )
    return "ok", f"{path.name}, {path.stat().st_size / 2**20:.1f} MiB", ""


def _disk() -> Tuple[str, str, str]:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if not os.access(Path.cwd(), os.W_OK):
        return "note", f"{Path.cwd()} cannot be written to", "cd to a folder of your own, or pass --out"
    return "ok", f"{free:.1f} GiB free here", ""


CHECKS: Tuple[Tuple[str, Callable[[], Tuple[str, str, str]]], ...] = (
    ("detrx", _detrx),
    ("Python", _python),
    ("machine", _machine),
    ("GPU", _gpu),
    ("native extension", _native),
    ("numpy", _package("numpy", state="missing", remedy="pip install numpy")),
    ("OpenCV", _opencv),
    ("ONNX Runtime", _onnxruntime),
    ("PyTorch", _torch),
    ("CUDA", _cuda),
    ("TensorRT", _tensorrt),
    ("TensorRT adapters", _adapters),
    ("TensorRT plugins", _plugins),
    ("COCO numbers", _package("faster-coco-eval", state="note", remedy=pip_install("cpu"))),
    ("timm", _package("timm", state="note", remedy=pip_install("train"))),
    ("bundled model", _bundled),
    ("cameras", _cameras),
    ("display", _display),
    ("disk", _disk),
)
