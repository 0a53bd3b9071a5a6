"""Several frames under way: the order stays, errors come in their turn, memory is bounded, everything ends."""

from __future__ import annotations

import runpy
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx.detector import Detector
from detrx.errors import ConfigError, SourceError
from detrx.live.frames import Source
from detrx.live.loop import run
from detrx.live.pipeline import STAGES, Pipeline
from detrx.live.sink import JsonLinesSink, Shown, Sink, VideoSink
from detrx.live.source import open_source
from detrx.runtime.backend import Calls
from detrx.types import Frame, Raw

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))


@pytest.fixture
def detector(tmp_path: Path) -> Iterator[Detector]:
    with Detector(TINY["write_model"](tmp_path / "tiny.onnx"), threads=4) as found:
        yield found


class Counted(Source):
    """So many frames; remembers how many were asked for."""

    name = "counted"

    def __init__(self, frames: int, *, error: Exception | None = None) -> None:
        self.frames, self.error = frames, error
        self.read = self.closed = 0

    def __iter__(self) -> Iterator[Frame]:
        for index in range(self.frames):
            self.read += 1
            yield Frame(np.full((8, 8, 3), index % 250, np.uint8), index, float(index))
        if self.error is not None:
            raise self.error

    def close(self) -> None:
        self.closed += 1


def uneven(detector: Detector, monkeypatch: pytest.MonkeyPatch, *, bad: int = -1) -> list[int]:
    """Make the model take longest for the first of each four frames, and fail at one; counts calls under way."""
    busy, most, lock = [0], [0], threading.Lock()

    def infer(pixels: np.ndarray) -> Raw:
        with lock:
            busy[0] += 1
            most[0] = max(most[0], busy[0])
        value = round(float(pixels[0, 0, 32, 48] * 255 if pixels.max() <= 1 else pixels[0, 0, 32, 48]))
        time.sleep(0.02 if value % 4 == 0 else 0.001)
        with lock:
            busy[0] -= 1
        if value == bad:
            raise ValueError(f"frame {bad}")
        return Raw(*(np.asarray(TINY[key])[None] for key in ("SCORES", "LABELS", "BOXES")))

    give(detector, monkeypatch, infer, at_once=4)
    monkeypatch.setattr(detector, "prepare", lambda images: plain(detector, images))
    return most


def give(detector: Detector, monkeypatch: pytest.MonkeyPatch, infer: Any, *, at_once: int = 1) -> None:
    """Put another model in place of the detector's."""
    monkeypatch.setattr(detector, "calls", lambda *, most: Calls(min(most, at_once), infer, lambda: None))


def plain(detector: Detector, images: list[np.ndarray]) -> Any:
    _, boxes = Detector.prepare(detector, images)
    return np.full((1, 3, 64, 96), images[0][0, 0, 0], np.float32), boxes


def test_frames_come_in_order_although_lanes_overtake(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    most = uneven(detector, monkeypatch)
    found = list(Pipeline(detector, Counted(40)))
    assert [one.frame.index for one in found] == list(range(40))
    assert most[0] > 1
    assert all(len(one.times) == len(STAGES) and min(one.times) >= 0 for one in found)


def until_error(pipeline: Pipeline) -> tuple[list[int], Exception]:
    seen: list[int] = []
    with pytest.raises((ValueError, SourceError)) as caught:
        seen.extend(one.frame.index for one in pipeline)
    return seen, caught.value


def test_an_error_comes_in_its_turn(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    uneven(detector, monkeypatch, bad=5)
    source = Counted(40)
    seen, error = until_error(Pipeline(detector, source))
    assert str(error) == "frame 5"
    assert seen == [0, 1, 2, 3, 4]
    assert source.closed


def test_an_error_of_the_source_comes_after_its_frames(detector: Detector) -> None:
    seen, error = until_error(Pipeline(detector, Counted(6, error=SourceError("unplugged"))))
    assert str(error) == "unplugged"
    assert seen == list(range(6))


def test_a_slow_reader_makes_the_lanes_wait(detector: Detector) -> None:
    source = Counted(1000)
    pipeline = Pipeline(detector, source, lanes=3)
    for count, _ in enumerate(pipeline, start=1):
        time.sleep(0.01)
        assert source.read <= count + 3
        if count == 10:
            break


def test_a_limit_reads_no_frame_too_many(detector: Detector) -> None:
    source = Counted(50)
    assert len(list(Pipeline(detector, source, limit=7))) == 7
    assert source.read == 7
    with pytest.raises(ConfigError, match="lanes"):
        Pipeline(detector, source, lanes=0)


def test_leaving_early_ends_the_threads(detector: Detector) -> None:
    source = open_source("test://shapes?size=64x96&frames=0&live=1")
    before = threading.active_count()
    found = iter(Pipeline(detector, source))
    next(found)
    found.close()  # type: ignore[attr-defined]
    assert threading.active_count() < before


def test_lanes_that_hang_are_waited_for_once(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    hang = threading.Event()

    def infer(pixels: np.ndarray) -> Raw:
        hang.wait(30)
        raise RuntimeError("let go")

    give(detector, monkeypatch, infer, at_once=4)
    pipeline = Pipeline(detector, Counted(40), lanes=4)
    threading.Timer(0.3, pipeline.close).start()
    start = time.monotonic()
    assert list(pipeline) == []
    pipeline.close()
    hang.set()
    # One and a half seconds; four lanes closed twice were twelve.
    assert time.monotonic() - start < 5


def test_closing_aborts_what_is_under_way(detector: Detector, monkeypatch: pytest.MonkeyPatch) -> None:
    aborted = threading.Event()

    def infer(pixels: np.ndarray) -> Raw:
        assert aborted.wait(30)
        raise RuntimeError("aborted")

    monkeypatch.setattr(detector, "calls", lambda *, most: Calls(min(most, 2), infer, aborted.set))
    pipeline = Pipeline(detector, Counted(40))
    threading.Timer(0.3, pipeline.close).start()
    assert list(pipeline) == []
    assert aborted.is_set()


def test_stream_gives_times_on_request(detector: Detector) -> None:
    uri = "test://shapes?size=64x96&frames=3"
    assert [len(found) for _, found in detector.stream(uri)] == [3, 3, 3]
    for frame, found, times in detector.stream(uri, times=True):
        assert set(times) == set(STAGES)
        assert frame.index < 3
        assert len(found) == 3


def test_side_by_side_calls_answer_as_one(detector: Detector) -> None:
    at_once, infer, abort = detector.calls(most=3)
    assert at_once == 3
    pixels = np.random.default_rng(0).random((1, 3, 64, 96), np.float32)
    np.testing.assert_allclose(infer(pixels).scores, detector.infer(pixels).scores, rtol=1e-5)
    assert detector.calls(most=1).at_once == 1
    abort()
    with pytest.raises(Exception, match="terminate"):
        infer(pixels)
    assert np.isfinite(detector.calls(most=3).infer(pixels).scores).all()


def test_a_model_slower_than_the_camera_shows_fresh_frames(
    detector: Detector, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow, camera = 0.2, 0.02

    def infer(pixels: np.ndarray) -> Raw:
        time.sleep(slow)
        return Raw(*(np.asarray(TINY[key])[None] for key in ("SCORES", "LABELS", "BOXES")))

    give(detector, monkeypatch, infer)
    source = open_source(f"test://shapes?size=64x96&frames=150&fps={1 / camera:g}&live=1")
    report = run(detector, source, sinks=[Aged()])
    assert report.dropped > 100
    # Asserted loosely, because other processes want these cores too; benchmarks/bench_loop.py measures it.
    assert report.times.milliseconds("age", percentile=50) < (slow + 2 * camera + 0.05) * 1000


class Aged(Sink):
    def write(self, shown: Shown) -> None:
        assert shown.age is not None
        assert shown.age > 0


def test_a_sink_that_fails_does_not_end_the_others(
    detector: Detector, caplog: pytest.LogCaptureFixture
) -> None:
    class Full(Sink):
        closed = 0

        def write(self, shown: Shown) -> None:
            if shown.frame.index == 2:
                raise OSError(28, "No space left on device")

        def close(self) -> None:
            self.closed += 1

    full, notes = Full(), []

    class Notes(Sink):
        def write(self, shown: Shown) -> None:
            notes.append(shown.frame.index)

    report = run(detector, Counted(6), sinks=[full, Notes()])
    assert notes == list(range(6))
    assert full.closed
    assert "No space" in report.lost[0]
    assert "others go on" in caplog.text
    with pytest.raises(OSError, match="No space"):
        run(detector, Counted(6), sinks=[Full()])


def test_steps_change_detections_in_order(detector: Detector) -> None:
    seen = []

    def step(frame: Frame, found: Any) -> Any:
        seen.append(frame.index)
        return found.above(0.7)

    report = run(detector, Counted(5), steps=[step])
    assert seen == list(range(5))
    assert report.objects == 5


def test_a_recording_stops_before_the_disk_is_full(
    detector: Detector, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Usage:
        free = 2**30

    def usage(path: Path) -> Usage:
        Usage.free //= 32
        return Usage()

    monkeypatch.setattr("detrx.live.sink.shutil.disk_usage", usage)
    video, lines = VideoSink(tmp_path / "v.mp4", fps=25), JsonLinesSink(tmp_path / "v.jsonl")
    report = run(detector, Counted(70), sinks=[video, lines])
    assert report.frames == 70
    assert "VideoSink" in report.lost[0]
    assert (tmp_path / "v.jsonl").read_text().count("\n") == 70
    assert len(list(open_source(tmp_path / "v.mp4"))) == 30
