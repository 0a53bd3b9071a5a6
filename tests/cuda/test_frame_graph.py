"""The slots of the frame graph over a device of the host, whose graphs run when somebody waits."""

from __future__ import annotations

import ctypes
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from detrx.camera_picture import CHANNELS, CameraPicture
from detrx.preprocess import MEAN, STD, letterbox, normalisation, planes, window

CANVAS, LABELS = (32, 64), 5


def memory(address: int, dtype: Any, *shape: int) -> np.ndarray:
    count = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_char * count).from_address(address), dtype).reshape(shape)


class Frames:
    """A graph whose engine answers with what the letterbox wrote, and with a whole number."""

    def __init__(
        self,
        emulator: ModuleType,
        *,
        slots: int = 2,
        broken: int = 0,
        picture: int = 4000,
        half: bool = False,
    ) -> None:
        self.calls, self.emulator = 0, emulator
        self.pixels = np.dtype(np.float16 if half else np.float32)

        def engine(pixels: int, answers: list[int], stream: int) -> None:
            self.calls += 1
            if self.calls == broken:
                raise RuntimeError("the engine refuses")

            def work() -> None:
                laid = memory(pixels, self.pixels, 3, *CANVAS)
                memory(answers[0], self.pixels, 3, *CANVAS)[:] = laid
                memory(answers[1], np.int64, LABELS)[:] = np.arange(LABELS) + int(laid[0, 0, 0] * 100)

            emulator.enqueue(work)

        self.graph = emulator.FrameGraph(
            engine, canvas=CANVAS, normal=normalisation(MEAN, STD).ravel().tolist(), half=half, picture=picture,
            answers=[3 * CANVAS[0] * CANVAS[1] * self.pixels.itemsize, 8 * LABELS], slots=slots, device=0, stream=0,
        )  # fmt: skip

    def put(self, slot: int, picture: Any) -> None:
        _, box = letterbox(picture, canvas=CANVAS)
        plane, chroma, layout, colours = planes(picture)
        kinds = self.emulator.PixelFormat, self.emulator.Colours
        self.graph.put(
            slot, plane, chroma, getattr(kinds[0], layout), getattr(kinds[1], colours), window(box)
        )

    def submit(self, picture: Any) -> int:
        slot = self.graph.begin()
        if slot >= 0:
            self.put(slot, picture)
            self.graph.submit(slot)
        return int(slot)

    def take(self, slot: int) -> np.ndarray:
        laid, labels = np.empty((3, *CANVAS), self.pixels), np.empty(LABELS, np.int64)
        self.graph.take(slot, [array.reshape(-1).view(np.uint8) for array in (laid, labels)])
        assert labels.tolist() == [n + int(laid[0, 0, 0] * 100) for n in range(LABELS)]
        return laid


def rgb(seed: int, size: tuple[int, int] = (18, 40)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 40 + 20 * seed, (*size, 3), dtype=np.uint8)


def wanted(picture: Any, dtype: Any = np.float32) -> np.ndarray:
    return letterbox(picture, canvas=CANVAS, out=np.empty((3, *CANVAS), dtype))[0]


@pytest.mark.parametrize("slots", [1, 2, 3])
@pytest.mark.parametrize("half", [False, True])
def test_answers_are_those_of_their_pictures_and_slots_are_used_again(
    emulator: ModuleType, slots: int, half: bool
) -> None:
    frames = Frames(emulator, slots=slots, half=half)
    assert frames.calls == 2 * slots  # once to warm up and once captured, for each
    before, sent, flying = emulator.allocations(), 0, []
    for taken in range(7):
        while sent < 7 and (slot := frames.submit(rgb(sent))) >= 0:
            flying.append(slot)
            sent += 1
        assert len(flying) == min(slots, 7 - taken)
        np.testing.assert_array_equal(frames.take(flying.pop(0)), wanted(rgb(taken), frames.pixels))
    assert emulator.allocations() == before
    assert frames.calls == 2 * slots


def test_any_frame_may_be_taken_first(emulator: ModuleType) -> None:
    frames = Frames(emulator, slots=3)
    slots = [frames.submit(rgb(seed)) for seed in range(3)]
    for seed in (2, 0, 1):
        np.testing.assert_array_equal(frames.take(slots[seed]), wanted(rgb(seed)))


@pytest.mark.parametrize("layout", CHANNELS)
def test_every_size_and_layout_through_one_capture(emulator: ModuleType, layout: str) -> None:
    frames = Frames(emulator, slots=2)
    for number, size in enumerate([(18, 40), (1, 2), (61, 34), (61, 34), (35, 36), (7, 400), (18, 40)]):
        values = np.random.default_rng(number)
        plane = values.integers(0, 256, (size[0], size[1] + 7, CHANNELS[layout]), dtype=np.uint8)
        half = ((size[0] + 1) // 2, (size[1] + 1) // 2, 2)
        chroma = values.integers(0, 256, half, dtype=np.uint8) if layout == "nv12" else None
        # Pitched, and every other one upside down.
        plane = plane[:: -1 if number % 2 else 1, : size[1]]
        picture = CameraPicture(plane, layout, "bt709_full" if number % 3 else "bt601", chroma=chroma)
        np.testing.assert_array_equal(frames.take(frames.submit(picture)), wanted(picture))
    assert frames.calls == 4


def test_a_larger_picture_makes_room_once(emulator: ModuleType) -> None:
    frames = Frames(emulator, slots=1, picture=100)
    counts = []
    for size in ((5, 6), (50, 60), (50, 60), (9, 9), (51, 60)):
        np.testing.assert_array_equal(frames.take(frames.submit(rgb(3, size))), wanted(rgb(3, size)))
        counts.append(emulator.allocations())
    assert counts == [counts[0], counts[1], counts[1], counts[1], counts[4]]
    assert counts[0] < counts[1] < counts[4]


def test_a_launch_that_fails_gives_its_slot_back(emulator: ModuleType) -> None:
    frames = Frames(emulator)
    try:
        first = frames.submit(rgb(1))
        emulator.fail_launches_after(0)
        with pytest.raises(RuntimeError, match="the launch fails"):
            frames.submit(rgb(2, (9, 40)))
    finally:
        emulator.fail_launches_after(-1)
    second = frames.submit(rgb(3))
    assert second >= 0
    assert frames.submit(rgb(4)) == -1
    for slot, seed in ((first, 1), (second, 3)):
        np.testing.assert_array_equal(frames.take(slot), wanted(rgb(seed)))


def test_slots_that_were_not_begun_are_refused(emulator: ModuleType) -> None:
    frames = Frames(emulator)
    for wrong in (0, -1, 7):
        with pytest.raises(emulator.ArgumentError, match="begin answered"):
            frames.graph.submit(wrong)
        with pytest.raises(emulator.ArgumentError, match="was submitted"):
            frames.take(wrong)
    slot = frames.graph.begin()
    frames.graph.cancel(slot)
    with pytest.raises(emulator.ArgumentError, match="begin answered"):
        frames.graph.cancel(slot)
    with pytest.raises(emulator.ArgumentError, match="begin answered"):
        frames.put(slot, rgb(1))
    assert frames.graph.begin() == slot


def test_pictures_that_do_not_fit_are_refused_by_name(emulator: ModuleType) -> None:
    frames, kinds = Frames(emulator), emulator.PixelFormat
    slot, colours = frames.graph.begin(), emulator.Colours.bt601
    plane = rgb(1)
    for given, words in (
        ((plane, None, kinds.grey, colours, (0, 0, 9, 9)), r"plane must be \(H, W, 1\)"),
        ((plane[:, ::2], None, kinds.rgb, colours, (0, 0, 9, 9)), "pixels of a row adjacent"),
        ((plane[..., :1].copy(), None, kinds.nv12, colours, (0, 0, 9, 9)), "nv12 has a plane of chroma"),
        ((plane, None, kinds.rgb, colours, (0, 0, 33, 9)), "within the canvas of 32 x 64"),
        ((plane[:, :3, :2].copy(), None, kinds.yuyv, colours, (0, 0, 9, 9)), "width of yuyv must be even"),
    ):
        with pytest.raises(emulator.ArgumentError, match=words):
            frames.graph.put(slot, *given)
    frames.put(slot, plane)
    frames.graph.submit(slot)
    np.testing.assert_array_equal(frames.take(slot), wanted(plane))


@pytest.mark.parametrize("call", [1, 2, 4])
def test_an_engine_that_refuses_ends_the_making(emulator: ModuleType, call: int) -> None:
    with pytest.raises(RuntimeError, match="the engine refuses"):
        Frames(emulator, broken=call)
    Frames(emulator)  # nothing is recorded any more


def test_slots_are_one_to_eight(emulator: ModuleType) -> None:
    for slots in (0, 9):
        with pytest.raises(emulator.ArgumentError, match="slots must be"):
            Frames(emulator, slots=slots)


def test_after_close_what_flies_is_taken_and_nothing_starts(emulator: ModuleType) -> None:
    frames = Frames(emulator, slots=3)
    flying, filled = frames.submit(rgb(1)), frames.graph.begin()
    frames.put(filled, rgb(2))
    frames.graph.close()
    frames.graph.close()
    assert frames.graph.begin() == -1
    with pytest.raises(RuntimeError, match="it was closed"):
        frames.graph.submit(filled)
    np.testing.assert_array_equal(frames.take(flying), wanted(rgb(1)))
