"""One door for everything that has pictures: ``open_source``."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple, Union
from urllib.parse import urlsplit

from detrx.errors import SourceError
from detrx.images import IMAGE_SUFFIXES
from detrx.live.camera import CameraPlace, CameraReader
from detrx.live.capture import LiveSource, Patience, Reader
from detrx.live.files import PictureSource, VideoSource
from detrx.live.frames import OnState, Source, redact
from detrx.live.gstreamer import csi_pipeline, is_pipeline, open_gstreamer, pipeline_of
from detrx.live.mjpeg import open_mjpeg
from detrx.live.scenes import SceneReader, SceneSource, parse_scene

__all__ = ["Source", "open_source"]

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
STREAMS = ("http", "https", "rtmp", "rtsp", "rtsps", "srt", "tcp", "udp")
KNOWN = (
    "0, /dev/video0, v4l2://0, csi://0, rtsp://..., http://..., 'gst://...', a video, a picture, a folder, "
    "'photos/*.jpg' or test://shapes"
)


class _Live(NamedTuple):
    """How live sources are waited for, and who is told."""

    patience: Patience
    on_state: Optional[OnState]

    def open(self, open_reader: Callable[[], Reader], *, name: str) -> Source:
        return LiveSource(open_reader, name=name, patience=self.patience, on_state=self.on_state)

    @property
    def timeout(self) -> float:
        return self.patience.timeout


def open_source(
    uri: Union[str, int, Path],
    *,
    timeout: float = 5.0,
    retry: Optional[float] = None,
    on_state: Optional[OnState] = None,
) -> Source:
    """Open a camera, stream, video, picture, folder, glob pattern or generated scene.

    Args:
        uri: 0, "/dev/video0", "v4l2:///dev/video0?size=720x1280&fps=30&format=MJPG", "csi://0?size=720x1280&fps=30",
            "rtsp://...", "http://...", "gst://videotestsrc" or any text with " ! ", "a.mp4", "photo.jpg", "photos/",
            "photos/*.jpg", "test://shapes?fps=30&size=480x640&seed=0&frames=300&live=1".
        timeout: seconds to wait for a live source to open, and for each of its frames.
        retry: seconds that a live source which was lost is sought before it is an error; 0 not at all, None for ever.
        on_state: told of each change of a live source, from a thread: connecting, live, lost, frozen, ended.

    Raises:
        SourceError: there is no such thing, or it does not open in time. No password appears in the message.
        MissingBackendError: it needs OpenCV or GStreamer, which is not installed.
    """
    if not timeout > 0 or (retry is not None and not retry >= 0):
        raise SourceError(
            f"[open_source] timeout must be over 0 seconds and retry 0 or more, got {timeout}, {retry}"
        )
    text = str(uri).strip()
    if not text:
        raise SourceError(f"[open_source] nothing at ''; it takes {KNOWN}")
    live = _Live(Patience(timeout=timeout, retry=retry), on_state)
    if text.isdigit() or text.startswith("/dev/"):
        return _open_camera(text, live)
    if is_pipeline(text):
        return _open_pipeline(pipeline_of(text), redact(text), live)
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if scheme == "file":
        return _open_files(urlsplit(text).path)
    return _open_scheme(text, scheme, live) if scheme else _open_files(text)


def _open_scheme(text: str, scheme: str, live: _Live) -> Source:
    if scheme == "test":
        return _open_scene(text, live)
    if scheme == "csi":
        return _open_pipeline(csi_pipeline(text), text, live)
    if scheme == "v4l2":
        return _open_v4l2(text, live)
    return _open_stream(text, scheme, live)


def _open_camera(text: str, live: _Live) -> Source:
    if text.startswith("/dev/v4l/"):
        text = str(Path(text).resolve())
    number = text[len("/dev/video") :] if text.startswith("/dev/video") else text
    if not number.isdigit():
        raise SourceError(f"[open_source] a camera is /dev/video and a number, got {text!r}")
    place, name = CameraPlace(int(number)), f"camera {number}"
    return live.open(lambda: CameraReader(place.find(), name=name, timeout=live.timeout), name=name)


def _open_pipeline(pipeline: str, name: str, live: _Live) -> Source:
    return live.open(lambda: open_gstreamer(pipeline, name=name), name=name)


def _open_v4l2(text: str, live: _Live) -> Source:
    # Its system calls are Linux's; elsewhere even the import fails.
    try:
        from detrx.live.v4l2 import V4l2Reader, parse_v4l2
    except ImportError as error:
        raise SourceError(
            f"[open_source] v4l2:// needs Linux ({error}); `0` opens a camera everywhere"
        ) from None
    options = parse_v4l2(text)
    return live.open(lambda: V4l2Reader(options, name=options.path, timeout=live.timeout), name=options.path)


def _open_scene(text: str, live: _Live) -> Source:
    options = parse_scene(text)
    return (
        live.open(lambda: SceneReader(options), name=text)
        if options.live
        else SceneSource(options, name=text)
    )


def _open_stream(text: str, scheme: str, live: _Live) -> Source:
    name = redact(text)
    if scheme not in STREAMS:
        raise SourceError(f"[open_source] detrx knows no {scheme}:// sources, got {name}; it takes {KNOWN}")
    web = scheme in ("http", "https")
    if web and urlsplit(text).path.lower().endswith(VIDEO_SUFFIXES):
        return VideoSource(text, timeout=live.timeout)

    def open_reader() -> Reader:
        reader = open_mjpeg(text, name=name, timeout=live.timeout) if web else None
        return reader or CameraReader(text, name=name, timeout=live.timeout)

    return live.open(open_reader, name=name)


def _open_files(text: str) -> Source:
    path = Path(text).expanduser()
    if path.is_dir():
        return PictureSource(_pictures_under(path), name=text)
    if path.is_file():
        return _open_file(path)
    # Path.glob takes no absolute pattern.
    found = [Path(name) for name in sorted(glob.glob(str(path), recursive=True))]  # noqa: PTH207
    pictures = [name for name in found if name.suffix.lower() in IMAGE_SUFFIXES]
    if pictures:
        return PictureSource(pictures, name=text)
    raise SourceError(f"[open_source] nothing at {text!r}; it takes {KNOWN}")


def _open_file(path: Path) -> Source:
    return (
        VideoSource(path) if path.suffix.lower() in VIDEO_SUFFIXES else PictureSource([path], name=str(path))
    )


def _pictures_under(folder: Path) -> Tuple[Path, ...]:
    # By name alone: what is no file after all is skipped with its reason, not passed over in silence.
    found: List[Path] = sorted(p for p in folder.rglob("*") if p.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise SourceError(
            f"[open_source] no pictures under {folder}; looked for {', '.join(sorted(IMAGE_SUFFIXES))}"
        )
    return tuple(found)
