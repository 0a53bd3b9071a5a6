"""Several frames under way at once, and out in the order of their source."""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Callable, Deque, Iterator, List, Optional, Tuple, Union

from detrx.detector import Detector, Prepared
from detrx.errors import ConfigError
from detrx.live.frames import Source
from detrx.live.smooth import Smoother
from detrx.live.source import open_source
from detrx.live.track import Tracker, worth_showing
from detrx.types import Detections, Frame, Panoptic, Raw

STAGES = ("capture", "letterbox", "infer", "finish")
MOST_LANES = 16
JOIN_SECONDS = 1.5
"""How long closing waits for calls that cannot be aborted; what takes longer ends as a daemon."""

Infer = Callable[[Prepared], Raw]


@dataclass(frozen=True)
class Found:
    """One frame with what the model found in it."""

    frame: Frame
    detections: Detections
    times: Tuple[float, float, float, float]
    """Seconds of each of STAGES; capture is waiting for the source."""
    panoptic: Optional[Panoptic] = None
    """How the frame is divided, by a model that tells things from stuff."""


class Pipeline:
    """Detections of a source's frames, in order, while the next frames are already read and inferred.

    A lane is a thread that reads a frame, lays it out, infers and finishes; while the caller draws and writes one
    frame, the lanes are at the next. A live source has one lane, which takes the newest frame when it is free: the
    least age. A file has as many as use the machine best, one thread to a call: the most frames a second.
    What goes wrong in a lane is raised here in the place of its frame. Frames under way are bounded, so that a
    caller that is slow makes the lanes wait and not the memory grow.

    Args:
        detector: stays open.
        source: is closed.
        lanes: None chooses as above.
        limit: how many frames are read at most.
        least: the least score of what is found; None is the detector's own threshold.
    """

    def __init__(
        self,
        detector: Detector,
        source: Source,
        *,
        lanes: Optional[int] = None,
        limit: Optional[int] = None,
        least: Optional[float] = None,
    ) -> None:
        if lanes is not None and lanes < 1:
            raise ConfigError(f"[Pipeline] lanes must be 1 or more, got {lanes}")
        self._detector, self._source, self._left, self._least = detector, source, limit, least
        calls, self._infer, self._abort = detector.calls(most=lanes or (1 if source.live else MOST_LANES))
        # One lane more than calls where that is one, so that a file is read while the model is busy.
        self.lanes = lanes or (1 if source.live else max(2, calls))
        self._room = self.lanes + 1
        self._calls = threading.Semaphore(calls)
        self._reading = threading.Lock()
        self._change = threading.Condition()
        self._slots: Deque[_Slot] = deque()
        self._held = 0
        self._ended = self._closing = False
        self._threads: List[threading.Thread] = []
        self._frames: Iterator[Frame] = iter(())

    def __iter__(self) -> Iterator[Found]:
        """Start the lanes and give what they find. Iterate once."""
        self._frames = iter(self._source)
        # A daemon that is inside native code when the interpreter goes down aborts the process.
        atexit.register(self.close)
        for number in range(self.lanes):
            thread = threading.Thread(target=self._work, name=f"detrx-lane-{number}", daemon=True)
            self._threads.append(thread)
            thread.start()
        try:
            while True:
                slot = self._next()
                if slot is None:
                    return
                yield slot.found()
                self._free()
        finally:
            self.close()

    def close(self) -> None:
        """End the lanes and close the source. Closing twice does nothing."""
        atexit.unregister(self.close)
        with self._change:
            self._closing = True
            self._change.notify_all()
        self._abort()
        self._source.close()
        # All of them together, and once: many lanes, or a second closing, must not wait many times as long.
        end, threads, self._threads = time.monotonic() + JOIN_SECONDS, self._threads, []
        for thread in threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, end - time.monotonic()))

    def _next(self) -> Optional[_Slot]:
        """The oldest slot once it is done; None at the end, and once closed: what is under way was aborted."""

        def ready() -> bool:
            return self._closing or (self._slots[0].done if self._slots else self._ended)

        with self._change:
            self._change.wait_for(ready)
            return self._slots.popleft() if self._slots and not self._closing else None

    def _free(self) -> None:
        with self._change:
            self._held -= 1
            self._change.notify_all()

    def _work(self) -> None:
        """A lane."""
        while True:
            slot = self._take()
            if slot is None:
                return
            slot.fill(self._detector, self._infer, self._calls)
            with self._change:
                slot.done = True
                self._change.notify_all()

    def _take(self) -> Optional[_Slot]:
        """The next frame of the source in a slot of its own; one lane at a time, so that slots are in order."""
        with self._reading:
            with self._change:
                self._change.wait_for(lambda: self._held < self._room or self._ended or self._closing)
                if self._ended or self._closing:
                    return None
                self._held += 1
            slot = self._read()
            with self._change:
                self._ended = slot is None or slot.error is not None or self._left == 0
                if slot is not None:
                    slot.done = slot.error is not None
                    self._slots.append(slot)
                self._change.notify_all()
            return slot if slot is not None and slot.error is None else None

    def _read(self) -> Optional[_Slot]:
        start = time.perf_counter()
        try:
            frame = next(self._frames, None)
        # A thread's exception would only be printed; it is raised by the iterator, in its turn.
        except BaseException as error:
            return _Slot(None, 0.0, error)
        if self._left is not None:
            self._left -= 1
        return None if frame is None else _Slot(frame, time.perf_counter() - start, least=self._least)


class _Slot:
    """A frame under way."""

    def __init__(
        self,
        frame: Optional[Frame],
        waited: float,
        error: Optional[BaseException] = None,
        *,
        least: Optional[float] = None,
    ) -> None:
        self.error = error
        self._least = least
        self.done = False
        self._frame, self._waited = frame, waited
        self._found: Optional[Found] = None

    def fill(self, detector: Detector, infer: Infer, calls: threading.Semaphore) -> None:
        if self._frame is None:
            return
        try:
            self._found = self._detect(self._frame, detector, infer, calls)
        # As above: told to whoever waits for this frame.
        except BaseException as error:
            self.error = error

    def found(self) -> Found:
        if self.error is not None:
            raise self.error
        if self._found is None:
            raise RuntimeError("[Pipeline] a slot was taken before it was done")
        return self._found

    def _detect(self, frame: Frame, detector: Detector, infer: Infer, calls: threading.Semaphore) -> Found:
        start = time.perf_counter()
        pixels, boxes = detector.prepare([frame.image])
        laid = time.perf_counter()
        with calls:
            begun = time.perf_counter()
            raw = infer(pixels)
            inferred = time.perf_counter()
        found = detector.finish(raw, 0, boxes[0], threshold=self._least)
        panoptic = detector.divide(raw, 0, boxes[0]) if detector.info.things else None
        finish = time.perf_counter() - inferred
        return Found(frame, found, (self._waited, laid - start, inferred - begun, finish), panoptic)


def open_pipeline(
    detector: Detector, uri: Union[str, int, Path], *, timeout: float, track: bool, smooth: bool
) -> Iterator[Found]:
    """What :meth:`detrx.detector.Detector.stream` calls; the source is opened at the first frame."""
    high = detector.threshold
    tracker = Tracker(high=high) if track or smooth else None
    smoother = Smoother() if smooth else None
    least = None if tracker is None else min(high, tracker.config.low)
    pipeline = Pipeline(detector, open_source(uri, timeout=timeout), least=least)
    try:
        for found in pipeline:
            objects = found.detections
            if tracker is not None:
                objects = worth_showing(tracker(found.frame, objects), high)
            yield replace(found, detections=objects if smoother is None else smoother(found.frame, objects))
    finally:
        pipeline.close()
