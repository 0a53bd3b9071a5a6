"""What tests and benchmarks share: the needs() marker and the shared data folder."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
from functools import lru_cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent
PROMISED = set(os.environ.get("DETRX_REQUIRE", "").split(",")) - {""}


def find_shared_data() -> Path:
    return Path(os.environ.get("DETRX_SHARED_DATA", ROOT.parent / "shared" / "data")).resolve()


def find_python38() -> Path | None:
    """A Python 3.8: DETRX_PYTHON38, else one on the PATH, else pyenv's."""
    named = os.environ.get("DETRX_PYTHON38") or shutil.which("python3.8")
    pyenv = Path(os.environ.get("PYENV_ROOT", Path.home() / ".pyenv")) / "versions"
    found = [Path(named)] if named else sorted(pyenv.glob("3.8*/bin/python"))
    return found[-1] if found and found[-1].exists() else None


def find_tensorrt_roots() -> list[Path]:
    """Folders with the include/NvInfer.h of one TensorRT each: DETRX_TENSORRT_ROOTS, as CMake reads it."""
    named = os.environ.get("DETRX_TENSORRT_ROOTS", "").split(";")
    return [Path(root) for root in named if root and (Path(root) / "include" / "NvInferRuntime.h").is_file()]


def has_cuda() -> bool:
    if importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()


def has_network() -> bool:
    if os.environ.get("DETRX_OFFLINE"):
        return False
    try:
        socket.create_connection(("pypi.org", 443), timeout=3).close()
    except OSError:
        return False
    return True


def has_browser() -> bool:
    names = ("chromium", "chromium-browser", "google-chrome")
    return any(map(shutil.which, names)) and shutil.which("chromedriver") is not None


PROBES = {
    "browser": has_browser,
    "cuda": has_cuda,
    "data": lambda: find_shared_data().is_dir(),
    "network": has_network,
    "python38": lambda: find_python38() is not None,
    "tensorrt": lambda: importlib.util.find_spec("tensorrt") is not None,
    "tensorrt-headers": lambda: bool(find_tensorrt_roots()),
    "tensorrt-lean": lambda: importlib.util.find_spec("tensorrt_lean_libs") is not None,
    "tensorrt_rtx": lambda: importlib.util.find_spec("tensorrt_rtx_libs") is not None,
}


@lru_cache(maxsize=None)
def is_here(thing: str) -> bool:
    return PROBES[thing]()


def pytest_configure() -> None:
    unknown = PROMISED - set(PROBES)
    if unknown:
        raise pytest.UsageError(f"[DETRX_REQUIRE] must name some of {sorted(PROBES)}, got {sorted(unknown)}")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--only-needs", choices=sorted(PROBES), help="run only the tests that need this")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Leave files, and folders with their conftest, unread where no such test is: a GPU machine lacks their imports."""
    thing = config.getoption("--only-needs")
    if thing is None:
        return None
    files = [collection_path] if collection_path.is_file() else collection_path.rglob("*.py")
    mark = f'needs("{thing}")'
    found = any(file.suffix == ".py" and mark in file.read_text(encoding="utf-8") for file in files)
    return None if found else True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    thing = config.getoption("--only-needs")
    if thing is None:
        return
    chosen = [item for item in items if any(mark.args == (thing,) for mark in item.iter_markers("needs"))]
    config.hook.pytest_deselected(items=[item for item in items if item not in chosen])
    items[:] = chosen


def pytest_runtest_setup(item: pytest.Item) -> None:
    for mark in item.iter_markers("needs"):
        (thing,) = mark.args
        if thing not in PROBES:
            pytest.fail(f"[needs] must name one of {sorted(PROBES)}, got {thing!r}", pytrace=False)
        if is_here(thing):
            continue
        if thing in PROMISED:
            pytest.fail(f"DETRX_REQUIRE promises {thing}, and it is not here", pytrace=False)
        pytest.skip(f"no {thing} here")


@pytest.fixture
def shared_data() -> Path:
    """The folder of real pictures and expected numbers; its tests are marked needs("data")."""
    folder = find_shared_data()
    if not folder.is_dir():
        pytest.skip("no shared data here: put it at ../shared/data or name it in DETRX_SHARED_DATA")
    return folder


@pytest.fixture
def python38() -> Path:
    """The oldest Python that the runtime half must run on; its tests are marked needs("python38")."""
    found = find_python38()
    if found is None:
        pytest.skip("no Python 3.8 here: name one in DETRX_PYTHON38")
    return found
