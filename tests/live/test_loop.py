"""The loop and its sinks: counts, times, and files that are whole however it ends (faults row 64)."""

from __future__ import annotations

import json
import os
import runpy
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx import rle
from detrx.detector import Detector
from detrx.errors import ConfigError, SourceError
from detrx.live.frames import Source
from detrx.live.job import DetectConfig, WatchConfig, detect, free_folder, watch
from detrx.live.loop import STAGES, StageTimes, run
from detrx.live.sink import Shown, Sink, StopLoop, why_no_window
from detrx.live.source import open_source
from detrx.types import Detections, Frame

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")
TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))
SHAPES = "test://shapes?size=64x96&frames=8"


@pytest.fixture
def model(tmp_path: Path) -> Path:
    found: Path = TINY["write_model"](tmp_path / "tiny.onnx")
    return found


class Notes(Sink):
    """Remembers, or fails."""

    def __init__(self, error: BaseException | None = None) -> None:
        self.shown: list[Shown] = []
        self.closed = 0
        self.error = error

    def write(self, shown: Shown) -> None:
        self.shown.append(shown)
        if self.error is not None and len(self.shown) == 3:
            raise self.error

    def close(self) -> None:
        self.closed += 1


def count_frames(path: Path) -> int:
    capture = cv2.VideoCapture(str(path))
    count = 0
    while capture.read()[0]:
        count += 1
    return count


def test_the_loop_counts_and_times_every_frame(model: Path) -> None:
    notes = Notes()
    seen: list[tuple[int, int]] = []

    def on_frame(frame: Frame, found: Detections, times: tuple[float, ...]) -> None:
        assert len(times) == len(STAGES)
        seen.append((frame.index, len(found)))

    with Detector(model, threshold=0.01) as detector:
        report = run(detector, open_source(SHAPES), sinks=[notes], show=0.5, on_frame=on_frame)
    assert (report.frames, report.dropped, report.ended, notes.closed) == (8, 0, "end", 1)
    assert seen == [(index, 4) for index in range(8)]
    assert report.objects == 24
    assert all(len(shown.found) == 3 for shown in notes.shown)
    assert report.times.rows.shape == (8, 6)
    assert report.times.rows[:, 4:].sum() <= report.seconds
    table = report.times.table()
    assert set(table) == {*STAGES, "frame", "all"}
    assert table["infer"]["p50"] <= table["frame"]["p99"] <= table["all"]["p99"]
    assert report.fps == pytest.approx(8 / report.seconds)


def test_percentiles_are_of_the_rows() -> None:
    times = StageTimes(np.arange(60, dtype=np.float64).reshape(10, 6) / 1000)
    assert times.milliseconds("letterbox") == pytest.approx(28)
    assert times.milliseconds("frame") == pytest.approx(28 + 29 + 30)
    assert np.isnan(StageTimes(np.zeros((0, 6))).milliseconds("all"))


@pytest.mark.parametrize(("error", "ended"), [(KeyboardInterrupt(), "interrupted"), (StopLoop(), "stopped")])
def test_an_interrupted_loop_closes_and_reports(model: Path, error: BaseException, ended: str) -> None:
    first, second = Notes(error), Notes()
    with Detector(model) as detector:
        report = run(detector, open_source(SHAPES), sinks=[first, second])
    assert report.ended == ended
    assert report.frames == 2
    assert (first.closed, second.closed) == (1, 1)


def test_an_error_closes_everything(model: Path) -> None:
    class Failing(Notes):
        def close(self) -> None:
            super().close()
            raise OSError("disk full")

    first, second = Failing(), Notes(ValueError("broken"))
    with Detector(model) as detector, pytest.raises((ValueError, OSError)):
        run(detector, open_source(SHAPES), sinks=[first, second])
    assert (first.closed, second.closed) == (1, 1)


def test_limits_end_the_loop(model: Path) -> None:
    with Detector(model) as detector:
        assert run(detector, open_source(SHAPES), limit=3).frames == 3
        endless = open_source("test://shapes?size=64x96&frames=0")
        assert run(detector, endless, seconds=0.1).ended == "limit"


def test_a_slow_model_drops_frames_and_stays_current(model: Path) -> None:
    class Slow(Notes):
        def write(self, shown: Shown) -> None:
            super().write(shown)
            time.sleep(0.05)

    with Detector(model) as detector:
        source = open_source("test://shapes?size=48x64&frames=60&fps=200&live=1")
        report = run(detector, source, sinks=[Slow()])
    assert report.frames + report.dropped == 60
    assert report.dropped > 30


def test_detect_writes_all_kinds(model: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    kinds = ("pictures", "video", "jsonl", "coco")
    report = detect(DetectConfig(SHAPES, model=str(model), out=out, save=kinds))
    assert report.loop.frames == 8
    assert count_frames(out / "video.mp4") == 8
    assert len(list((out / "pictures").glob("frame_*.jpg"))) == 8
    lines = [json.loads(line) for line in (out / "detections.jsonl").read_text().splitlines()]
    assert [line["frame"] for line in lines] == list(range(8))
    assert {row["category_id"] for row in lines[0]["objects"]} == {7, 3, 900}
    coco = json.loads((out / "detections.coco.json").read_text())
    assert len(coco["images"]) == 8
    assert {row["category_id"] for row in coco["annotations"]} <= {row["id"] for row in coco["categories"]}
    assert all(path.exists() for path in report.files)


def test_masks_are_written_as_run_lengths(tmp_path: Path) -> None:
    masked = TINY["write_model"](tmp_path / "masked.onnx", batch=None, masks=TINY["MASKS"])
    detect(DetectConfig(SHAPES, model=str(masked), out=tmp_path / "out", save=("pictures", "jsonl", "coco")))
    line = json.loads((tmp_path / "out" / "detections.jsonl").read_text().splitlines()[0])
    row = json.loads((tmp_path / "out" / "detections.coco.json").read_text())["annotations"][0]
    assert row["segmentation"] == line["objects"][0]["mask"]
    assert row["area"] == rle.area(row["segmentation"]) > 0


def test_pictures_of_one_name_do_not_overwrite_each_other(model: Path, tmp_path: Path) -> None:
    photos = tmp_path / "photos"
    for name in ("a.png", "a.jpg", "x/a.png", "y/a.png"):
        (photos / name).parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(photos / name), np.zeros((40, 60, 3), np.uint8))
    detect(DetectConfig(str(photos), model=str(model), out=tmp_path / "out"))
    assert len(list((tmp_path / "out" / "pictures").rglob("*.jpg"))) == 4
    detect(DetectConfig(f"{photos}/**/*.png", model=str(model), out=tmp_path / "glob"))
    assert len(list((tmp_path / "glob" / "pictures").rglob("*.jpg"))) == 3


def test_signals_leave_a_whole_video(model: Path, tmp_path: Path) -> None:
    for number, code in ((signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)):
        out = tmp_path / str(code)
        command = [
            sys.executable,
            "-m",
            "detrx.cli.main",
            "detect",
            "test://shapes?size=64x96&frames=0&live=1",
        ]
        command += ["--model", str(model), "--out", str(out), "--save", "video", "jsonl", "coco"]
        # A shell's background jobs, and so what a CI starts, ignore Ctrl-C, and their children inherit it.
        process = subprocess.Popen(
            command,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        lines = out / "detections.jsonl"
        deadline = time.monotonic() + 30
        while not (lines.is_file() and lines.read_text().count("\n") > 5) and time.monotonic() < deadline:
            time.sleep(0.05)
        os.kill(process.pid, number)
        start = time.monotonic()
        _, errors = process.communicate(timeout=20)
        assert process.returncode == code, errors
        assert time.monotonic() - start < 5
        written = lines.read_text().count("\n")
        # The signal may fall between two sinks of one frame.
        assert abs(count_frames(out / "video.mp4") - written) <= 1
        assert abs(len(json.loads((out / "detections.coco.json").read_text())["images"]) - written) <= 1
        assert all(json.loads(line)["objects"] for line in lines.read_text().splitlines())


def test_bad_settings_are_refused(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="films"):
        DetectConfig(SHAPES, save=("films",))
    with pytest.raises(ConfigError, match="frames"):
        WatchConfig(frames=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(SourceError, match="--out"):
        detect(DetectConfig(SHAPES, model=str(model), out=tmp_path / "file" / "below"))


def test_the_next_free_folder(tmp_path: Path) -> None:
    assert free_folder(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a").mkdir()
    assert free_folder(tmp_path / "a") == tmp_path / "a"
    (tmp_path / "a" / "x").write_text("")
    assert free_folder(tmp_path / "a") == tmp_path / "a-2"


def test_webcam_without_a_display_says_how_to_look(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    monkeypatch.setattr("sys.platform", "linux")
    assert "no display" in (why_no_window() or "")
    with pytest.raises(ConfigError, match="--no-window"):
        watch(WatchConfig("0", model=str(model)))


def test_watch_without_a_window_tells_each_frame(model: Path) -> None:
    told: list[int] = []
    config = WatchConfig(SHAPES, model=str(model), window=False)
    report = watch(config, on_frame=lambda frame, found, times: told.append(frame.index))
    assert told == list(range(8))
    assert report.ended == "end"


def test_a_source_that_fails_is_closed(model: Path) -> None:
    class Broken(Source):
        closed = False

        def __iter__(self) -> Iterator[Frame]:
            yield Frame(np.zeros((8, 8, 3), np.uint8), 0, 0.0)
            raise SourceError("unplugged")

        def close(self) -> None:
            self.closed = True

    source, notes = Broken(), Notes()
    with Detector(model) as detector, pytest.raises(SourceError, match="unplugged"):
        run(detector, source, sinks=[notes])
    assert source.closed
    assert notes.closed == 1
