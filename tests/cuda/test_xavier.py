"""What `make xavier` compiles reads only what NVRTC has, seen without NVRTC: it knows few headers, and no vectors."""

from __future__ import annotations

import os
import runpy
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
KERNELS = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))


@pytest.mark.skipif(COMPILER is None, reason="no C++ compiler here")
@pytest.mark.parametrize("kernel", KERNELS, ids=lambda path: path.name)
def test_kernels_include_what_nvrtc_has(kernel, tmp_path):
    for header in runpy.run_path(str(ROOT / "scripts" / "xavier.py"))["HEADERS"]:
        (tmp_path / header).touch()
    flags = ("-E", "-P", "-nostdinc", "-D__CUDACC__", "-D__CUDACC_RTC__", "-x", "c++")
    places = (f"-I{tmp_path}", f"-I{ROOT / 'csrc'}")
    done = subprocess.run([COMPILER, *flags, *places, str(kernel)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "vector_size" not in done.stdout
    assert "__builtin_" not in done.stdout
