"""A live source goes on when the camera does not: hangs, losses, frozen and damaged pictures (faults rows 58-60)."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from detrx.errors import SourceError
from detrx.live.camera import CameraPlace
from detrx.live.capture import MOST_STUCK, LiveSource, Patience, Reader
from detrx.live.frames import State
from detrx.live.health import BadFrame, Frozen, is_broken

QUICK = Patience(timeout=0.3, first=0.05, most=0.2, jitter=0, frozen=0.4)
NOISE = np.random.default_rng(0)


def noise() -> np.ndarray:
    return NOISE.integers(0, 256, (32, 48, 3), dtype=np.uint8)


class Scripted(Reader):
    """Gives what its script says: a picture, None, or an exception to raise; a function is called first."""

    closed = 0

    def __init__(self, script: Iterator[object]) -> None:
        self._script = script

    def read(self) -> np.ndarray | None:
        time.sleep(0.01)
        found = next(self._script)
        if callable(found):
            found = found()
        if isinstance(found, BaseException):
            raise found
        return found  # type: ignore[return-value]

    def close(self) -> None:
        Scripted.closed += 1


def endless(picture: Callable[[], object] = noise) -> Iterator[object]:
    while True:
        yield picture()


def opener(*scripts: Callable[[], Iterator[object]]) -> Callable[[], Reader]:
    """One script for each connection; the last for all further ones."""
    left = list(scripts)

    def open_reader() -> Reader:
        script = left.pop(0) if len(left) > 1 else left[0]
        return Scripted(script())

    return open_reader


def take(source: LiveSource, count: int) -> list[int]:
    indices = []
    for frame in source:
        indices.append(frame.index)
        if len(indices) == count:
            break
    return indices


def test_the_wait_doubles_up_to_its_end() -> None:
    calm = Patience(jitter=0)
    assert [calm.wait(tries) for tries in (0, 1, 2, 5, 6, 7, 1000)] == [0.5, 1, 2, 16, 30, 30, 30]
    assert all(0.5 <= Patience().wait(0) <= 0.6 for _ in range(20))


def test_a_lost_source_is_opened_anew_and_says_so() -> None:
    states: list[State] = []
    lost = SourceError("unplugged")
    source = LiveSource(
        opener(
            lambda: iter([noise(), noise(), lost]),
            lambda: iter([SourceError("still gone")]),
            endless,
        ),
        name="cam",
        patience=QUICK,
        on_state=states.append,
    )
    indices = take(source, 10)
    source.close()
    assert indices == sorted(set(indices))
    assert source.reconnects == 2
    names = [state.name for state in states]
    assert names[:3] == ["connecting", "live", "lost"]
    assert names[-2:] == ["live", "ended"]
    assert "unplugged" in next(state.why for state in states if state.name == "lost")


def test_a_reader_that_hangs_is_left_behind() -> None:
    free = threading.Event()
    source = LiveSource(
        opener(lambda: iter([noise(), lambda: free.wait(20) and None]), endless), name="cam", patience=QUICK
    )
    start = time.monotonic()
    assert len(take(source, 6)) == 6
    assert time.monotonic() - start < 10
    assert source.reconnects >= 1
    before = threading.active_count()
    free.set()
    time.sleep(0.2)
    source.close()
    assert threading.active_count() < before


def test_threads_that_hang_are_bounded() -> None:
    free = threading.Event()
    calls = []

    def hang() -> Reader:
        calls.append(1)
        if len(calls) == 1:
            return Scripted(iter([noise(), SourceError("gone")]))
        free.wait(60)
        raise SourceError("never")

    patience = Patience(timeout=0.01, first=0.01, most=0.01, jitter=0)
    source = LiveSource(hang, name="cam", patience=patience)
    with pytest.raises(SourceError, match="did not open"):
        list(source)
    assert len(calls) == MOST_STUCK + 1
    free.set()


def test_retry_says_when_to_give_up() -> None:
    for retry, error in ((0.0, "gone"), (0.3, "gone")):
        source = LiveSource(
            opener(lambda: iter([noise(), SourceError("gone")]), lambda: iter([SourceError("gone")])),
            name="cam",
            patience=Patience(timeout=0.3, first=0.05, jitter=0, retry=retry),
        )
        with pytest.raises(SourceError, match=error):
            list(source)
        assert (source.reconnects > 0) == (retry > 0)
        assert source.state.name == "ended"


def test_what_never_gave_a_frame_is_an_error() -> None:
    with pytest.raises(SourceError, match="refused"):
        list(LiveSource(opener(lambda: iter([SourceError("refused")])), name="cam", patience=QUICK))


def test_the_end_is_the_end() -> None:
    source = LiveSource(opener(lambda: iter([noise(), None])), name="cam", patience=QUICK)
    assert len(list(source)) == 1
    assert source.reconnects == 0


def test_damaged_frames_are_dropped_and_counted() -> None:
    green = np.full((32, 48, 3), (0, 135, 0), np.uint8)
    half = noise()
    half[16:] = (0, 135, 0)
    script = [noise(), BadFrame(), green, half, BadFrame(), noise(), None]
    source = LiveSource(opener(lambda: iter(script)), name="cam", patience=QUICK)
    assert {frame.index for frame in source} <= {0, 1}
    assert source.corrupt == 4


def test_only_rubbish_is_a_loss() -> None:
    source = LiveSource(
        opener(lambda: iter([noise(), *[BadFrame()] * 200]), endless), name="cam", patience=QUICK
    )
    assert len(take(source, 5)) == 5
    source.close()
    assert source.reconnects == 1
    assert source.corrupt > 10


def test_a_frozen_picture_is_told_and_opened_anew_once() -> None:
    still, states = noise(), []
    source = LiveSource(
        opener(lambda: endless(lambda: still)),
        name="cam",
        patience=QUICK,
        on_state=lambda s: states.append(s.name),
    )
    start = time.monotonic()
    for _ in source:
        if time.monotonic() - start > 2:
            break
    source.close()
    assert "frozen" in states
    assert source.reconnects == 1


def test_frozen_ends_with_a_new_picture() -> None:
    seen = Frozen(0.05)
    still = noise()
    for _ in range(3):
        seen.see(still)
        time.sleep(0.04)
    assert seen.state() == (True, True)
    assert seen.state() == (True, False)
    seen.see(noise())
    assert seen.state() == (False, False)


def test_what_is_broken() -> None:
    assert is_broken(np.full((64, 64, 3), (0, 77, 0), np.uint8))
    assert is_broken(np.full((64, 64, 3), 128, np.uint8))
    assert not is_broken(np.zeros((64, 64, 3), np.uint8))
    assert not is_broken(noise())
    assert not is_broken(np.full((64, 64, 3), (0, 200, 0), np.uint8))


def test_a_callback_that_fails_ends_nothing() -> None:
    def fail(state: State) -> None:
        raise ValueError("callback")

    source = LiveSource(opener(endless), name="cam", patience=QUICK, on_state=fail)
    assert len(take(source, 2)) == 2
    source.close()


def test_a_camera_is_found_again_by_its_lasting_name(tmp_path: Path) -> None:
    links = tmp_path / "v4l" / "by-id"
    links.mkdir(parents=True)
    (tmp_path / "video0").touch()
    (links / "usb-Maker_Camera-index0").symlink_to("../../video0")
    place = CameraPlace(0, dev=tmp_path)
    assert place.find() == 0
    (links / "usb-Maker_Camera-index0").unlink()
    assert place.find() == 0
    (tmp_path / "video2").touch()
    (links / "usb-Maker_Camera-index0").symlink_to("../../video2")
    assert place.find() == 2
