"""Checkpoints of small models of both families, and a picture."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

FOLDER = str(Path(__file__).parent)
if FOLDER not in sys.path:
    sys.path.insert(0, FOLDER)

from small_models import make_detr, make_rt, saved  # noqa: E402


@pytest.fixture(scope="session")
def detr(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(make_detr(masked=True), tmp_path_factory.mktemp("detr"))


@pytest.fixture(scope="session")
def rt(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return saved(make_rt(), tmp_path_factory.mktemp("rt"))


@pytest.fixture
def photo() -> NDArray[np.uint8]:
    """Wider than the canvas is, so that there is padding below."""
    return np.random.default_rng(0).integers(0, 255, (50, 120, 3), np.uint8)
