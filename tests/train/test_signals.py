from __future__ import annotations

import os
import signal
import threading

import pytest

from detrx.train.signals import Stop


@pytest.mark.parametrize(
    ("number", "noted"),
    [
        (signal.SIGTERM, signal.SIGTERM),
        (signal.SIGUSR1, signal.SIGTERM),
        (signal.SIGINT, signal.SIGINT),
    ],
)
def test_a_signal_is_noted_and_the_handlers_come_back(number: signal.Signals, noted: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Stop() as stop:
        assert stop.number is None
        stop.raise_asked()
        os.kill(os.getpid(), number)
        assert stop.number == noted
    assert signal.getsignal(number) is before
    with pytest.raises(KeyboardInterrupt if noted == signal.SIGINT else SystemExit) as caught:
        stop.raise_asked()
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 143


def test_other_threads_leave_the_handlers_alone() -> None:
    before = signal.getsignal(signal.SIGINT)
    seen = []

    def inside() -> None:
        with Stop():
            seen.append(signal.getsignal(signal.SIGINT) is before)

    thread = threading.Thread(target=inside)
    thread.start()
    thread.join()
    assert seen == [True]
