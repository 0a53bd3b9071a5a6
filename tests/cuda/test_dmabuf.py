"""Camera buffers mapped by an EGL and a GPU driver of ours: what is asked of them, kept, refused and given back."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
FOLDER = Path(__file__).with_name("dmabuf")
COMPILER = os.environ.get("CXX") or shutil.which("c++") or shutil.which("g++")
NV12 = "3057=640 3056=480 3271=842094158 3272=5 3273=0 3274=640 3275=5 3276=307200 3277=640"
RGBA = "3057=320 3056=480 3271=875708993 3272=5 3273=0 3274=320"
YUYV = "3057=320 3056=480 3271=1448695129 3272=6 3273=0 3274=320"


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    if COMPILER is None:
        pytest.skip("no C++ compiler here")
    folder = tmp_path_factory.mktemp("dmabuf")
    flags = ["-std=c++17", "-O0", "-Wall", "-Wextra", "-Wconversion", "-Werror"]
    places = [f"-I{FOLDER.parent / 'emulation'}", f"-I{ROOT / 'csrc'}"]
    for library in ("libEGL.so.1", "libcuda.so.1"):
        fake = [str(FOLDER / "fake.cpp"), "-o", str(folder / library)]
        subprocess.run([COMPILER, "-std=c++17", "-O0", "-w", "-fPIC", "-shared", *fake], check=True)
    sources = [str(FOLDER / "main.cpp"), str(ROOT / "csrc" / "cuda" / "dmabuf.cpp")]
    subprocess.run([COMPILER, *flags, *places, *sources, "-ldl", "-o", str(folder / "main")], check=True)
    return folder / "main"


def lines_of(program: Path, fake: str = "", libraries: bool = True) -> list[str]:
    environment = {**os.environ, "DETRX_FAKE_DMABUF": fake}
    environment["LD_LIBRARY_PATH"] = str(program.parent) if libraries else ""
    done = subprocess.run([str(program)], env=environment, capture_output=True, text=True, check=True)
    return [line.strip() for line in done.stdout.splitlines()]


def test_pitched_buffers_are_mapped_once_and_given_back(program: Path) -> None:
    mapped = "plane 5000 chroma 5001 pitch 640 640 textures 0 0 of 480 x 640"
    assert lines_of(program) == [
        NV12, mapped, mapped, "resource gone", "image gone",
        RGBA, "plane 5000 chroma 0 pitch 320 0 textures 0 0 of 480 x 320",
        YUYV, "plane 6000 chroma 0 pitch 320 0 textures 0 0 of 480 x 320",
        "refused: [dmabuf] holds nv12, rgba, bgra, yuyv or grey, not three bytes a pixel",
        "refused: [dmabuf] no picture of 480 x 320 pixels lies in file descriptor -1",
        "resource gone", "image gone", "end",
        "resource gone", "image gone", "device left",
    ]  # fmt: skip


def test_arrays_become_textures(program: Path) -> None:
    found = lines_of(program, "array")
    assert found[1] == "plane 0 chroma 0 pitch 0 0 textures 5500 5501 of 480 x 640"
    assert found[3:7] == ["texture gone", "texture gone", "resource gone", "image gone"]
    assert "refused: [dmabuf] yuyv is read from pitched memory, and the driver has an array" in found
    assert found[-1] == "device left"


@pytest.mark.parametrize(
    ("fake", "words"),
    [
        ("image", "EGL takes no image of file descriptor 5 (error 0x3003)"),
        ("register", "CUDA does not map the image (CUresult 999)"),
        ("planes", "the driver has 0 planes"),
        ("display", "no reader: [dmabuf] EGL has no display"),
        ("init", "no reader: [dmabuf] CUDA does not start (CUresult 100)"),
    ],
)
def test_what_fails_is_said_and_leaves_nothing_behind(program: Path, fake: str, words: str) -> None:
    found = lines_of(program, fake)
    assert any(words in line for line in found)
    images = sum(line.startswith("3057") for line in found)
    assert images == found.count("image gone")


def test_without_the_libraries(program: Path) -> None:
    (line,) = lines_of(program, libraries=False)
    assert line.startswith("no reader: [dmabuf] lib")
