"""What every benchmark shares: the machine is written into the results."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from machine import describe, installed


def pytest_benchmark_update_machine_info(machine_info: dict[str, Any]) -> None:
    """A number without its machine is no number; who ran it is nobody's business."""
    machine_info.pop("node", None)
    machine_info.update(describe())


@pytest.fixture(autouse=True)
def two_threads_or_fewer() -> None:
    """Side by side means with the same threads: torch takes what OMP_NUM_THREADS says, else two."""
    if installed("torch"):
        import torch

        torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "2")))
