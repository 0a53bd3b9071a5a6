"""Sources that do not wait: a capture thread keeps only the newest frame."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path
from typing import Any, Callable, Iterator, Optional, Protocol

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DetrxError, SourceError
from detrx.images import opencv
from detrx.live.frames import Source, redact, sane_fps
from detrx.types import Frame


class Reader(Protocol):
    """What the capture thread reads from; it opens, reads and closes in that thread alone."""

    fps: float

    def read(self) -> Optional[NDArray[np.uint8]]:
        """The next (H, W, 3) RGB frame, or None when there are no more."""
        ...

    def close(self) -> None: ...


class LiveSource(Source):
    """The newest frame of a reader, one slot: what was not fetched in time is counted in ``dropped``.

    The reader may hang - OpenCV's streams do - so that every wait here has an end, and a hung thread is left
    behind as a daemon.
    """

    live = True

    def __init__(self, open_reader: Callable[[], Reader], *, name: str, timeout: float = 5.0) -> None:
        self.name = name
        self._timeout = timeout
        self._change = threading.Condition()
        self._frame: Optional[Frame] = None
        self._error: Optional[Exception] = None
        self._opened = self._ended = self._closing = False
        self._start = time.monotonic()
        self._thread = threading.Thread(
            target=self._capture, args=(open_reader,), name="detrx-capture", daemon=True
        )
        self._thread.start()
        self._wait_until_open()

    def __iter__(self) -> Iterator[Frame]:
        while True:
            with self._change:
                self._change.wait_for(lambda: self._frame or self._ended or self._closing, self._timeout)
                frame, self._frame = self._frame, None
                ended, error = self._ended or self._closing, self._error
            if frame is not None:
                yield frame
            elif error is not None:
                raise error
            elif ended:
                return
            else:
                raise SourceError(
                    f"[open_source] {self.name} gave no frame for {self._timeout:g} s; "
                    f"check the cable or network, or allow more with a longer timeout"
                )

    def now(self) -> float:
        return time.monotonic() - self._start

    def close(self) -> None:
        with self._change:
            self._closing = True
            self._change.notify_all()
        if self._thread is not threading.current_thread():
            self._thread.join(timeout=2.0)

    def _wait_until_open(self) -> None:
        with self._change:
            self._change.wait_for(lambda: self._opened or self._ended, self._timeout)
            opened, error = self._opened, self._error
        if error is not None:
            raise error
        if not opened:
            self._closing = True
            raise SourceError(
                f"[open_source] {self.name} did not open within {self._timeout:g} s; "
                f"check address, port and password, or allow more with a longer timeout"
            )

    def _capture(self, open_reader: Callable[[], Reader]) -> None:
        """The thread: whatever ends it is told to the reader."""
        error: Optional[Exception] = None
        try:
            self._read_all(open_reader())
        except DetrxError as known:
            error = known
        # A thread's exception would only be printed; here it is raised in the reader.
        except Exception as unknown:
            error = SourceError(f"[open_source] {self.name} failed: {redact(str(unknown))}")
        with self._change:
            self._ended, self._error = True, error
            self._change.notify_all()

    def _read_all(self, reader: Reader) -> None:
        try:
            with self._change:
                self.fps, self._opened = reader.fps, True
                self._change.notify_all()
            index = 0
            while not self._closing:
                image = reader.read()
                if image is None:
                    return
                self._put(Frame(image, index, self.now(), self.name))
                index += 1
        finally:
            reader.close()

    def _put(self, frame: Frame) -> None:
        with self._change:
            self.dropped += self._frame is not None
            self._frame = frame
            self._change.notify_all()


class CameraReader:
    """A local camera or a network stream through OpenCV."""

    def __init__(self, place: Any, *, name: str, timeout: float) -> None:
        cv2 = opencv()
        self._cv2 = cv2
        self._name = name
        if isinstance(place, int):
            check_camera(place)
            self._capture = cv2.VideoCapture(place)
        else:
            limit = int(timeout * 1000)
            limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
            self._capture = cv2.VideoCapture(place, cv2.CAP_FFMPEG, limits)
        if not self._capture.isOpened():
            raise SourceError(_cannot_open(place, name))
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)
        self.fps = sane_fps(self._capture.get(cv2.CAP_PROP_FPS))

    def read(self) -> Optional[NDArray[np.uint8]]:
        arrived, image = self._capture.read()
        if not arrived:
            raise SourceError(
                f"[open_source] {self._name} stopped sending; check the cable or the server, then start again"
            )
        rgb: NDArray[np.uint8] = self._cv2.cvtColor(image, self._cv2.COLOR_BGR2RGB)
        return rgb

    def close(self) -> None:
        self._capture.release()


def check_camera(index: int) -> None:
    """Say what is wrong with /dev/videoN before OpenCV says only that it is.

    Raises:
        SourceError: there is no such camera, or it may not be opened.
    """
    if not Path("/dev").is_dir() or os.name != "posix":
        return
    place = Path(f"/dev/video{index}")
    if not place.exists():
        others = sorted(str(path) for path in Path("/dev").glob("video*"))
        seen = f"this machine has {', '.join(others)}" if others else "this machine has no camera"
        raise SourceError(
            f"[open_source] no camera {index}: {place} does not exist, {seen}; try `test://shapes`"
        )
    if not os.access(place, os.R_OK | os.W_OK):
        raise SourceError(
            f"[open_source] camera {index} may not be opened: no permission for {place}; "
            f"`sudo usermod -aG video $USER`, then log in again"
        )


def _cannot_open(place: Any, name: str) -> str:
    if isinstance(place, int):
        return f"[open_source] camera {place} does not open; who else holds it: `fuser -v /dev/video{place}`"
    return f"[open_source] {name} does not open; check address, port and password with `ffprobe URL`"
