"""What detect and webcam put together: the page beside the sinks, and tables."""

from __future__ import annotations

import csv
import json
import runpy
import signal
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from detrx.errors import ConfigError
from detrx.live.job import DetectConfig, WatchConfig, detect, watch
from detrx.live.web import LEAST
from detrx.types import Detections, Frame

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")
TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))
SHAPES = "test://shapes?size=64x96&frames=8"


@pytest.fixture
def model(tmp_path: Path) -> str:
    return str(TINY["write_model"](tmp_path / "tiny.onnx"))


def test_csv_has_a_line_for_each_object(model: str, tmp_path: Path) -> None:
    out = tmp_path / "out"
    report = detect(DetectConfig(SHAPES, model=model, out=out, save=("jsonl", "csv")))
    assert out / "detections.csv" in report.files
    with (out / "detections.csv").open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    objects = [
        {**found, "frame": line["frame"]}
        for line in map(json.loads, (out / "detections.jsonl").read_text().splitlines())
        for found in line["objects"]
    ]
    assert len(rows) == len(objects) == report.loop.objects > 0
    for row, found in zip(rows, objects):
        assert int(row["frame"]) == found["frame"]
        assert (row["name"], int(row["category_id"])) == (found["name"], found["category_id"])
        assert [float(row[side]) for side in ("x0", "y0", "x1", "y1")] == found["box"]


def test_a_page_sees_what_is_under_the_threshold_and_files_do_not(model: str, tmp_path: Path) -> None:
    plain = detect(DetectConfig(SHAPES, model=model, out=tmp_path / "a", threshold=0.6))
    seen: list[dict[str, Any]] = []
    least: list[float] = []
    url: list[str] = []

    def look(frame: Frame, found: Detections, times: tuple[float, ...]) -> None:
        least.append(float(found.scores.min()))
        if frame.index == 3:
            for path in ("status.json", "about.json"):
                with urllib.request.urlopen(url[0] + path, timeout=10) as answer:
                    seen.append(json.load(answer))

    config = DetectConfig(SHAPES, model=model, out=tmp_path / "b", threshold=0.6, web="127.0.0.1:0")
    report = detect(config, on_page=url.append, on_frame=look)
    assert report.loop.objects == plain.loop.objects
    assert (tmp_path / "a" / "detections.jsonl").read_text() == (
        tmp_path / "b" / "detections.jsonl"
    ).read_text()
    assert min(least) >= 0.6
    assert sum(seen[0]["counts"].values()) == plain.loop.objects // 8
    assert (seen[0]["frame"], seen[1]["least"], seen[1]["title"]) == (3, LEAST, SHAPES)
    with pytest.raises(OSError, match="refused"):
        urllib.request.urlopen(url[0], timeout=5)


def test_webcam_serves_a_page_in_place_of_the_window(model: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    url: list[str] = []
    report = watch(WatchConfig(SHAPES, model=model, web=":0"), on_page=url.append)
    assert report.frames == 8
    assert url[0].startswith("http://127.0.0.1:")


def test_ctrl_c_ends_a_page_that_is_watched(model: str) -> None:
    command = [sys.executable, "-m", "detrx", "webcam", "test://shapes?size=64x96&frames=0&live=1"]
    process = subprocess.Popen(
        [*command, "--model", model, "--web", "127.0.0.1:0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # A shell's background jobs ignore Ctrl-C, and their children inherit it.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    assert process.stdout is not None
    line = ""
    while "look at" not in line:
        line = process.stdout.readline()
        assert line, process.stderr and process.stderr.read()
    url = line.split()[2]
    with urllib.request.urlopen(url + "stream", timeout=30) as stream, urllib.request.urlopen(url + "events"):
        assert stream.read(7) == b"--frame"
        process.send_signal(signal.SIGINT)
        begun = time.monotonic()
        _, errors = process.communicate(timeout=20)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    # A third of a second on a machine that has nothing else to do.
    assert time.monotonic() - begun < 5


def test_passwords_are_not_on_the_page(model: str) -> None:
    url: list[str] = []
    config = WatchConfig("rtsp://me:geheim@127.0.0.1:1/x", model=model, web=":0", timeout=0.5)
    titles: list[bytes] = []

    def look(found: str) -> None:
        with urllib.request.urlopen(found + "about.json", timeout=10) as answer:
            titles.append(answer.read())

    with pytest.raises(OSError):  # noqa: PT011 - whichever way the source does not open
        watch(config, on_page=lambda found: (url.append(found), look(found))[0])
    assert b"me:***@127.0.0.1" in titles[0]
    assert b"geheim" not in titles[0]


def test_an_address_that_is_none_is_refused(model: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        watch(WatchConfig(SHAPES, model=model, web="everywhere"))
