"""What every benchmark shares: the machine is written into the results."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

import pytest

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


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """A number without its machine is no number; who ran it is nobody's business."""
    machine_info.pop("node", None)
    machine_info["processor"] = processor()
    machine_info["cores"] = len(os.sched_getaffinity(0))
    machine_info["versions"] = {name: installed(name) for name in LIBRARIES}
    machine_info["threads"] = os.environ.get("OMP_NUM_THREADS", "not set")


@pytest.fixture(autouse=True)
def two_threads_or_fewer() -> None:
    """Side by side means with the same threads: torch takes what OMP_NUM_THREADS says, else two."""
    if installed("torch"):
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
