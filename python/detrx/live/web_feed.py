"""What the web page shows: the newest frame as one JPEG for all who look, and the numbers beside it. Knows no HTTP."""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Any, Deque, Dict, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.draw import draw
from detrx.errors import ConfigError
from detrx.images import opencv
from detrx.live.loop import STAGES, FrameTimes
from detrx.types import Detections, Frame

REMEMBERED = 90
"""Frames that rates and medians are taken over."""
SHARED = 0.5
"""Seconds that a picture may be old for viewers who are slow: however many, they cost two pictures a second."""
FRESH = 0.2
"""Seconds that numbers may be old: many who look share one calculation."""


@dataclass(frozen=True)
class Look:
    """Which objects the page shows; one for all who look."""

    threshold: float
    """The least score, in [0, 1]."""
    classes: Optional[Tuple[int, ...]] = None
    """The labels that are shown; None for all."""

    def keeps(self, found: Detections) -> NDArray[np.bool_]:
        """(N,) whether each object is shown."""
        keep: NDArray[np.bool_] = found.scores >= self.threshold
        return keep if self.classes is None else keep & np.isin(found.labels, self.classes)


@dataclass(frozen=True)
class Picture:
    """One JPEG for everybody."""

    number: int
    """Counts what was encoded, from 1."""
    jpeg: bytes
    frame: int
    """The index of the frame in its source."""
    age: float
    """Seconds from the camera to here."""


@dataclass(frozen=True)
class _Taken:
    number: int
    frame: Frame
    found: Detections
    captured: float
    """On the clock of ``time.monotonic()``."""


class Feed:
    """Takes frames from the loop and gives pictures and numbers to any number of threads.

    The loop never waits: ``take`` swaps one reference. A thread of its own draws and encodes the newest frame when, and
    only when, somebody waits for a picture; what is too slow for the camera just sees fewer of them.
    """

    def __init__(
        self, look: Look, *, classes: int, least: float = 0.0, width: int = 960, quality: int = 75
    ) -> None:
        self.least = least
        """Nothing under this score comes from the detector, so that no look may ask for it."""
        self.looking = 0
        """Streams that are open."""
        self.encoded = 0
        """Pictures that were drawn and encoded so far."""
        self.closed = False
        self._classes, self._width, self._quality = classes, width, quality
        lock = threading.RLock()
        # Apart, so that a frame wakes one thread and not everybody who looks.
        self._change, self._work = threading.Condition(lock), threading.Condition(lock)
        self._look = look
        self._taken: Optional[_Taken] = None
        self._picture: Optional[Picture] = None
        self._encoded_from: Tuple[int, Look] = (0, look)
        self._state, self._why, self._since = "connecting", "", time.monotonic()
        self._news = 0
        self._waiting = self._patient = 0
        self._arrivals: Deque[float] = deque(maxlen=REMEMBERED)
        self._rows: Deque[FrameTimes] = deque(maxlen=REMEMBERED)
        self._encoding = self._made = 0.0
        self._status: Tuple[float, int, Dict[str, Any]] = (0.0, -1, {})
        self._thread = threading.Thread(target=self._encode, name="detrx-web-encode", daemon=True)
        self._thread.start()

    def take(
        self, frame: Frame, found: Detections, times: FrameTimes, *, age: Optional[float] = None
    ) -> None:
        """The newest frame with all that was found in it and the seconds of each stage.

        Args:
            frame: is kept until the next one.
            found: everything from ``least`` on.
            times: as the loop tells them.
            age: seconds since it was captured; None counts from where the loop got it.
        """
        now = time.monotonic()
        with self._change:
            number = 1 if self._taken is None else self._taken.number + 1
            self._taken = _Taken(number, frame, found, now - (sum(times[1:]) if age is None else age))
            self._arrivals.append(now)
            self._rows.append(times)
            # After the first frame the source tells what becomes of it.
            if self._state == "connecting":
                self._enter("live", "")
            self._work.notify()

    def state(self, name: str, why: str = "") -> None:
        """What became of the source: connecting, live, lost, frozen or ended."""
        with self._change:
            if (name, why) != (self._state, self._why):
                self._enter(name, why)
                self._change.notify_all()

    def _enter(self, name: str, why: str) -> None:
        self._state, self._why, self._since = name, why, time.monotonic()
        self._news += 1

    @property
    def look(self) -> Look:
        return self._look

    def change_look(self, *, threshold: object, classes: object) -> Look:
        """Show other objects from the next picture on, which comes at once.

        Raises:
            ConfigError: no score from ``least`` to 1, or not a list of labels or None.
        """
        if isinstance(threshold, bool) or not isinstance(threshold, (int, float)):
            raise ConfigError(f"[web] threshold must be a number, got {threshold!r}")
        if not self.least <= threshold <= 1:
            raise ConfigError(f"[web] threshold must be in [{self.least:g}, 1], got {threshold}")
        look = Look(float(threshold), self._check_classes(classes))
        with self._change:
            self._look = look
            self._news += 1
            self._change.notify_all()
            self._work.notify()
        return look

    def _check_classes(self, classes: object) -> Optional[Tuple[int, ...]]:
        if classes is None:
            return None
        if not isinstance(classes, (list, tuple)) or not all(
            isinstance(label, int) and not isinstance(label, bool) and 0 <= label < self._classes
            for label in classes
        ):
            raise ConfigError(f"[web] classes must be labels from 0 to {self._classes - 1}, or null for all")
        return tuple(sorted(set(classes)))

    def picture(self, *, after: int, timeout: float, patient: bool = False) -> Optional[Picture]:
        """The first picture later than number ``after`` that is not stale, or None when none comes in time.

        Args:
            patient: who is slow anyhow takes one that is up to ``SHARED`` seconds old.
        """
        with self._change:
            before = 0 if self._picture is None else self._picture.number
            shared = patient and time.monotonic() - self._made < SHARED

            def fits() -> bool:
                newest = self._picture
                if newest is None or newest.number <= after:
                    return self.closed
                # What was encoded for another before this one asked may be seconds old.
                return shared or newest.number > before or not self._due() or self.closed

            self._waiting += not patient
            self._patient += patient
            self._work.notify()
            try:
                arrived = self._change.wait_for(fits, timeout)
            finally:
                self._waiting -= not patient
                self._patient -= patient
            return self._picture if arrived and not self.closed else None

    def snapshot(self) -> Optional[bytes]:
        """The newest frame as a JPEG of its own size and high quality; None before the first."""
        with self._change:
            taken, look = self._taken, self._look
        if taken is None:
            return None
        return encode(taken.frame, taken.found[look.keeps(taken.found)], width=None, quality=95)

    def news(self, *, seen: int, timeout: float) -> int:
        """Wait until state or look changed from what ``seen`` counted, or the time is over; the present count."""
        with self._change:
            self._change.wait_for(lambda: self._news != seen or self.closed, timeout)
            return self._news

    def status(self) -> Dict[str, Any]:
        """The numbers beside the picture, ready for JSON; times in milliseconds, ``for`` and ``silent`` in seconds."""
        now = time.monotonic()
        with self._change:
            at, news, _ = self._status
            if now - at > FRESH or news != self._news:
                self._status = (now, self._news, self._count(now))
            return self._status[2]

    def close(self) -> None:
        """End every wait."""
        with self._change:
            self.closed = True
            self._change.notify_all()
            self._work.notify()
        self._thread.join(timeout=1.0)

    def _count(self, now: float) -> Dict[str, Any]:
        taken, look = self._taken, self._look
        status: Dict[str, Any] = {
            "state": self._state,
            "why": self._why,
            "for": round(now - self._since, 1),
            "looking": self.looking,
            "threshold": look.threshold,
            "classes": look.classes,
            "frame": None,
        }
        if taken is None:
            return status
        labels, counts = np.unique(taken.found.labels[look.keeps(taken.found)], return_counts=True)
        medians = np.median(np.array(self._rows, dtype=np.float64), axis=0) * 1000
        return {
            **status,
            "frame": taken.frame.index,
            "dropped": max(0, taken.frame.index + 1 - taken.number),
            "size": [int(taken.frame.image.shape[1]), int(taken.frame.image.shape[0])],
            "silent": round(now - self._arrivals[-1], 2),
            "fps": round(rate(self._arrivals), 2),
            "age": round((self._arrivals[-1] - taken.captured) * 1000, 1),
            "stages": {stage: round(float(value), 2) for stage, value in zip(STAGES, medians)},
            "encoding": round(self._encoding * 1000, 2),
            "counts": {str(int(label)): int(count) for label, count in zip(labels, counts)},
        }

    def _due(self) -> bool:
        return self._taken is not None and (self._taken.number, self._look) != self._encoded_from

    def _wait_for_work(self) -> None:
        while not self.closed:
            due, rest = self._due(), self._made + SHARED - time.monotonic()
            if due and (self._waiting or (self._patient and rest <= 0)):
                return
            self._work.wait(max(rest, 0.01) if due and self._patient else None)

    def _encode(self) -> None:
        while True:
            with self._change:
                self._wait_for_work()
                taken, look = self._taken, self._look
            if self.closed or taken is None:
                return
            begun = time.monotonic()
            jpeg = encode(
                taken.frame, taken.found[look.keeps(taken.found)], width=self._width, quality=self._quality
            )
            with self._change:
                self.encoded += 1
                self._encoded_from = (taken.number, look)
                now = time.monotonic()
                age, self._encoding, self._made = now - taken.captured, now - begun, now
                self._picture = Picture(self.encoded, jpeg, taken.frame.index, age)
                self._change.notify_all()


def rate(arrivals: Sequence[float]) -> float:
    """Per second, from times that rise; 0 for fewer than two."""
    span = arrivals[-1] - arrivals[0] if len(arrivals) > 1 else 0.0
    return (len(arrivals) - 1) / span if span > 0 else 0.0


def encode(frame: Frame, found: Detections, *, width: Optional[int], quality: int) -> bytes:
    """The frame with its objects as a JPEG, at most ``width`` pixels wide."""
    cv2 = opencv()
    picture = draw(frame.image, found)
    if width is not None and picture.shape[1] > width:
        height = max(1, round(picture.shape[0] * width / picture.shape[1]))
        picture = cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)
    content: bytes = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
    return content
