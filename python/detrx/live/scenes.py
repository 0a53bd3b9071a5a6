"""The camera that needs no camera: generated scenes with known truth."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, Dict, Iterator, Optional, Tuple
from urllib.parse import parse_qsl, urlsplit

import numpy as np
from numpy.typing import NDArray

from detrx.errors import SourceError
from detrx.live.capture import Reader
from detrx.live.frames import Source
from detrx.types import Detections, Frame

_SCENE = 1000
"""No scene has more objects: numbers of the next start here."""
KEYS = ("fps", "size", "seed", "frames", "cut", "live")


@dataclass(frozen=True)
class SceneOptions:
    """What a ``test://shapes`` URI says."""

    fps: float = 30.0
    """Frames to one second of the scene; the pace where ``live``."""
    size: Tuple[int, int] = (480, 640)
    """(height, width) in pixels."""
    seed: int = 0
    frames: int = 300
    """How many there are; 0 never ends."""
    cut: int = 0
    """Frames from one scene to the next; 0 stays in the first."""
    live: bool = False
    """Come at their pace as a camera's do, not whenever the reader is ready."""


class SceneSource(Source):
    """Every frame of a scene, whenever the reader is ready."""

    def __init__(self, options: SceneOptions, *, name: str) -> None:
        self.name = name
        self.fps = options.fps
        self.length = options.frames or None
        self._options = options
        self._film = Film(options)

    def __iter__(self) -> Iterator[Frame]:
        index = 0
        while self.length is None or index < self.length:
            image, _, _ = self._film.frame(index)
            yield Frame(image, index, index / self._options.fps, self.name)
            index += 1


class SceneReader(Reader):
    """The same for the capture thread, at its pace."""

    def __init__(self, options: SceneOptions) -> None:
        self.fps = options.fps
        self._options = options
        self._film = Film(options)
        self._index = 0
        self._start = time.monotonic()

    def read(self) -> Optional[NDArray[np.uint8]]:
        if self._options.frames and self._index >= self._options.frames:
            return None
        image: NDArray[np.uint8] = self._film.frame(self._index)[0]
        self._index += 1
        wait = self._start + self._index / self.fps - time.monotonic()
        if wait > 0:
            time.sleep(wait)
        return image


class Film:
    """The frames of a URI with their truth, in any order."""

    def __init__(self, options: SceneOptions) -> None:
        from detrx.data.synthetic import CLASS_NAMES, Scenes

        self.names: Tuple[str, ...] = tuple(CLASS_NAMES)
        self._make = Scenes
        self._options = options
        self._at = -1
        self._scenes: Any = None

    def frame(self, index: int) -> Tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
        """The (H, W, 3) picture, its (N, 4) boxes as corners in pixels, and their (N,) labels."""
        scenes, step = self._scene(index)
        found: Tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]] = scenes.frame(step)
        return found

    def truth(self, index: int) -> Detections:
        """What is in a frame, with the number that each object keeps; those of another scene have others."""
        scenes, step = self._scene(index)
        boxes, labels, numbers = scenes.truth(step)
        scores = np.ones(len(boxes), np.float32)
        return Detections(boxes, scores, labels, self.names, tracks=numbers + _SCENE * self._at)

    def _scene(self, index: int) -> Tuple[Any, int]:
        cut = self._options.cut
        at, step = divmod(index, cut) if cut else (0, index)
        if at != self._at:
            self._at, self._scenes = at, self._make(size=self._options.size, seed=self._options.seed + at)
        return self._scenes, step


def film_truth(uri: str) -> Dict[int, Detections]:
    """Frame -> what is in it, of a ``test://shapes`` URI.

    Raises:
        SourceError: not such a URI, or a film without an end.
    """
    options = parse_scene(uri)
    if not options.frames:
        raise SourceError(
            f"[scenes] the truth of a film without an end is asked for; add frames=300 to {uri!r}"
        )
    film = Film(options)
    return {index: film.truth(index) for index in range(options.frames)}


def parse_scene(uri: str) -> SceneOptions:
    """Read ``test://shapes?fps=30&size=480x640&seed=0&frames=300&cut=60&live=1``.

    Raises:
        SourceError: another scene, an unknown key, or a value out of range.
    """
    parts = urlsplit(uri)
    if parts.netloc != "shapes":
        raise SourceError(f"[open_source] test:// has one scene, test://shapes, got {uri!r}")
    found = dict(parse_qsl(parts.query, keep_blank_values=True))
    unknown = sorted(set(found) - set(KEYS))
    if unknown:
        raise SourceError(f"[open_source] test://shapes knows {', '.join(KEYS)}, got {', '.join(unknown)}")
    try:
        height, width = (int(side) for side in found.get("size", "480x640").split("x"))
        options = SceneOptions(
            fps=float(found.get("fps", 30)),
            size=(height, width),
            seed=int(found.get("seed", 0)),
            frames=int(found.get("frames", 300)),
            cut=int(found.get("cut", 0)),
            live=found.get("live", "0") not in ("0", "", "no"),
        )
    except ValueError as error:
        raise SourceError(
            f"[open_source] {uri!r}: numbers, and size as HEIGHTxWIDTH, must be given ({error})"
        ) from None
    if (
        not 0.1 <= options.fps <= 1000
        or min(height, width) < 32
        or max(height, width) > 8192
        or min(options.frames, options.cut, options.seed) < 0
    ):
        raise SourceError(
            f"[open_source] {uri!r}: fps 0.1 to 1000, sides 32 to 8192, and frames, cut, seed from 0 are allowed"
        )
    return options
