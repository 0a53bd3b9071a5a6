"""How freely Python goes on while something runs: run it with runpy, tests import nothing from each other."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable

SECONDS = 0.25
"""The least time that a rate is measured over."""


def cores() -> int:
    return len(os.sched_getaffinity(0))


class Ticker:
    """A Python thread that counts as fast as it may."""

    def __init__(self) -> None:
        self.ticks = 0
        self._stop = False
        self._thread = threading.Thread(target=self._tick, daemon=True)

    def __enter__(self) -> Ticker:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._thread.join()

    def _tick(self) -> None:
        while not self._stop:
            self.ticks += 1

    def rate(self, work: Callable[[], object]) -> float:
        """Ticks a second while ``work`` is called again and again."""
        begun, start = self.ticks, time.perf_counter()
        while time.perf_counter() - start < SECONDS:
            work()
        return (self.ticks - begun) / (time.perf_counter() - start)


def tick_rate(work: Callable[[], object], *, enough: float, tries: int = 6) -> float:
    """Ticks during ``work`` over those during hashing, which leaves the GIL and keeps a core as busy.

    Each try measures both next to each other, so that whatever else the machine does hits them alike; the best of the
    tries is the answer, and the first that is ``enough`` ends them.
    """
    pages = bytes(64 << 20)
    best = 0.0
    with Ticker() as ticker:
        for _ in range(tries):
            free = ticker.rate(lambda: hashlib.sha256(pages))
            best = max(best, ticker.rate(work) / free)
            if best >= enough:
                break
    return best
