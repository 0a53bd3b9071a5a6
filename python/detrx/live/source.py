"""One door for everything that has pictures: ``open_source``."""

from __future__ import annotations

import glob
from pathlib import Path
from typing import List, Tuple, Union
from urllib.parse import urlsplit

from detrx.errors import SourceError
from detrx.images import IMAGE_SUFFIXES
from detrx.live.camera import CameraReader, LiveSource
from detrx.live.files import PictureSource, VideoSource
from detrx.live.frames import Source, redact
from detrx.live.scenes import SceneReader, SceneSource, parse_scene

__all__ = ["Source", "open_source"]

VIDEO_SUFFIXES = (".avi", ".m4v", ".mkv", ".mov", ".mp4", ".mpeg", ".mpg", ".ts", ".webm", ".wmv")
STREAMS = ("http", "https", "rtmp", "rtsp", "rtsps", "srt", "tcp", "udp")
KNOWN = (
    "0, /dev/video0, rtsp://..., http://..., a video, a picture, a folder, 'photos/*.jpg' or test://shapes"
)


def open_source(uri: Union[str, int, Path], *, timeout: float = 5.0) -> Source:
    """Open a camera, stream, video, picture, folder, glob pattern or generated scene.

    Args:
        uri: 0, "/dev/video0", "rtsp://...", "http://...", "a.mp4", "photo.jpg", "photos/", "photos/*.jpg",
            "test://shapes?fps=30&size=480x640&seed=0&frames=300&live=1".
        timeout: seconds to wait for a live source to open, and for each of its frames.

    Raises:
        SourceError: there is no such thing, or it does not open in time. No password appears in the message.
        MissingBackendError: it needs OpenCV, which is not installed.
    """
    if not timeout > 0:
        raise SourceError(f"[open_source] timeout must be over 0 seconds, got {timeout}")
    text = str(uri).strip()
    if not text:
        raise SourceError(f"[open_source] nothing at ''; it takes {KNOWN}")
    if text.isdigit() or text.startswith("/dev/video"):
        return _open_camera(text, timeout)
    scheme = urlsplit(text).scheme.lower() if "://" in text else ""
    if scheme == "test":
        return _open_scene(text, timeout)
    if scheme == "file":
        return _open_files(urlsplit(text).path)
    if scheme:
        return _open_stream(text, scheme, timeout)
    return _open_files(text)


def _open_camera(text: str, timeout: float) -> Source:
    number = text[len("/dev/video") :] if text.startswith("/dev/video") else text
    if not number.isdigit():
        raise SourceError(f"[open_source] a camera is /dev/video and a number, got {text!r}")
    index = int(number)
    name = f"camera {index}"
    return LiveSource(lambda: CameraReader(index, name=name, timeout=timeout), name=name, timeout=timeout)


def _open_scene(text: str, timeout: float) -> Source:
    options = parse_scene(text)
    if options.live:
        return LiveSource(lambda: SceneReader(options), name=text, timeout=timeout)
    return SceneSource(options, name=text)


def _open_stream(text: str, scheme: str, timeout: float) -> Source:
    name = redact(text)
    if scheme not in STREAMS:
        raise SourceError(f"[open_source] detrx knows no {scheme}:// sources, got {name}; it takes {KNOWN}")
    if scheme in ("http", "https") and urlsplit(text).path.lower().endswith(VIDEO_SUFFIXES):
        return VideoSource(text)
    return LiveSource(lambda: CameraReader(text, name=name, timeout=timeout), name=name, timeout=timeout)


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
