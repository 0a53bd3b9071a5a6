"""``detrx detect``: find objects and write them down."""

from __future__ import annotations

from typing import Sequence

import tyro

from detrx.cli.live_line import LiveLine, announce, announce_page, tell_zones
from detrx.cli.options import source_first, web_alone
from detrx.live.job import DetectConfig, detect
from detrx.live.web import DEFAULT


def run(args: Sequence[str]) -> int:
    config = tyro.cli(
        DetectConfig,
        args=web_alone(source_first(args), default=DEFAULT),
        prog="detrx detect",
        config=(tyro.conf.PositionalRequiredArgs,),
    )
    with LiveLine() as line:
        report = detect(config, on_ready=announce, on_frame=line.update, on_page=announce_page)
    loop = report.loop
    print(
        f"{loop.frames} frames, {loop.objects} objects, {loop.times.milliseconds('frame'):.1f} ms a frame (p50), "
        f"{loop.fps:.1f} frames/s with drawing and writing"
        + (f", {loop.skipped} unreadable pictures skipped" if loop.skipped else "")
        + (f", {loop.dropped} frames dropped" if loop.dropped else "")
    )
    tell_zones(loop)
    for path in report.files:
        if path.exists():
            print(f"wrote {path}")
    return 130 if loop.ended == "interrupted" else 0
