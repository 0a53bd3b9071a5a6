"""The one door to the compiled extension."""

from __future__ import annotations

import importlib
from types import ModuleType
from typing import Optional

from detrx.errors import MissingBackendError

_loaded: Optional[ModuleType] = None


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
