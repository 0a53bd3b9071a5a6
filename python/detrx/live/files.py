"""Sources that wait for the reader: pictures and video files, every frame of them."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Iterator, Sequence, Union

import numpy as np

from detrx.errors import DataError, SourceError
from detrx.images import opencv, read_image
from detrx.live.frames import Source, redact, sane_fps
from detrx.types import Frame

log = logging.getLogger(__name__)

CLOSING = 1.0
"""Seconds that closing a video waits for a read under way."""


class PictureSource(Source):
    """Picture files. What cannot be read is skipped with a warning and counted; a lone one is an error."""

    def __init__(self, paths: Sequence[Path], *, name: str) -> None:
        self.name = name
        self.length = len(paths)
        self.paths = paths

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        for path in self.paths:
            try:
                image = read_image(path)
            except DataError as error:
                if len(self.paths) == 1:
                    raise
                self.skipped += 1
                log.warning("skipped %s: %s", path, error)
                continue
            yield Frame(image, index, float(index), str(path))
            index += 1
        if index == 0:
            raise SourceError(
                f"[open_source] none of the {len(self.paths)} pictures of {self.name} can be read"
            )


class VideoSource(Source):
    """A video file or a URL of one. The container's frame count is not trusted."""

    def __init__(self, path: Union[str, Path], *, timeout: float = 5.0) -> None:
        cv2 = opencv()
        self.name = redact(str(path))
        limit = int(timeout * 1000)
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, limit, cv2.CAP_PROP_READ_TIMEOUT_MSEC, limit]
        remote = (cv2.CAP_FFMPEG, limits) if "://" in str(path) else ()
        # Closing while another thread reads would free what it reads from.
        self._reading = threading.Lock()
        self._closing = False
        self._capture: Any = cv2.VideoCapture(str(path), *remote)
        if not self._capture.isOpened():
            raise SourceError(
                f"[open_source] {self.name} cannot be opened as a video; "
                f"`ffprobe {self.name}` says what is in it, `ffmpeg -i IN -c:v libx264 OUT.mp4` rewrites it"
            )
        self.fps = sane_fps(self._capture.get(cv2.CAP_PROP_FPS))
        count = self._capture.get(cv2.CAP_PROP_FRAME_COUNT)
        self.length = int(count) if 0 < count < 1e9 else None

    def __iter__(self) -> Iterator[Frame]:
        cv2 = opencv()
        index = 0
        while True:
            with self._reading:
                image = None if self._closing else self._capture.read()[1]
                if self._closing:
                    self._capture.release()
            if image is None:
                break
            rgb = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
            yield Frame(np.asarray(rgb), index, index / (self.fps or 1.0), self.name)
            index += 1
        if index == 0:
            raise SourceError(f"[open_source] {self.name} holds no frame that can be decoded")
        if not self._closing and self.length is not None and index < 0.95 * self.length:
            log.warning("%s ended after %d of %d frames; it may be cut off", self.name, index, self.length)

    def close(self) -> None:
        self._closing = True
        # A read of a web address may take as long as its time limit; whoever reads then frees it.
        if self._reading.acquire(timeout=CLOSING):
            self._capture.release()
            self._reading.release()
