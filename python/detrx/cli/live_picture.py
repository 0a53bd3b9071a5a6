"""The frame itself in the terminal, two pixels to a character, while the loop runs."""

from __future__ import annotations

import time
from typing import Any, List, Optional

import numpy as np
from numpy.typing import NDArray
from rich.color import Color
from rich.console import Console, Group
from rich.live import Live
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.segment import Segment, Segments
from rich.style import Style
from rich.text import Text

from detrx.cli.live_line import say
from detrx.draw import draw
from detrx.live.loop import FrameTimes
from detrx.types import Detections, Frame

EVERY = 0.25
"""Seconds between two pictures: drawing them costs time that the loop measures."""
WIDTH = 72
"""Characters."""


class LivePicture:
    """A context in which ``update`` may be called for every frame; quiet where the output is no terminal."""

    def __init__(self, *, frames: int) -> None:
        self._console = Console(stderr=True)
        columns = (TextColumn("synthetic camera"), BarColumn(), MofNCompleteColumn(), TextColumn("frames"))
        self._progress = Progress(*columns, console=self._console)
        self._task = self._progress.add_task("", total=frames)
        self._live: Optional[Live] = None
        self._last = 0.0

    def __enter__(self) -> LivePicture:
        if self._console.is_terminal:
            self._live = Live(console=self._console, transient=True, auto_refresh=False)
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, frame: Frame, found: Detections, times: FrameTimes) -> None:
        """Show this frame, unless the last one is fresh."""
        if self._live is None or time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        self._progress.update(self._task, completed=frame.index + 1)
        line = Text(say(frame, found, times), no_wrap=True, overflow="ellipsis")
        rows: List[Any] = [self._progress, line]
        if self._console.color_system == "truecolor":
            self._live.update(Group(blocks(draw(frame.image, found, scores=False)), *rows), refresh=True)
        else:
            self._live.update(Group(*rows), refresh=True)


def blocks(picture: NDArray[np.uint8], *, width: int = WIDTH) -> Segments:
    """A (H, W, 3) picture as half blocks: the upper pixel is the ink, the lower one the paper."""
    height = max(2, round(picture.shape[0] * width / picture.shape[1] / 2) * 2)
    rows = np.arange(height) * picture.shape[0] // height
    columns = np.arange(width) * picture.shape[1] // width
    small = picture[rows][:, columns].tolist()
    segments = []
    for upper, lower in zip(small[0::2], small[1::2]):
        segments += [
            Segment("▀", Style(color=_rgb(ink), bgcolor=_rgb(paper))) for ink, paper in zip(upper, lower)
        ]
        segments.append(Segment.line())
    return Segments(segments)


def _rgb(pixel: "list[int]") -> Color:
    return Color.from_rgb(*pixel)
