"""``detrx webcam``: look at what the model sees."""

from __future__ import annotations

import time
from typing import Sequence

import tyro

from detrx.cli.live_line import announce, announce_page, say, tell_zones
from detrx.cli.options import source_first, web_alone
from detrx.live.job import WatchConfig, watch
from detrx.live.loop import FrameTimes
from detrx.live.web import DEFAULT
from detrx.types import Detections, Frame


class _Lines:
    """A printed line a second."""

    def __init__(self) -> None:
        self._last = 0.0

    def update(self, frame: Frame, found: Detections, times: FrameTimes) -> None:
        if time.monotonic() - self._last >= 1:
            self._last = time.monotonic()
            print(say(frame, found, times), flush=True)


def run(args: Sequence[str]) -> int:
    given = web_alone(source_first(args), default=DEFAULT)
    config = tyro.cli(WatchConfig, args=given, prog="detrx webcam")
    prints = not config.window and config.web is None
    report = watch(
        config, on_ready=announce, on_frame=_Lines().update if prints else None, on_page=announce_page
    )
    print(
        f"{report.frames} frames at {report.fps:.1f}/s, {report.times.milliseconds('frame'):.1f} ms each (p50), "
        f"{report.dropped} dropped because the model was busy"
    )
    tell_zones(report)
    return 130 if report.ended == "interrupted" else 0
