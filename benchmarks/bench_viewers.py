"""What slow viewers of the web page cost the loop: frames a second with nobody and with fifty on bad lines, in turns.

A video is inferred as fast as two threads can, so that whatever the page does is taken from the model. The viewers are
one process that reads 20 KB a second of each of its streams. Frames a second drift with what the machine does beside;
what the page's threads take of the processor time of this process is the steadier figure, and on busy cores the same.

    python benchmarks/bench_viewers.py VIDEO [--viewers 50] [--rounds 6] [--frames 100] [--json FILE]

The model is random rt-n, or DETRX_BENCH_ONNX=best.onnx.
"""

from __future__ import annotations

import argparse
import json
import os
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from bench_detector import THREADS, onnx_file, same_weights
from machine import describe

BYTES, EVERY = 2048, 0.1
"""What a viewer reads at a time, and seconds between two times."""
SETTLE, LEAVE = 4.0, 0.5
"""Seconds until the kernel's buffers are full and all viewers are as slow as they stay, and until all are gone."""
MOST = 0.02
"""The share of its frames a second that the loop may lose."""


class Turn(NamedTuple):
    fps: float
    share: float
    """Of the processor time that the page took."""
    pictures: int


def watch(port: int, viewers: int) -> None:
    """Be so many slow viewers until killed."""
    ready = selectors.DefaultSelector()
    for _ in range(viewers):
        line = socket.socket()
        line.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8192)
        line.connect(("127.0.0.1", port))
        line.sendall(f"GET /stream HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
        ready.register(line, selectors.EVENT_READ)
    print("all here", flush=True)
    while True:
        for key, _ in ready.select():
            key.fileobj.recv(BYTES)  # type: ignore[union-attr]
        time.sleep(EVERY)


@contextmanager
def watched(port: int, viewers: int) -> Iterator[None]:
    if not viewers:
        yield
        return
    command = [sys.executable, __file__, "--watch", str(port), "--viewers", str(viewers)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        if process.stdout is None or not process.stdout.readline():
            raise RuntimeError("the viewers did not come")
        time.sleep(SETTLE)
        yield
    finally:
        process.kill()
        process.wait()
        time.sleep(LEAVE)


def page_seconds() -> float:
    """Processor time of the threads that are neither the main one nor a lane of the loop: those of the page."""
    seconds = 0.0
    for thread in threading.enumerate():
        if thread is not threading.main_thread() and not thread.name.startswith("detrx-lane"):
            told = Path(f"/proc/self/task/{thread.native_id}/schedstat")
            with suppress(OSError):  # it has just ended
                seconds += int(told.read_text().split()[0]) / 1e9
    return seconds


def compare(model: Path, video: str, *, viewers: int, rounds: int, frames: int) -> dict[str, Any]:
    from detrx import Detector
    from detrx.live.loop import run
    from detrx.live.source import open_source
    from detrx.live.web import WebPage

    machine = describe()
    seen: dict[str, list[Turn]] = {"nobody": [], f"{viewers} slow viewers": []}
    with Detector(model, device="cpu", threads=THREADS, threshold=0.05) as detector:
        page = WebPage("127.0.0.1:0", names=detector.info.names, threshold=0.4)
        port = int(page.url.rstrip("/").rsplit(":", 1)[1])
        with page:
            run(detector, open_source(video), limit=frames, on_frame=page.take)
            for turn in range(2 * rounds):
                name = list(seen)[turn % 2]
                with watched(port, viewers if turn % 2 else 0):
                    before, pages, pictures = time.process_time(), page_seconds(), page._feed.encoded
                    report = run(detector, open_source(video), limit=frames, on_frame=page.take)
                    worked = time.process_time() - before
                    share = (page_seconds() - pages) / worked
                    seen[name].append(Turn(report.fps, share, page._feed.encoded - pictures))
    return {
        **_told(seen, frames=frames),
        "machine": {**machine, "load": [machine["load"], describe()["load"]]},
    }


def _told(seen: dict[str, list[Turn]], *, frames: int) -> dict[str, Any]:
    nobody, many = seen.values()
    found: dict[str, Any] = {
        name: {key: statistics.median(getattr(turn, key) for turn in turns) for key in Turn._fields}
        for name, turns in seen.items()
    }
    found["lost_fps"] = 1 - statistics.median(b.fps / a.fps for a, b in zip(nobody, many))
    print(f"\n{len(many)} turns of {frames} frames each")
    for name in seen:
        row = found[name]
        print(
            f"  {name:<18} {row['fps']:6.1f} frames/s, {row['pictures']:g} pictures encoded, the page took "
            f"{row['share']:.2%} of the processor time, to be under {MOST:.0%}"
        )
    print(f"  lost frames a second, by turns: {found['lost_fps']:.1%}")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", nargs="?", default="")
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--rounds", type=int, default=6)
    parser.add_argument("--frames", type=int, default=100, help="frames of the video to a turn")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--watch", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.watch:
        watch(args.watch, args.viewers)
        return
    with tempfile.TemporaryDirectory() as name:
        if not os.environ.get("DETRX_BENCH_ONNX"):
            same_weights(Path(name))
        found = compare(
            onnx_file(Path(name)), args.video, viewers=args.viewers, rounds=args.rounds, frames=args.frames
        )
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
