"""However a program ends, it ends: with streams half read, with nobody to print to (faults rows 56 and 64)."""

from __future__ import annotations

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")
TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))
LIVE = "test://shapes?size=64x96&frames=0&live=1"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    found: Path = TINY["write_model"](tmp_path / "tiny.onnx")
    return found


def test_the_interpreter_ends_with_a_stream_half_read(model: Path) -> None:
    code = (
        "import detrx\n"
        f"detector = detrx.Detector({str(model)!r})\n"
        f"streams = [detector.stream({LIVE!r}), detector.stream({LIVE.replace('&live=1', '')!r})]\n"
        "print([len(next(stream)[1]) for stream in streams])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "[3, 3]\n", "")


def test_nobody_to_print_to(model: Path, tmp_path: Path) -> None:
    for number, ending in enumerate((">&-", "| head -1")):
        out = tmp_path / str(number)
        command = (
            f'"{sys.executable}" -m detrx detect "test://shapes?size=64x96&frames=20" --model "{model}" '
            f'--save video --out "{out}" {ending}'
        )
        done = subprocess.run(
            ["bash", "-o", "pipefail", "-c", command],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, done.stderr
        assert "Traceback" not in done.stderr
        assert (out / "video.mp4").stat().st_size > 500
