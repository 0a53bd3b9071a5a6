"""Where frames and detections end: pictures, video, records, a window."""

from __future__ import annotations

import csv
import errno
import json
import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx import rle
from detrx.errors import SourceError
from detrx.images import IMAGE_SUFFIXES, opencv
from detrx.live.frames import FALLBACK_FPS
from detrx.types import Detections, Frame, Panoptic

LEAST_FREE = 16 << 20
"""Bytes of the disk that a recording leaves free."""
LOOK_EVERY = 30
"""Frames from one look at the disk to the next."""


@dataclass(frozen=True)
class Shown:
    """One frame at the end of the loop."""

    frame: Frame
    found: Detections
    picture: NDArray[np.uint8]
    """(H, W, 3) RGB: with the boxes on it where a sink wants them, else the frame's own image."""
    age: Optional[float] = None
    """Seconds since the frame was captured, of a live source."""
    panoptic: Optional[Panoptic] = None
    """How the frame is divided, by a panoptic model."""


class Sink:
    """Takes each frame with what was found in it. ``close`` finishes the file, also after Ctrl-C."""

    wants_picture: bool = False
    """Whether ``write`` needs the boxes drawn; nothing is drawn where no sink wants it."""

    def write(self, shown: Shown) -> None:
        """Take one frame."""
        raise NotImplementedError

    def close(self) -> None:
        """Finish. Closing twice does nothing."""


class StopLoop(Exception):  # noqa: N818 - a request, not an error
    """What a sink raises when its user asks to stop."""


class PictureSink(Sink):
    """One annotated picture a frame: the file's own name, or ``frame_000012.jpg`` where there is no file."""

    wants_picture = True

    def __init__(self, folder: Path, *, root: Optional[Path] = None) -> None:
        """``root`` is the folder of the source: what lies below it keeps its subfolders."""
        self.folder = folder
        self.written: List[Path] = []
        self._root = root
        self._taken: Dict[Path, str] = {}

    def write(self, shown: Shown) -> None:
        path = self._place(shown.frame)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_picture(path, shown.picture)
        self.written.append(path)

    def _place(self, frame: Frame) -> Path:
        source = Path(frame.name)
        if not source.is_file() or source.suffix.lower() not in IMAGE_SUFFIXES:
            return self.folder / f"frame_{frame.index:06d}.jpg"
        inside = self._root is not None and self._root in source.parents
        name = source.relative_to(self._root) if inside and self._root is not None else Path(source.name)
        path = self.folder / name.with_suffix(".jpg")
        # Two sources of one stem - a.png and a.jpg - must not overwrite each other.
        if self._taken.setdefault(path, frame.name) != frame.name:
            path = path.with_name(f"{source.stem}_{source.suffix[1:].lower()}_{frame.index:06d}.jpg")
            self._taken[path] = frame.name
        return path


class VideoSink(Sink):
    """One video file; playable up to the last frame whatever ends the loop."""

    wants_picture = True

    def __init__(self, path: Path, *, fps: Optional[float], codecs: Sequence[str] = ("mp4v",)) -> None:
        self.path = path
        self._fps = fps or FALLBACK_FPS
        self._codecs = codecs
        self._writer: Any = None
        self._count = 0
        self._size: Tuple[int, int] = (0, 0)

    def write(self, shown: Shown) -> None:
        cv2 = opencv()
        picture = shown.picture
        if self._writer is None:
            self._open(picture)
        self._check_disk()
        size = (picture.shape[1], picture.shape[0])
        if size != self._size:
            picture = cv2.resize(picture, self._size)
        self._writer.write(cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))

    def _check_disk(self) -> None:
        """OpenCV's writer says nothing of a full disk; stopping before leaves room for the file's trailer."""
        self._count += 1
        if self._count % LOOK_EVERY == 1 and shutil.disk_usage(self.path.parent).free < LEAST_FREE:
            raise OSError(errno.ENOSPC, f"less than {LEAST_FREE >> 20} MiB are free", str(self.path))

    def close(self) -> None:
        writer, self._writer = self._writer, None
        if writer is not None:
            writer.release()

    def _open(self, picture: NDArray[np.uint8]) -> None:
        """Most codecs need even sides."""
        cv2 = opencv()
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._size = (max(2, picture.shape[1] // 2 * 2), max(2, picture.shape[0] // 2 * 2))
        for codec in self._codecs:
            writer = cv2.VideoWriter(str(self.path), cv2.VideoWriter_fourcc(*codec), self._fps, self._size)
            if writer.isOpened():
                self._writer = writer
                return
        raise SourceError(
            f"[VideoSink] {self.path} cannot be written with {' or '.join(self._codecs)}; "
            f"check the folder's permission, or write pictures with --save pictures"
        )


class FilmSink(Sink):
    """Small JPEGs in memory, for a page that needs no codec to show them."""

    wants_picture = True

    def __init__(self, *, every: int, width: int = 480, quality: int = 72) -> None:
        self.frames: List[bytes] = []
        self._every, self._width, self._quality = every, width, quality

    def write(self, shown: Shown) -> None:
        if shown.frame.index // self._every < len(self.frames):
            return
        cv2 = opencv()
        height = round(shown.picture.shape[0] * self._width / shown.picture.shape[1])
        small = cv2.resize(shown.picture, (self._width, height), interpolation=cv2.INTER_AREA)
        bgr = cv2.cvtColor(small, cv2.COLOR_RGB2BGR)
        self.frames.append(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, self._quality])[1].tobytes())


class JsonLinesSink(Sink):
    """One JSON line a frame: frame, seconds, name, and objects with box, score, label, name, category_id, track."""

    def __init__(self, path: Path, *, says: Optional[Callable[[], Dict[str, Any]]] = None) -> None:
        """``says`` is asked at each frame for more keys of its line."""
        self.path = path
        self._says = says
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: Any = path.open("w", encoding="utf-8")

    def write(self, shown: Shown) -> None:
        frame, found = shown.frame, shown.found
        more = self._says() if self._says is not None else {}
        line = {"frame": frame.index, "seconds": round(frame.seconds, 4), "name": frame.name}
        self._file.write(json.dumps({**line, "objects": as_objects(found), **more}) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class CsvSink(Sink):
    """One line an object, for tables: ``COLUMNS`` are its head; box in pixels, a frame without objects has no line."""

    COLUMNS = (
        "frame", "seconds", "source", "name", "label", "category_id", "score", "x0", "y0", "x1", "y1", "track"
    )  # fmt: skip

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        self._file: Any = path.open("w", encoding="utf-8", newline="")
        self._lines = csv.writer(self._file)
        self._lines.writerow(self.COLUMNS)

    def write(self, shown: Shown) -> None:
        frame = shown.frame
        for found in as_objects(shown.found):
            start = [frame.index, round(frame.seconds, 4), frame.name]
            says = [found[key] for key in ("name", "label", "category_id", "score")]
            self._lines.writerow([*start, *says, *found["box"], found.get("track", "")])
        self._file.flush()

    def close(self) -> None:
        self._file.close()


class CocoSink(Sink):
    """COCO results with the list of their images, written at the end through a temporary file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._images: List[Dict[str, Any]] = []
        self._annotations: List[Dict[str, Any]] = []
        self._categories: List[Dict[str, Any]] = []
        self._closed = False

    def write(self, shown: Shown) -> None:
        frame, found = shown.frame, shown.found
        image_id = len(self._images) + 1
        height, width = frame.image.shape[:2]
        name = frame.name if Path(frame.name).is_file() else f"{frame.name}#{frame.index}"
        self._images.append({"id": image_id, "file_name": name, "width": width, "height": height})
        for result in found.to_coco(image_id=image_id):
            box, mask = result["bbox"], result.get("segmentation")
            area = round(box[2] * box[3], 3) if mask is None else rle.area(mask)
            extra = {"id": len(self._annotations) + 1, "area": area, "iscrowd": 0}
            self._annotations.append({**result, **extra})
        if not self._categories:
            pairs = zip(found.category_ids or range(len(found.class_names)), found.class_names)
            self._categories = [{"id": int(number), "name": name} for number, name in pairs]

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        content = {"images": self._images, "annotations": self._annotations, "categories": self._categories}
        write_json(self.path, content)


class WindowSink(Sink):
    """A window on this machine's display; q, Escape or its close button ends the loop."""

    wants_picture = True

    def __init__(self, title: str = "detrx") -> None:
        self._title = title
        self._cv2 = opencv()

    def write(self, shown: Shown) -> None:
        cv2 = self._cv2
        cv2.imshow(self._title, cv2.cvtColor(shown.picture, cv2.COLOR_RGB2BGR))
        pressed = cv2.waitKey(1) & 0xFF
        closed = cv2.getWindowProperty(self._title, cv2.WND_PROP_VISIBLE) < 1
        if pressed in (ord("q"), 27) or closed:
            raise StopLoop

    def close(self) -> None:
        self._cv2.destroyAllWindows()


def why_no_window() -> Optional[str]:
    """What keeps a window from opening here, or None."""
    linux = sys.platform.startswith("linux")
    if linux and not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        return "this machine has no display (DISPLAY and WAYLAND_DISPLAY are empty)"
    gui = [line for line in opencv().getBuildInformation().splitlines() if line.strip().startswith("GUI:")]
    if gui and gui[0].split(":")[1].strip() == "NONE":
        return "this OpenCV was built without windows (opencv-python-headless)"
    return None


def as_objects(found: Detections) -> List[Dict[str, Any]]:
    """What the JSON lines say of each object: box is x0, y0, x1, y1 in pixels of the image, mask COCO's run lengths,
    track its number where it has one."""
    ids = found.category_ids
    masks = [{}] * len(found) if found.masks is None else [{"mask": rle.encode(mask)} for mask in found.masks]
    tracks = (
        [{}] * len(found)
        if found.tracks is None
        else [{"track": int(t)} if t > 0 else {} for t in found.tracks]
    )
    return [
        {
            "box": [round(float(value), 2) for value in box],
            "score": round(score, 5),
            "label": label,
            "name": str(name),
            "category_id": int(ids[label]) if ids else label,
            **track,
            **mask,
        }
        for (box, score, label), name, mask, track in zip(found, found.names, masks, tracks)
    ]


def write_json(path: Path, content: Dict[str, Any]) -> None:
    """Write a file that is there whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    part.write_text(json.dumps(content), encoding="utf-8")
    part.replace(path)


def write_picture(path: Union[str, Path], picture: NDArray[np.uint8]) -> None:
    """Write (H, W, 3) RGB as the suffix says.

    Raises:
        SourceError: it cannot be written.
    """
    cv2 = opencv()
    if not cv2.imwrite(str(path), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise SourceError(
            f"[PictureSink] {path} cannot be written; check the folder's permission and the disk"
        )
