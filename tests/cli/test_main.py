"""The command line: exit codes and what is said."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

import detrx
from detrx.cli import main as cli
from detrx.cli.live_picture import blocks
from detrx.cli.main import COMMANDS, main
from detrx.errors import DataError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")
write_model = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))["write_model"]


@pytest.fixture(autouse=True)
def keep_sigterm() -> Iterator[None]:
    before = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(write_model(tmp_path / "m.onnx"))


@pytest.mark.parametrize("args", [[], ["--help"], ["-h"]])
def test_alone_it_lists_the_commands(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(args) == 0
    out = capsys.readouterr().out
    assert all(f"detrx {name} " in out for name in COMMANDS)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--version"]) == 0
    assert capsys.readouterr().out.strip() == f"detrx {detrx.__version__}"


def test_a_wrong_command_gets_the_nearest(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["dtect"]) == 2
    assert "did you mean `detrx detect`?" in capsys.readouterr().err
    assert main(["qqqqqq"]) == 2
    assert "doctor" in capsys.readouterr().err


@pytest.mark.parametrize("name", sorted(set(COMMANDS) - {"data"}))
def test_every_command_has_help(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main([name, "--help"])
    assert ended.value.code == 0
    assert f"detrx {name}" in capsys.readouterr().out


def fake(monkeypatch: pytest.MonkeyPatch, error: BaseException) -> None:
    def run(args: list[str]) -> int:
        raise error

    monkeypatch.setitem(cli.COMMANDS, "doctor", ("fake_command", "help"))
    monkeypatch.setitem(sys.modules, "fake_command", SimpleNamespace(run=run))  # type: ignore[arg-type]


def test_errors_become_exit_codes(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, DataError("[read] no such photo"))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err == "detrx doctor: [read] no such photo\n"
    fake(monkeypatch, KeyboardInterrupt())
    assert main(["doctor"]) == 130


def test_what_the_training_half_needs_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    fake(monkeypatch, ModuleNotFoundError("No module named 'yaml'", name="yaml"))
    assert main(["doctor"]) == 2
    assert capsys.readouterr().err.startswith('detrx doctor needs yaml. Type: pip install ".[train]"')
    fake(monkeypatch, ModuleNotFoundError("No module named 'detrx.attic'", name="detrx.attic"))
    with pytest.raises(ModuleNotFoundError):
        main(["doctor"])


def test_detect_says_what_it_did(model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert main(["detect", "test://shapes?size=64x96&frames=4", "--model", model, "--out", str(out)]) == 0
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"detrx {detrx.__version__} | ONNX Runtime")
    assert "3 labels: disc, ring, star" in said[0]
    assert "4 frames, 12 objects" in said[1]
    assert f"wrote {out / 'video.mp4'}" in said


def test_detect_of_nothing_is_exit_2(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["detect", "no/such.jpg", "--model", model]) == 2
    assert "nothing at 'no/such.jpg'" in capsys.readouterr().err


def test_webcam_prints_lines_without_a_window(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["webcam", "test://shapes?size=64x96&frames=3", "--no-window", "--model", model]) == 0
    out = capsys.readouterr().out
    assert "frame 0 | " in out
    assert "1 disc, 1 ring, 1 star" in out


SCENES = "test://shapes?size=64x96&frames=2"


@pytest.mark.parametrize(
    "args",
    [
        ["--model", "MODEL", SCENES],
        ["--source", SCENES, "--model", "MODEL"],
        [f"--source={SCENES}", "--model=MODEL"],
    ],
)
@pytest.mark.parametrize("command", [["webcam", "--no-window"], ["detect", "--out", "OUT"]])
def test_the_source_stands_anywhere_with_a_name_or_without(
    command: list[str], args: list[str], model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = {"MODEL": model, "OUT": str(tmp_path / "out")}
    given = [word.replace("MODEL", model) for word in args]
    assert main([*(places.get(word, word) for word in command), *given]) == 0
    assert "2 frames" in capsys.readouterr().out


def test_a_source_without_a_value_is_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["webcam", "--source"]) == 2
    assert "--source must be followed by a value" in capsys.readouterr().err


def test_bench_prints_a_table(model: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "--model", model, "--frames", "3", "--warmup", "0"]) == 0
    out = capsys.readouterr().out
    assert all(word in out for word in ("letterbox", "p99", "frames/s"))


def test_doctor_speaks_text_and_json(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["doctor"]) == 0
    assert "In an issue, paste this" in capsys.readouterr().out
    assert main(["doctor", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["what"] == "detrx"


def test_a_reader_that_leaves_is_no_error() -> None:
    read, write = os.pipe()
    os.close(read)
    command = [sys.executable, "-m", "detrx.cli.main", "--help"]
    try:
        done = subprocess.run(command, stdout=write, stderr=subprocess.PIPE, text=True, timeout=60)
    finally:
        os.close(write)
    assert (done.returncode, done.stderr) == (0, "")


def test_python_m_detrx_is_the_command() -> None:
    command = [sys.executable, "-m", "detrx"]
    listed = subprocess.run([*command, "--version"], capture_output=True, text=True, timeout=60)
    assert listed.stdout == f"detrx {detrx.__version__}\n"
    refused = subprocess.run([*command, "dtect"], capture_output=True, text=True, timeout=60)
    assert refused.returncode == 2
    assert "did you mean `detrx detect`?" in refused.stderr


def test_blocks_draw_two_pixels_to_a_character() -> None:
    image = np.zeros((48, 64, 3), np.uint8)
    image[:24] = (255, 0, 0)
    segments = blocks(image, width=8).segments
    assert sum(segment.text == "▀" for segment in segments) == 8 * 3
    first, last = segments[0].style, segments[-2].style
    assert first is not None
    assert last is not None
    assert first.color is not None
    assert first.color.triplet == (255, 0, 0)
    assert last.bgcolor is not None
    assert last.bgcolor.triplet == (0, 0, 0)
