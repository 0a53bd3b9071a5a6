"""Train a DETR on your own pictures, ship it to the edge, run it at camera speed."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, List

if TYPE_CHECKING:
    from detrx.detector import Detector
    from detrx.evaluation.run import evaluate
    from detrx.explain.run import explain
    from detrx.export.run import export
    from detrx.train.run import train

__version__ = "0.1.0"

# Each name is imported when it is first used, so that `import detrx` stays light.
_HOMES = {
    "Detector": "detrx.detector",
    "evaluate": "detrx.evaluation.run",
    "explain": "detrx.explain.run",
    "export": "detrx.export.run",
    "train": "detrx.train.run",
    "Detections": "detrx.types",
    "Frame": "detrx.types",
}

__all__ = ["Detector", "evaluate", "explain", "export", "train"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'detrx' has no attribute {name!r}")
    return getattr(importlib.import_module(_HOMES[name]), name)


def __dir__() -> List[str]:
    return sorted([*globals(), *_HOMES])
