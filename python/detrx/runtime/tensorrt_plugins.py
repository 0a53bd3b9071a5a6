"""The library with our TensorRT plugins: where it lies, and whether it is the one that an engine was built with."""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from types import ModuleType
from typing import Any, Optional, Set, Tuple

from detrx.errors import EngineError, MissingBackendError
from detrx.runtime.sidecar import REBUILD, Sidecar, file_sha256, version_of

PLUGINS = "DETRX_TENSORRT_PLUGINS"
"""The environment variable that names the library, instead of the one that was installed with detrx."""
BUILD = (
    "Build it where nvcc and TensorRT's headers are: pip install -C cmake.define.DETRX_CUDA=ON "
    "-C cmake.define.DETRX_TENSORRT_ROOTS=FOLDER_WITH_include .  # in the folder of detrx's source"
)
_lock = threading.Lock()
_loaded: Set[Tuple[str, str]] = set()


def plugin_library(major: int) -> Optional[Path]:
    """The library for a TensorRT of that major: the one that the user names, else the installed one."""
    named = os.environ.get(PLUGINS)
    if named:
        return Path(named)
    installed = Path(__file__).parents[1] / f"libdetrx_plugins_trt{major}.so"
    return installed if installed.is_file() else None


def required_plugins(path: Path, sidecar: Sidecar) -> Optional[Path]:
    """What must be loaded before an engine is opened; None where it uses no plugins of ours.

    Raises:
        MissingBackendError: it uses some, and they are not here.
        EngineError: the library here is not the one that the engine was built with.
    """
    if sidecar.plugin_sha256 is None:
        return None
    major = version_of(sidecar.version)[0]
    library = plugin_library(major)
    if library is None or not library.is_file():
        raise MissingBackendError(
            f"The library with detrx's plugins for TensorRT {major}, which {path} uses,",
            f"{BUILD}; or name it in {PLUGINS} (now {os.environ.get(PLUGINS) or 'unset'})",
        )
    found = file_sha256(library)
    if found != sidecar.plugin_sha256:
        raise EngineError(
            f"[engine] {path} was built with plugins of SHA-256 {sidecar.plugin_sha256[:12]}, and {library} has "
            f"{found[:12]}; name the right library in {PLUGINS}, or build the engine again: `{REBUILD}`"
        )
    return library


def load_plugins(trt: ModuleType, logger: Any, library: Path) -> None:
    """Make the plugins known to TensorRT's Python package ``trt``, once in a process.

    Raises:
        EngineError: TensorRT does not take the library.
    """
    key = trt.__name__, str(library)
    with _lock:
        if key in _loaded:
            return
        trt.init_libnvinfer_plugins(logger, "")
        registry = trt.get_plugin_registry()
        try:
            # 8.5 has no such function: there the library registers itself when it is opened.
            load = getattr(registry, "load_library", ctypes.CDLL)
            taken = load(str(library))
        except OSError as error:
            raise EngineError(f"[plugins] {library} cannot be opened: {error}; {BUILD}") from error
        if taken is None:
            raise EngineError(
                f"[plugins] TensorRT {trt.__version__} takes none of those in {library}; {BUILD}"
            )
        _loaded.add(key)
