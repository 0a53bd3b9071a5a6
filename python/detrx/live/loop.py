"""The loop: capture, letterbox, infer and finish in the lanes of a pipeline, draw and write here - each stage timed."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.detector import Detector
from detrx.draw import draw, draw_panoptic
from detrx.errors import SourceError
from detrx.live.frames import Source
from detrx.live.pipeline import Found, Pipeline
from detrx.live.sink import Shown, Sink, StopLoop
from detrx.live.track import worth_showing
from detrx.types import Detections, Frame, Panoptic

log = logging.getLogger(__name__)

STAGES = ("capture", "letterbox", "infer", "finish", "draw", "write")
KEPT = 20_000
"""Frames whose times are remembered; the loop's memory ends here."""

FrameTimes = Tuple[float, float, float, float, float, float]
OnFrame = Callable[[Frame, Detections, FrameTimes], None]
Step = Callable[[Frame, Detections], Detections]
"""Something done to the detections of each frame, in the order of the frames: tracking, zones."""
Paint = Callable[[NDArray[np.uint8]], None]
"""Draws onto the picture of a frame, in place."""


@dataclass(frozen=True)
class StageTimes:
    """Seconds that each stage took, the newest frames of a run, in any order."""

    rows: NDArray[np.float64]
    """(N, 6) seconds, columns as STAGES: waiting for the source, ..., writing to the sinks. Lanes overlap them."""
    ages: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    """(N,) seconds from the capture of a frame to its last sink, of live sources; else (0,)."""

    def milliseconds(self, stage: str, *, percentile: float = 50) -> float:
        """Of one stage, of "frame" (letterbox to finish: what the detector itself takes), of "all", or the "age"."""
        if stage == "age":
            return float(np.percentile(self.ages, percentile)) * 1000 if len(self.ages) else float("nan")
        columns = {"frame": slice(1, 4), "all": slice(0, 6)}
        index = STAGES.index(stage) if stage in STAGES else None
        chosen = self.rows[:, columns[stage] if index is None else slice(index, index + 1)].sum(axis=1)
        return float(np.percentile(chosen, percentile)) * 1000 if len(chosen) else float("nan")

    def table(self) -> Dict[str, Dict[str, float]]:
        """Milliseconds: stage -> p50, p95, p99; the last rows are "frame", "all" and, of a live source, "age"."""
        result: Dict[str, Dict[str, float]] = {}
        for stage in (*STAGES, "frame", "all", *(("age",) if len(self.ages) else ())):
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
    lost: Tuple[str, ...] = ()
    """Sinks that could no longer write, and why."""
    corrupt: int = 0
    """Frames of a live source that arrived damaged."""
    reconnects: int = 0
    """Times that a lost source was opened anew."""
    zones: Dict[str, Dict[str, int]] = field(default_factory=dict)
    """How often each zone and line was passed: its name -> "in" and "out"."""

    @property
    def fps(self) -> float:
        """Frames a second of wall clock, drawing and writing included."""
        return self.frames / self.seconds if self.seconds else 0.0


def run(
    detector: Detector,
    source: Source,
    *,
    sinks: Sequence[Sink] = (),
    steps: Sequence[Step] = (),
    paints: Sequence[Paint] = (),
    limit: Optional[int] = None,
    seconds: Optional[float] = None,
    show: float = 0.0,
    lanes: Optional[int] = None,
    on_frame: Optional[OnFrame] = None,
) -> LoopReport:
    """Take frames until the source ends, then close sinks and source, also after Ctrl-C or an error.

    The next frames are read and inferred while one is drawn and written. A sink that can no longer write - a full
    disk - is closed with a warning and the others go on; the last one's error is raised.

    Args:
        detector: stays open.
        source: is closed.
        sinks: are closed, which finishes their files.
        steps: change the detections of each frame, in order, before they are drawn and written.
        paints: draw onto each picture, in order, after the boxes.
        limit: stop after so many frames.
        seconds: stop after so much wall clock.
        show: the least score that is drawn and written; an object with a track is whatever its score.
        lanes: as Pipeline takes it; 1 for the least time of a frame, none for the most frames a second of a file.
        on_frame: told of each frame after it was written, with all that the detector found.
    """
    pipeline = Pipeline(detector, source, lanes=lanes, limit=limit)
    state = _Run(source, sinks, steps, paints, show, on_frame)
    ended = "end"
    try:
        for found in pipeline:
            state.take(found)
            if state.frames == limit or (seconds is not None and state.elapsed() >= seconds):
                ended = "limit"
                break
    except KeyboardInterrupt:
        ended = "interrupted"
    except StopLoop:
        ended = "stopped"
    finally:
        elapsed = state.elapsed()
        # The stack closes every one, last first, whatever another's close raises.
        with ExitStack() as stack:
            stack.callback(pipeline.close)
            for sink in sinks:
                stack.callback(sink.close)
    return state.report(elapsed, ended)


def _drawn(frame: Frame, shown: Detections, panoptic: Optional[Panoptic]) -> NDArray[np.uint8]:
    """The frame's picture with what was found; of a panoptic model its segments, which say more."""
    return draw(frame.image, shown) if panoptic is None else draw_panoptic(frame.image, panoptic)


class _Run:
    """The running counts of one loop."""

    def __init__(
        self,
        source: Source,
        sinks: Sequence[Sink],
        steps: Sequence[Step],
        paints: Sequence[Paint],
        show: float,
        on_frame: Optional[OnFrame],
    ) -> None:
        self.frames = 0
        self.objects = 0
        self._start = time.perf_counter()
        self._source, self._sinks, self._steps, self._paints = source, list(sinks), steps, paints
        self._show, self._on_frame = show, on_frame
        # Made at once, so that a day does not hold more than a minute.
        self._rows = np.full((KEPT, len(STAGES)), np.nan)
        self._ages = np.full(KEPT, np.nan)
        self._lost: List[str] = []

    def elapsed(self) -> float:
        return time.perf_counter() - self._start

    def take(self, found: Found) -> None:
        """What is done to each frame in the caller's thread, where windows must be."""
        frame, detections = found.frame, found.detections
        begun = time.perf_counter()
        for step in self._steps:
            detections = step(frame, detections)
        stepped = time.perf_counter()
        shown = worth_showing(detections, self._show)
        wanted = any(sink.wants_picture for sink in self._sinks)
        picture = _drawn(frame, shown, found.panoptic) if wanted else frame.image
        for paint in self._paints if wanted else ():
            paint(picture)
        drawn = time.perf_counter()
        self._write(Shown(frame, shown, picture, age=self._age(frame), panoptic=found.panoptic))
        written = time.perf_counter()
        capture, letterbox, infer, finish = found.times
        row = (capture, letterbox, infer, finish + stepped - begun, drawn - stepped, written - drawn)
        age = self._age(frame)
        place = self.frames % KEPT
        self._rows[place] = row
        self._ages[place] = np.nan if age is None else age
        self.frames += 1
        self.objects += len(shown)
        if self._on_frame is not None:
            self._on_frame(frame, detections, row)

    def _age(self, frame: Frame) -> Optional[float]:
        now = self._source.now()
        return None if now is None else now - frame.seconds

    def _write(self, shown: Shown) -> None:
        for sink in tuple(self._sinks):
            try:
                sink.write(shown)
            except (OSError, SourceError) as error:
                self._give_up(sink, error)

    def _give_up(self, sink: Sink, error: Exception) -> None:
        self._sinks.remove(sink)
        if not self._sinks:
            raise error
        self._lost.append(f"{type(sink).__name__}: {error}")
        log.warning(
            "%s stopped after %d frames, the others go on: %s", type(sink).__name__, self.frames, error
        )
        with suppress(OSError):
            sink.close()

    def report(self, seconds: float, ended: str) -> LoopReport:
        source, kept = self._source, min(self.frames, KEPT)
        ages = self._ages[:kept]
        return LoopReport(
            source=source.name,
            frames=self.frames,
            dropped=source.dropped,
            skipped=source.skipped,
            objects=self.objects,
            seconds=seconds,
            times=StageTimes(self._rows[:kept], ages[~np.isnan(ages)]),
            ended=ended,
            lost=tuple(self._lost),
            corrupt=source.corrupt,
            reconnects=source.reconnects,
        )
