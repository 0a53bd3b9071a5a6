"""The loop: capture, letterbox, infer, finish, draw, write - each stage timed."""

from __future__ import annotations

import time
from collections import deque
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Callable, Deque, Dict, Iterator, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.detector import Detector
from detrx.draw import draw
from detrx.live.frames import Source
from detrx.live.sink import Shown, Sink, StopLoop
from detrx.types import Detections, Frame

STAGES = ("capture", "letterbox", "infer", "finish", "draw", "write")
KEPT = 20_000
"""Frames whose times are remembered; the loop's memory ends here."""

FrameTimes = Tuple[float, float, float, float, float, float]
OnFrame = Callable[[Frame, Detections, FrameTimes], None]


@dataclass(frozen=True)
class StageTimes:
    """Seconds that each stage took, the newest frames of a run."""

    rows: NDArray[np.float64]
    """(N, 6) seconds, columns as STAGES: waiting for the source, ..., writing to the sinks."""

    def milliseconds(self, stage: str, *, percentile: float = 50) -> float:
        """Of one stage, of "frame" (letterbox to finish: what the detector itself takes) or of "all"."""
        columns = {"frame": slice(1, 4), "all": slice(0, 6)}
        index = STAGES.index(stage) if stage in STAGES else None
        chosen = self.rows[:, columns[stage] if index is None else slice(index, index + 1)].sum(axis=1)
        return float(np.percentile(chosen, percentile)) * 1000 if len(chosen) else float("nan")

    def table(self) -> Dict[str, Dict[str, float]]:
        """Milliseconds: stage -> p50, p95, p99, mean; the last two rows are "frame" and "all"."""
        result: Dict[str, Dict[str, float]] = {}
        for stage in (*STAGES, "frame", "all"):
            row = {f"p{p}": round(self.milliseconds(stage, percentile=p), 4) for p in (50, 95, 99)}
            result[stage] = row
        return result


@dataclass(frozen=True)
class LoopReport:
    """What a run of the loop did."""

    source: str
    frames: int
    dropped: int
    """Frames of a live source that came while the loop was busy."""
    skipped: int
    """Pictures that could not be read."""
    objects: int
    seconds: float
    """Wall clock from the first wait to the last write."""
    times: StageTimes
    ended: str
    """"end" of the source, "limit", "stopped" by its user, or "interrupted" by Ctrl-C."""

    @property
    def fps(self) -> float:
        """Frames a second of wall clock, drawing and writing included."""
        return self.frames / self.seconds if self.seconds else 0.0


def run(
    detector: Detector,
    source: Source,
    *,
    sinks: Sequence[Sink] = (),
    limit: Optional[int] = None,
    seconds: Optional[float] = None,
    show: float = 0.0,
    on_frame: Optional[OnFrame] = None,
) -> LoopReport:
    """Take frames until the source ends, then close sinks and source, also after Ctrl-C or an error.

    Args:
        detector: stays open.
        source: is closed.
        sinks: are closed, which finishes their files.
        limit: stop after so many frames.
        seconds: stop after so much wall clock.
        show: the least score that is drawn and written.
        on_frame: told of each frame after it was written, with all that the detector found.
    """
    state = _Run(detector, source, sinks, show, on_frame)
    ended = "end"
    try:
        for frame, waited in _timed(source):
            state.take(frame, waited)
            if limit is not None and state.frames >= limit:
                ended = "limit"
                break
            if seconds is not None and time.perf_counter() - state.start >= seconds:
                ended = "limit"
                break
    except KeyboardInterrupt:
        ended = "interrupted"
    except StopLoop:
        ended = "stopped"
    finally:
        elapsed = time.perf_counter() - state.start
        # The stack closes every one, whatever another's close raises.
        with ExitStack() as stack:
            stack.callback(source.close)
            for sink in sinks:
                stack.callback(sink.close)
    return state.report(elapsed, ended)


class _Run:
    """The running counts of one loop."""

    def __init__(
        self,
        detector: Detector,
        source: Source,
        sinks: Sequence[Sink],
        show: float,
        on_frame: Optional[OnFrame],
    ) -> None:
        self.start = time.perf_counter()
        self.frames = 0
        self.objects = 0
        self._detector, self._source, self._sinks, self._on_frame = detector, source, sinks, on_frame
        self._show = show
        self._rows: Deque[FrameTimes] = deque(maxlen=KEPT)
        self._draws = any(sink.wants_picture for sink in sinks)

    def take(self, frame: Frame, waited: float) -> None:
        marks = [time.perf_counter()]

        def mark() -> None:
            marks.append(time.perf_counter())

        pixels, boxes = self._detector.prepare([frame.image])
        mark()
        raw = self._detector.infer(pixels)
        mark()
        found = self._detector.finish(raw, 0, boxes[0])
        mark()
        shown = found.above(self._show)
        picture = draw(frame.image, shown) if self._draws else frame.image
        mark()
        for sink in self._sinks:
            sink.write(Shown(frame, shown, picture))
        mark()
        letterbox, infer, finish, drawn, written = (b - a for a, b in zip(marks, marks[1:]))
        row = (waited, letterbox, infer, finish, drawn, written)
        self._rows.append(row)
        self.frames += 1
        self.objects += len(shown)
        if self._on_frame is not None:
            self._on_frame(frame, found, row)

    def report(self, seconds: float, ended: str) -> LoopReport:
        rows = np.array(self._rows, dtype=np.float64).reshape(-1, len(STAGES))
        source = self._source
        return LoopReport(
            source=source.name,
            frames=self.frames,
            dropped=source.dropped,
            skipped=source.skipped,
            objects=self.objects,
            seconds=seconds,
            times=StageTimes(rows),
            ended=ended,
        )


def _timed(source: Source) -> Iterator[Tuple[Frame, float]]:
    """Each frame with the seconds that it was waited for."""
    frames = iter(source)
    while True:
        start = time.perf_counter()
        frame = next(frames, None)
        if frame is None:
            return
        yield frame, time.perf_counter() - start
