"""What the doctor says of NVIDIA's parts, also where one of them crashes."""

from __future__ import annotations

from pathlib import Path

import pytest

from detrx.runtime import probe


def test_a_library_that_is_not_there() -> None:
    number, why = probe.ask_library("libdetrx_none.so", "getInferLibVersion")
    assert number == -1
    assert "No such file" in why


def test_a_library_that_crashes() -> None:
    """abort() of the C library ends the child alone."""
    assert probe.ask_library("libc.so.6", "abort") == (-1, "crashes (signal 6)")


def test_a_function_that_answers() -> None:
    number, why = probe.ask_library("libc.so.6", "getpid")
    assert number > 0
    assert why == ""


def test_versions() -> None:
    assert [probe.tensorrt_text(number) for number in (8502, 10701, 101600)] == [
        "TensorRT 8.5.2",
        "TensorRT-RTX 1.7.1",
        "TensorRT 10.16.0",
    ]


def test_headers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "include").mkdir()
    text = "#define NV_TENSORRT_MAJOR 8 //!< x\n#define NV_TENSORRT_MINOR 5 //!<\n#define NV_TENSORRT_PATCH 2 //!<\n"
    (tmp_path / "include" / "NvInferVersion.h").write_text(text)
    monkeypatch.setenv("DETRX_TENSORRT_ROOTS", str(tmp_path))
    assert probe.headers()[str(tmp_path / "include")] == "8.5.2"


def test_a_jetson(tmp_path: Path) -> None:
    assert probe.jetson(tmp_path) == ""
    for name, text in {
        "etc/nv_tegra_release": "# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref, EABI: aarch64\n",
        "proc/device-tree/model": "NVIDIA Jetson Xavier NX Developer Kit\0",
        "var/lib/nvpmodel/status": "pmode:0008 fmode:fanNull\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True)
        (tmp_path / name).write_text(text)
    assert probe.jetson(tmp_path) == (
        "NVIDIA Jetson Xavier NX Developer Kit, L4T 35.4.1, power mode pmode:0008 fmode:fanNull"
    )
