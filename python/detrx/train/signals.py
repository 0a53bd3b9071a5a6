"""Stopping politely: the first signal asks, a second Ctrl-C does not."""

from __future__ import annotations

import os
import signal
import threading
from types import FrameType, TracebackType

_ASKED = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)
"""Ctrl-C, the system's stop, and the warning that batch systems send before it."""


class Stop:
    """While entered, notes a signal in ``number`` so that the loop can finish its step and save."""

    def __init__(self) -> None:
        self.number: int | None = None
        self._before: dict[int, object] = {}

    def __enter__(self) -> Stop:
        # Python lets only the main thread set handlers; elsewhere the signals keep their old meaning.
        if threading.current_thread() is threading.main_thread():
            for number in _ASKED:
                self._before[number] = signal.signal(number, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]
        self._before.clear()

    def _note(self, number: int, _frame: FrameType | None) -> None:
        if self.number is not None and number == signal.SIGINT:
            # Saves are atomic, so that dying here loses nothing that was whole.
            signal.signal(signal.SIGINT, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGINT)
        self.number = signal.SIGTERM if number == signal.SIGUSR1 else number

    def raise_asked(self) -> None:
        """End as the signal would have: KeyboardInterrupt (130), or SystemExit with 143."""
        if self.number == signal.SIGINT:
            raise KeyboardInterrupt
        if self.number is not None:
            raise SystemExit(128 + self.number)
