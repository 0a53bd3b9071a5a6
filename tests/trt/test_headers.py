"""The runtime compiles against every version of the headers that is named, without a warning."""

from __future__ import annotations

import os
import subprocess
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("tensorrt-headers")
ROOT = Path(__file__).resolve().parents[2]
NAMED = [Path(root) for root in os.environ.get("DETRX_TENSORRT_ROOTS", "").split(";") if root]
FLAGS = ("-std=c++17", "-fsyntax-only", "-Wall", "-Wextra", "-Wconversion", "-Werror")


@pytest.mark.parametrize("root", NAMED, ids=lambda root: root.name)
def test_no_warning(root: Path, compiler: tuple[str, Path]) -> None:
    program, cuda = compiler
    places = (f"-I{ROOT / 'csrc'}", f"-isystem{root / 'include'}", f"-isystem{cuda}")

    def compile_one(source: Path) -> str:
        command = [program, *FLAGS, *places, str(source)]
        return subprocess.run(command, capture_output=True, text=True).stderr

    with ThreadPoolExecutor(2) as pool:
        said = list(pool.map(compile_one, sorted((ROOT / "csrc" / "trt").rglob("*.cpp"))))
    assert len(said) >= 7
    assert "".join(said) == ""
