"""A package that answers to the name of its own main function.

Python binds an imported subpackage to its parent, so that importing ``detrx.train`` would hide the function of that
name, which the public face promises; called, the package is the function.
"""

from __future__ import annotations

import importlib
import sys
from types import ModuleType
from typing import Any


class _CallablePackage(ModuleType):
    def __call__(self, *args: Any, **keywords: Any) -> Any:
        name = self.__name__.rpartition(".")[2]
        return getattr(importlib.import_module(f"{self.__name__}.run"), name)(*args, **keywords)


def make_callable(package: str) -> None:
    """Let ``a.b(...)`` mean ``a.b.run.b(...)``; the package calls this with its own ``__name__``."""
    sys.modules[package].__class__ = _CallablePackage
