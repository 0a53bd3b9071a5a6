"""Local cameras and network streams through OpenCV."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from detrx.errors import SourceError
from detrx.images import opencv
from detrx.live.capture import Reader
from detrx.live.frames import sane_fps


class CameraReader(Reader):
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


class CameraPlace:
    """A camera that is found again under another number after it was unplugged."""

    def __init__(self, index: int, *, dev: Path = Path("/dev")) -> None:
        self._index, self._dev = index, dev
        self._link: Optional[Path] = None

    def find(self) -> int:
        """Its present number; the first time also its lasting name is looked up."""
        if self._link is None:
            self._link = self._lasting_name()
        elif self._link.exists():
            number = self._link.resolve().name[len("video") :]
            self._index = int(number) if number.isdigit() else self._index
        return self._index

    def _lasting_name(self) -> Optional[Path]:
        node = (self._dev / f"video{self._index}").resolve()
        links = sorted((self._dev / "v4l" / "by-id").glob("*"))
        return next((link for link in links if link.resolve() == node), None)


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
