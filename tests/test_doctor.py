"""The doctor looks at everything, whatever is broken."""

from __future__ import annotations

from pathlib import Path

import pytest

import detrx
from detrx import doctor
from detrx.doctor import examine


def test_every_check_answers() -> None:
    findings = examine()
    assert len(findings) == len(doctor.CHECKS)
    assert {finding.state for finding in findings} <= {"ok", "note", "missing"}
    by_name = {finding.what: finding for finding in findings}
    assert detrx.__version__ in by_name["detrx"].found
    assert by_name["numpy"].state == "ok"


def test_a_missing_library_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    modules = __import__("sys").modules
    for name in ("cv2", "onnxruntime"):
        monkeypatch.setitem(modules, name, None)
    by_name = {finding.what: finding for finding in examine()}
    for name in ("OpenCV", "ONNX Runtime"):
        assert by_name[name].state == "missing"
        assert "pip install" in by_name[name].remedy


def test_two_wheels_of_opencv_are_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("cv2")
    monkeypatch.setattr(doctor, "_version", lambda name: "4.10" if "opencv-python" in name else "")
    state, found, remedy = doctor._opencv()
    assert state == "note"
    assert "opencv-python-headless and opencv-python overwrite each other" in found
    assert remedy.startswith("pip uninstall -y opencv-python-headless opencv-python &&")


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[str, str, str]:
        raise RuntimeError("half installed")

    monkeypatch.setattr(doctor, "CHECKS", (("thing", broken),))
    (found,) = examine()
    assert found.state == "missing"
    assert "half installed" in found.found


@pytest.mark.parametrize(
    ("libraries", "wheels", "state"),
    [
        ({"libnvinfer.so.10": "TensorRT 10.3.0"}, [], "ok"),
        ({}, ["tensorrt-rtx 1.3.0"], "ok"),
        ({"libnvinfer.so.8": "crashes (signal 11)"}, ["nvidia-cuda-runtime 13.2"], "note"),
        ({}, [], "note"),
    ],
    ids=["library", "wheel", "broken", "none"],
)
def test_what_counts_as_a_tensorrt(monkeypatch: pytest.MonkeyPatch, libraries, wheels, state: str) -> None:
    monkeypatch.setattr(doctor.probe, "tensorrt_libraries", lambda: libraries)
    monkeypatch.setattr(doctor.probe, "wheels", lambda: wheels)
    found, text, remedy = doctor._tensorrt()
    assert found == state
    assert all(said in text for said in [*libraries.values(), *wheels])
    assert (remedy == "") == (state == "ok")


def test_the_plugins_are_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("DETRX_TENSORRT_PLUGINS", raising=False)
    monkeypatch.setattr(
        doctor, "plugin_library", lambda major: Path(f"/a/lib{major}.so") if major == 10 else None
    )
    assert doctor._plugins() == ("ok", "built for TensorRT 10 (lib10.so)", "")
    monkeypatch.setattr(doctor, "plugin_library", lambda major: None)
    state, found, remedy = doctor._plugins()
    assert (state, "none built" in found) == ("note", True)
    assert "DETRX_CUDA=ON" in remedy
    library = tmp_path / "mine.so"
    monkeypatch.setenv("DETRX_TENSORRT_PLUGINS", str(library))
    assert doctor._plugins()[0] == "missing"
    library.touch()
    assert doctor._plugins() == ("ok", f"{library}, as DETRX_TENSORRT_PLUGINS says", "")
