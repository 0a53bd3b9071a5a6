"""Compile the CUDA kernels for sm_72 (Jetson Xavier) with NVRTC 11.8, of the last CUDA that its JetPack can have.

    python scripts/xavier.py [folder]

The folder (build/xavier unless named) takes NVRTC, installed from PyPI by this Python's pip on first use, and one cubin
for each csrc/cuda/*.cu. Needs neither nvcc nor a GPU. Leaves with 1 where a file does not compile, or to no sm_72 code,
or where tensor cores are asked for and no instruction of theirs came out.
"""

from __future__ import annotations

import ctypes
import struct
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NVRTC = "nvidia-cuda-nvrtc-cu11==11.8.89"
OPTIONS = ("-arch=sm_72", "--std=c++17", "-default-device", f"-I{ROOT / 'csrc'}")

# NVRTC brings no C++ library. What the kernels use of it, over the names that NVRTC has built in.
_MATH = "atan ceil cos exp expm1 fabs floor fmax fmin isfinite log log1p pow round sin sqrt"
_WHOLE = {8: "signed char", 16: "short", 32: "int", 64: "long"}
_TYPES = "".join(
    f"typedef {kind} int{bits}_t; typedef unsigned {kind.removeprefix('signed ')} uint{bits}_t; "
    for bits, kind in _WHOLE.items()
)
_NAMES = "".join(f"using ::int{bits}_t; using ::uint{bits}_t; " for bits in _WHOLE)
HEADERS = {
    "cstdint": f"#pragma once\n{_TYPES} namespace std {{ {_NAMES} typedef unsigned long uintptr_t; }}",
    "cstddef": "#pragma once\nnamespace std { typedef unsigned long size_t; }",
    "cstring": "#pragma once\nnamespace std { using ::memcpy; }",
    "cmath": f"#pragma once\nnamespace std {{ {' '.join(f'using ::{name};' for name in _MATH.split())} }}",
    "type_traits": "#pragma once\nnamespace std { template <class A, class B> constexpr bool is_same_v = false; "
    "template <class A> constexpr bool is_same_v<A, A> = true; "
    "template <class A> struct decay { typedef A type; }; "
    "template <class A> using decay_t = typename decay<A>::type; }",
    "limits": "#pragma once\nnamespace std { template <class T> struct numeric_limits; }",
}


def main(folder: Path) -> int:
    """Compile all kernels; answers how many files failed."""
    sources = sorted((ROOT / "csrc" / "cuda").glob("*.cu"))
    if not sources:
        print(f"[xavier] there must be kernels in {ROOT / 'csrc' / 'cuda'}, found none", file=sys.stderr)
        return 1
    compiler = Compiler(load_nvrtc(folder / "nvrtc"))
    print(f"NVRTC {compiler.version()}, {' '.join(OPTIONS[:3])}")
    failed = [source.name for source in sources if not compile_one(compiler, source, folder)]
    print(f"{len(sources) - len(failed)} of {len(sources)} files compile for sm_72")
    return 1 if failed else 0


def compile_one(compiler: Compiler, source: Path, folder: Path) -> bool:
    """Compile one file into folder and say what came of it."""
    start = time.perf_counter()
    cubin, log = compiler.compile(source)
    seconds = time.perf_counter() - start
    kernels, machine = inspect(cubin)
    hmma, imma = tensor_instructions(cubin)
    wants_tensor_cores = '#include "cuda/wmma.h"' in source.read_text(encoding="utf-8")
    good = bool(kernels) and machine == 72 and (hmma > 0 or not wants_tensor_cores)
    said = f", {hmma} HMMA and {imma} IMMA instructions" if wants_tensor_cores or hmma or imma else ""
    print(f"{source.name}: {kernels} kernels for sm_{machine}, {len(cubin)} bytes, {seconds:.1f} s{said}")
    if not good:
        print(log, file=sys.stderr)
    (folder / f"{source.stem}.cubin").write_bytes(cubin)
    return good


def load_nvrtc(folder: Path) -> ctypes.CDLL:
    """NVRTC as a library, installed into folder where it is not there yet."""
    pattern = "nvidia/cuda_nvrtc/lib/libnvrtc.so.11*"
    if not list(folder.glob(pattern)):
        pip = [sys.executable, "-m", "pip", "install", "--disable-pip-version-check", "-q", "--no-deps"]
        subprocess.run([*pip, "--target", str(folder), NVRTC], check=True)
    (library,) = folder.glob(pattern)
    return ctypes.CDLL(str(library))


def inspect(cubin: bytes) -> tuple[int, int]:
    """How many kernels an ELF file of NVIDIA's holds, and for which architecture; 0, 0 where it is none."""
    if cubin[:4] != b"\x7fELF" or struct.unpack_from("<H", cubin, 18)[0] != 190:  # EM_CUDA
        return 0, 0
    (flags,) = struct.unpack_from("<I", cubin, 48)
    return len(kernels_in(cubin)), flags & 0xFF


def kernels_in(cubin: bytes) -> list[bytes]:
    """The machine code of each kernel in an ELF file of NVIDIA's."""
    (sections,) = struct.unpack_from("<Q", cubin, 40)
    _, _, _, size, count, names_at = struct.unpack_from("<HHHHHH", cubin, 52)
    headers = [struct.unpack_from("<IIQQQQ", cubin, sections + i * size) for i in range(count)]
    names = headers[names_at][4]
    return [
        cubin[start : start + length]
        for name, _, _, _, start, length in headers
        if cubin.startswith(b".text.", names + name)
    ]


def tensor_instructions(cubin: bytes) -> tuple[int, int]:
    """How many instructions of tensor cores there are: HMMA (float16) and IMMA (8-bit integers).

    An instruction of sm_70 and later has 16 bytes, of which the lowest 12 bits say what it does.
    """
    if inspect(cubin) == (0, 0):
        return 0, 0
    codes = [
        code & 0xFFF
        for kernel in kernels_in(cubin)
        for (code,) in struct.iter_unpack("<H14x", kernel[: len(kernel) // 16 * 16])
    ]
    return codes.count(0x236), codes.count(0x237)


class Compiler:
    """The few functions of nvrtc.h that are needed."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def version(self) -> str:
        major, minor = ctypes.c_int(), ctypes.c_int()
        self._library.nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
        return f"{major.value}.{minor.value}"

    def compile(self, source: Path) -> tuple[bytes, str]:
        """The machine code, empty where the source does not compile, and what the compiler says."""
        program = ctypes.c_void_p()
        text = source.read_bytes()
        self._library.nvrtcCreateProgram(
            ctypes.byref(program), text, source.name.encode(), len(HEADERS), *map(_words, _columns(HEADERS))
        )
        code = self._library.nvrtcCompileProgram(program, len(OPTIONS), _words(OPTIONS))
        log = self._read(program, "ProgramLog").rstrip(b"\0").decode()
        return self._read(program, "CUBIN") if code == 0 else b"", log

    def _read(self, program: ctypes.c_void_p, what: str) -> bytes:
        size = ctypes.c_size_t()
        getattr(self._library, f"nvrtcGet{what}Size")(program, ctypes.byref(size))
        buffer = ctypes.create_string_buffer(size.value)
        getattr(self._library, f"nvrtcGet{what}")(program, buffer)
        return buffer.raw


def _columns(headers: dict[str, str]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The texts and the names, as nvrtcCreateProgram wants them."""
    return tuple(headers.values()), tuple(headers)


def _words(words: tuple[str, ...]) -> ctypes.Array[ctypes.c_char_p]:
    return (ctypes.c_char_p * len(words))(*(word.encode() for word in words))


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]) if len(sys.argv) > 1 else ROOT / "build" / "xavier"))
