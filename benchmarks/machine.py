"""On what machine, with what libraries and beside what else a figure was measured."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

LIBRARIES = ("detrx", "numpy", "onnxruntime", "pycocotools", "torch", "transformers")


def installed(library: str) -> str | None:
    try:
        return importlib.metadata.version(library)
    except importlib.metadata.PackageNotFoundError:
        return None


def processor() -> str:
    """The processor's name, which platform.processor() leaves empty on Linux."""
    listed = Path("/proc/cpuinfo")
    lines = listed.read_text(encoding="utf-8").splitlines() if listed.exists() else []
    named = [line.split(":", 1)[1].strip() for line in lines if line.startswith(("model name", "Model"))]
    return named[0] if named else platform.machine()


def describe() -> dict[str, Any]:
    """Processor, cores, versions, and the load: how many threads wanted a core during the last minute."""
    return {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "versions": {name: installed(name) for name in LIBRARIES},
        "threads": os.environ.get("OMP_NUM_THREADS", "not set"),
        "load": round(os.getloadavg()[0], 2),
    }
