"""What the tests of the native TensorRT runtime share; building.py makes it."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import pytest

sys.path.append(str(Path(__file__).parent))  # building.py
import building

BuildFake = Callable[..., Path]


@pytest.fixture(scope="session")
def adapters() -> dict[int, ModuleType]:
    return building.build_adapters()


@pytest.fixture(scope="session")
def compiler() -> tuple[str, Path]:
    """The C++ compiler and the folder of CUDA's headers."""
    return building.COMPILER, building.cuda_headers()


@pytest.fixture(scope="session")
def build_fake() -> BuildFake:
    return building.build_fake


@pytest.fixture(params=building.NAMED, ids=lambda root: root.name)
def pairing(request: pytest.FixtureRequest, adapters: dict[int, ModuleType]) -> building.Pairing:
    """Each of the versions whose headers are here."""
    return building.pair(request.param, adapters)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The first test waits for the compiler."""
    if config.pluginmanager.hasplugin("timeout"):
        for item in items:
            if item.path.is_relative_to(Path(__file__).parent):
                item.add_marker(pytest.mark.timeout(1200))
