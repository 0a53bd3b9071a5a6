"""``detrx demo``: the first thing to type."""

from __future__ import annotations

from typing import Sequence

import tyro

from detrx.cli.live_line import announce
from detrx.cli.live_picture import LivePicture
from detrx.demo import DemoConfig, DemoReport, demo
from detrx.live.loop import STAGES


def run(args: Sequence[str]) -> int:
    config = tyro.cli(DemoConfig, args=args, prog="detrx demo")
    with LivePicture(frames=config.frames) as picture:
        report = demo(config, on_ready=announce, on_frame=picture.update)
    show(report)
    return 0


def show(report: DemoReport) -> None:
    """Frames a second, the stages, AP, and where to look."""
    loop = report.loop
    took = loop.times.milliseconds("frame")
    print(f"{loop.frames} frames of a 30 frames/s camera in {loop.seconds:.1f} s, {loop.dropped} dropped")
    for stage in STAGES[1:]:
        p50, p99 = (loop.times.milliseconds(stage, percentile=p) for p in (50, 99))
        print(f"  {stage:<10}{p50:8.2f} ms   p99 {p99:7.2f} ms")
    print(f"  {'frame':<10}{took:8.2f} ms   = up to {1000 / took:.0f} frames/s, picture in, boxes out")
    if report.metrics is None:
        print("AP: not scored, `pip install faster-coco-eval` brings the scorer")
    else:
        print(f"AP {report.metrics.ap:.3f}, AP50 {report.metrics.ap50:.3f} against the known truth")
    print(f"Video: {report.video}")
    print(f"Open:  {report.page.resolve()}")
