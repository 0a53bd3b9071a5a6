"""One line of the terminal that says what is being seen; nothing where the output is no terminal."""

from __future__ import annotations

import time
from collections import Counter
from typing import Optional

from rich.console import Console
from rich.live import Live
from rich.text import Text

import detrx
from detrx.detector import Detector
from detrx.live.loop import STAGES, FrameTimes, LoopReport
from detrx.types import Detections, Frame

EVERY = 0.2
"""Seconds between two lines."""


class LiveLine:
    """A context in which ``update`` may be called for every frame."""

    def __init__(self) -> None:
        console = Console(stderr=True)
        self._live: Optional[Live] = Live(console=console, transient=True) if console.is_terminal else None
        self._last = 0.0

    def __enter__(self) -> LiveLine:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live is not None:
            self._live.stop()

    def update(self, frame: Frame, found: Detections, times: FrameTimes) -> None:
        """Show this frame, unless the line is fresh."""
        if self._live is None or time.monotonic() - self._last < EVERY:
            return
        self._last = time.monotonic()
        self._live.update(Text(say(frame, found, times), no_wrap=True, overflow="ellipsis"))


def announce(detector: Detector) -> None:
    """The first line of every command that runs a model."""
    print(f"detrx {detrx.__version__} | {detector.describe()}", flush=True)


def tell_zones(report: LoopReport) -> None:
    """A line for each zone and line."""
    for name, count in report.zones.items():
        print(f"{name}: {count['in']} in, {count['out']} out")


def announce_page(url: str) -> None:
    """Where to look; printed once, since it may hold the token."""
    print(f"look at {url}  (Ctrl-C ends)", flush=True)


def say(frame: Frame, found: Detections, times: FrameTimes) -> str:
    """Frame, milliseconds and what is in it: "frame 12 | 9.8 ms | 2 disc, 1 star"."""
    first, last = STAGES.index("letterbox"), STAGES.index("finish")
    took = sum(times[first : last + 1]) * 1000
    seen = Counter(str(name) for name in found.names)
    objects = ", ".join(f"{count} {name}" for name, count in sorted(seen.items())) or "nothing"
    return f"frame {frame.index} | {took:.1f} ms | {objects}"
