"""The one door to the compiled extension."""

from __future__ import annotations

import importlib
import importlib.util
from types import ModuleType
from typing import Any, Callable, Dict, Optional, Tuple

from detrx.errors import MissingBackendError

_loaded: Optional[ModuleType] = None
TENSORRT_MAJORS = (11, 10, 8)
"""The TensorRTs that an adapter can be built for, newest first."""
TENSORRT_BUILD = (
    "Build it where TensorRT's headers are: "
    "pip install -C cmake.define.DETRX_TENSORRT_ROOTS=FOLDER_WITH_include .  # in the folder of detrx's source"
)
"""What to type for an adapter."""
_found: Dict[str, Optional[Callable[..., Any]]] = {}


def load() -> ModuleType:
    """Import ``detrx._C`` on first use.

    Raises:
        MissingBackendError: the extension was not built, or does not fit this Python.
    """
    global _loaded
    if _loaded is None:
        try:
            _loaded = importlib.import_module("detrx._C")
        except ImportError as error:
            raise MissingBackendError(
                "The native extension detrx._C", f"Rebuild it with `pip install -v .`. ({error})"
            ) from error
    return _loaded


def tensorrt_adapters() -> Tuple[int, ...]:
    """The majors of TensorRT whose adapter was built, newest first."""
    return tuple(
        major for major in TENSORRT_MAJORS if importlib.util.find_spec(f"detrx._trt{major}") is not None
    )


def load_tensorrt(major: int) -> ModuleType:
    """Import ``detrx._trt8``, ``_trt10`` or ``_trt11``. TensorRT itself is not touched.

    Raises:
        MissingBackendError: it was not built, or does not fit this Python.
    """
    try:
        return importlib.import_module(f"detrx._trt{major}")
    except ImportError as error:
        raise MissingBackendError(
            f"The adapter for TensorRT {major}", f"{TENSORRT_BUILD}. ({error})"
        ) from error


def find(name: str) -> Optional[Callable[..., Any]]:
    """A function of the extension where it is built, None where it is not, or is older than what asks.

    For work that NumPy does as well, if slower; who cannot do without calls :func:`load`.
    """
    if name not in _found:
        try:
            _found[name] = getattr(load(), name, None)
        except MissingBackendError:
            _found[name] = None
    return _found[name]
