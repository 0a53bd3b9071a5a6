"""What `make xavier` compiles reads only what NVRTC has, and what is for tensor cores comes out as their instructions.

The first is seen without NVRTC, which knows few headers, and no vectors. The second wants it: `make xavier` fetches it.
"""

from __future__ import annotations

import os
import runpy
import shutil
import struct
import subprocess
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
KERNELS = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
NVRTC = ROOT / "build" / "xavier" / "nvrtc"


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


@pytest.fixture(scope="module")
def xavier() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "xavier.py"))


def cubin_of(*codes: int) -> bytes:
    """The least ELF file with a kernel of these instructions, and a section that is none."""
    names, kernel = b"\0.text.a\0.nv.info\0", b"".join(struct.pack("<QQ", code, 0x236) for code in codes)
    head = b"\x7fELF".ljust(18, b"\0") + struct.pack("<H", 190) + bytes(20)
    head += struct.pack("<QIHHHHHH", 64, 72, 64, 0, 0, 64, 3, 2)
    start = 64 + 3 * 64
    rows = ((1, 1, start, len(kernel)), (9, 1, start, len(kernel)), (0, 3, start + len(kernel), len(names)))
    table = b"".join(
        struct.pack("<IIQQQQ", name, kind, 0, 0, at, size).ljust(64, b"\0") for name, kind, at, size in rows
    )
    return head + table + kernel + names


def test_instructions_are_told_by_their_lowest_bits(xavier: dict[str, Any]) -> None:
    cubin = cubin_of(0x7236, 0x1237, 0x236, 0x2360, 0x435)
    assert xavier["inspect"](cubin) == (1, 72)
    assert xavier["tensor_instructions"](cubin) == (2, 1)
    assert xavier["tensor_instructions"](cubin_of(0x223)) == (0, 0)
    assert xavier["tensor_instructions"](b"") == (0, 0)


@pytest.mark.timeout(600)
@pytest.mark.skipif(not NVRTC.is_dir(), reason="no NVRTC here: make xavier")
def test_attention_on_xavier_is_made_of_tensor_instructions(xavier: dict[str, Any], tmp_path: Path) -> None:
    """A product of 16 x 16 x 16 is 16 of them on sm_72: 8 of scores and 8 of values for 64 keys, each written once."""
    compiler = xavier["Compiler"](xavier["load_nvrtc"](NVRTC))
    (source,) = (path for path in KERNELS if path.name == "attention.cu")
    assert xavier["compile_one"](compiler, source, tmp_path)
    assert xavier["tensor_instructions"]((tmp_path / "attention.cubin").read_bytes()) == (256, 0)
