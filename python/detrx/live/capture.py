"""Sources that do not wait: a thread keeps only the newest frame, another watches it and opens anew."""

from __future__ import annotations

import logging
import random
import threading
import time
from dataclasses import dataclass
from typing import Callable, Iterator, List, Optional

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DetrxError, SourceError
from detrx.live.frames import OnState, Source, State, redact
from detrx.live.health import BadFrame, Frozen, is_broken
from detrx.types import Frame

log = logging.getLogger(__name__)

GRACE = 0.5
"""Seconds beyond the timeout that a reader's own time limit is left to act in."""
CLOSING = 1.0
"""Seconds that closing waits for a reader to come back from its library; later it frees the device by itself."""
MOST_STUCK = 8
"""Threads that hang in a driver or library before the source is given up."""


class Reader:
    """What the capture thread reads from; it opens, reads and closes in that thread alone."""

    fps: float = 30.0

    def read(self) -> Optional[NDArray[np.uint8]]:
        """The next (H, W, 3) RGB frame, or None when there are no more.

        Raises:
            BadFrame: this one is damaged; the next may be whole.
            SourceError: the connection is lost.
        """
        raise NotImplementedError

    def stop(self) -> None:
        """Make a read under way return soon. Called from another thread; may do nothing."""

    def close(self) -> None:
        """Free the device."""


@dataclass(frozen=True)
class Patience:
    """How long a source is waited for, in seconds."""

    timeout: float = 5.0
    """To open, and for each frame."""
    retry: Optional[float] = None
    """How long a lost source is sought before it is an error: 0 not at all, None for ever."""
    first: float = 0.5
    """Before the first try to open anew; doubled before each further one."""
    most: float = 30.0
    """The longest time between two tries."""
    jitter: float = 0.2
    """Share by which a wait is made longer at random, so that not all cameras call at once."""
    frozen: float = 10.0
    """A picture that is the same bit for bit for so long is frozen, and the source opened anew, once."""

    def wait(self, tries: int) -> float:
        """Seconds before the try after so many that failed."""
        plain = min(self.most, self.first * 2.0 ** min(tries, 30))
        return plain * (1 + self.jitter * random.random())


class LiveSource(Source):
    """The newest frame of a reader, one slot: what was not fetched in time is counted in ``dropped``.

    The reader may hang - OpenCV's streams do - so a second thread watches: one that gives nothing for too long is
    left behind as a daemon and the source opened anew, after waits that double. The first time it must open and
    give a frame, else that is an error.
    """

    live = True

    def __init__(
        self,
        open_reader: Callable[[], Reader],
        *,
        name: str,
        patience: Patience = Patience(),
        on_state: Optional[OnState] = None,
    ) -> None:
        self.name = name
        self.patience = patience
        self._open_reader, self._on_state = open_reader, on_state
        self._change = threading.Condition()
        self._frame: Optional[Frame] = None
        self._error: Optional[Exception] = None
        self._opened = self._ended = self._closing = False
        self._count = 0
        self._attempt: Optional[_Attempt] = None
        self._stuck: List[threading.Thread] = []
        self._frozen = Frozen(patience.frozen)
        self._start = time.monotonic()
        self._tell("connecting")
        self._thread = threading.Thread(target=self._supervise, name="detrx-watchdog", daemon=True)
        self._thread.start()
        self._wait_until_open()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._frame is not None or self._ended or self._closing)
                frame, self._frame = self._frame, None
                error = None if self._closing else self._error
            if frame is not None:
                yield frame
            elif error is not None:
                raise error
            else:
                return

    def now(self) -> float:
        return time.monotonic() - self._start

    def close(self) -> None:
        with self._change:
            first, self._closing = not self._closing, True
            self._change.notify_all()
        if first and self._thread is not threading.current_thread():
            self._thread.join(CLOSING)

    def put(self, attempt: _Attempt, image: NDArray[np.uint8]) -> None:
        """What an attempt's thread read; one that was left behind is not listened to."""
        broken = is_broken(image)
        with self._change:
            if attempt is not self._attempt:
                return
            if broken:
                self.corrupt += 1
                return
            attempt.alive = time.monotonic()
            attempt.frames += 1
            self.dropped += self._frame is not None
            self._frame = Frame(image, self._count, self.now(), self.name)
            self._count += 1
            self._frozen.see(image)
            self._change.notify_all()

    def count_bad(self) -> None:
        with self._change:
            self.corrupt += 1

    def told(self, attempt: _Attempt) -> None:
        """An attempt opened or ended."""
        with self._change:
            if attempt is self._attempt:
                self.fps = attempt.fps or self.fps
                self._opened = self._opened or attempt.opened
            self._change.notify_all()

    def _wait_until_open(self) -> None:
        with self._change:
            self._change.wait_for(lambda: self._ended or self._opened)
            error = self._error
        if error is not None:
            raise error

    def _supervise(self) -> None:
        """The watching thread: one attempt after the other."""
        tries, lost = 0, 0.0
        while True:
            attempt = _Attempt(self, self._open_reader)
            with self._change:
                self._attempt = attempt
            attempt.start()
            reason = self._watch(attempt)
            self._leave(attempt)
            now = time.monotonic()
            if attempt.frames:
                tries = tries if attempt.alive - attempt.began < self.patience.wait(tries) else 0
                lost = attempt.alive
            if reason is None or not self._count or self._gave_up(now - lost):
                return self._end(reason)
            wait = self.patience.wait(tries)
            self._tell("lost", f"{reason}; tried again in {wait:.1f} s")
            if self._pause(wait):
                return self._end(None)
            tries += 1
            self.reconnects += 1
            self._tell("connecting")

    def _watch(self, attempt: _Attempt) -> Optional[Exception]:
        """Wait until an attempt ends, hangs or freezes; why it has to be opened anew, or None for the end."""
        limit = self.patience.timeout + GRACE
        while True:
            with self._change:
                left = attempt.alive + limit - time.monotonic()
                before = attempt.frames
                self._change.wait_for(
                    lambda: attempt.ended or self._closing or attempt.frames > before,  # noqa: B023
                    max(0.0, left),
                )
                if self._closing:
                    return None
                if attempt.ended:
                    return attempt.error
                silent = time.monotonic() - attempt.alive >= limit
                frozen, anew = self._frozen.state()
            if silent:
                return self._silence(attempt)
            self._tell("frozen" if frozen else "live" if attempt.frames else "connecting")
            if anew:
                return SourceError(f"[open_source] {self.name} sends the same picture again and again")

    def _silence(self, attempt: _Attempt) -> SourceError:
        timeout = self.patience.timeout
        if not attempt.opened:
            return SourceError(
                f"[open_source] {self.name} did not open within {timeout:g} s; "
                f"check address, port and password, or allow more with a longer timeout"
            )
        return SourceError(
            f"[open_source] {self.name} gave no frame for {timeout:g} s; "
            f"check the cable or network, or allow more with a longer timeout"
        )

    def _leave(self, attempt: _Attempt) -> None:
        """Listen to it no more; its thread closes the reader when it comes back, if ever."""
        with self._change:
            self._attempt = None
        attempt.stop()
        attempt.join(0.5)
        self._stuck = [thread for thread in (*self._stuck, attempt) if thread.is_alive()]

    def _gave_up(self, lost_for: float) -> bool:
        retry = self.patience.retry
        return len(self._stuck) >= MOST_STUCK or (retry is not None and lost_for >= retry)

    def _pause(self, seconds: float) -> bool:
        """Wait; whether the source was closed meanwhile."""
        with self._change:
            return self._change.wait_for(lambda: self._closing, seconds)

    def _end(self, error: Optional[Exception]) -> None:
        self._tell("ended", str(error or ""))
        with self._change:
            self._ended, self._error = True, error
            self._change.notify_all()

    def _tell(self, name: str, why: str = "") -> None:
        if name == self.state.name:
            return
        self.state = State(name, time.time(), why)
        log.log(
            logging.WARNING if name in ("lost", "frozen") else logging.INFO, "%s: %s %s", self.name, name, why
        )
        if self._on_state is not None:
            try:
                self._on_state(self.state)
            # Whatever a callback raises must not end the watching.
            except Exception:
                log.exception("on_state failed")


class _Attempt(threading.Thread):
    """One connection, from opening to its end; whatever ends it is told to the watching thread."""

    def __init__(self, source: LiveSource, open_reader: Callable[[], Reader]) -> None:
        super().__init__(name="detrx-capture", daemon=True)
        self.began = self.alive = time.monotonic()
        self.frames = 0
        self.fps: Optional[float] = None
        self.opened = self.ended = False
        self.error: Optional[Exception] = None
        self._source, self._open_reader = source, open_reader
        self._stopped = False
        self._reader: Optional[Reader] = None

    def run(self) -> None:
        try:
            self._read_all()
        except DetrxError as known:
            self.error = known
        # A thread's exception would only be printed; here it is raised in whoever reads.
        except Exception as unknown:
            self.error = SourceError(f"[open_source] {self._source.name} failed: {redact(str(unknown))}")
        self.ended = True
        self._source.told(self)

    def stop(self) -> None:
        self._stopped = True
        reader = self._reader
        if reader is not None:
            reader.stop()

    def _read_all(self) -> None:
        reader = self._reader = self._open_reader()
        try:
            self.fps, self.opened, self.alive = reader.fps, True, time.monotonic()
            self._source.told(self)
            while not self._stopped:
                try:
                    image = reader.read()
                except BadFrame:
                    self._source.count_bad()
                    continue
                if image is None:
                    return
                self._source.put(self, image)
        finally:
            reader.close()
