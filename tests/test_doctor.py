"""The doctor looks at everything, whatever is broken."""

from __future__ import annotations

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


def test_a_check_that_breaks_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> tuple[str, str, str]:
        raise RuntimeError("half installed")

    monkeypatch.setattr(doctor, "CHECKS", (("thing", broken),))
    (found,) = examine()
    assert found.state == "missing"
    assert "half installed" in found.found
