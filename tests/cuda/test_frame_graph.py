"""The slots of the frame graph over a device of the host, whose graphs run when somebody waits."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest

from detrx.camera_picture import CameraPicture
from detrx.preprocess import MEAN, STD, letterbox

SIZE, CANVAS, QUERIES, CLASSES, TOP = (18, 40), (32, 64), 5, 3, 4


def floats(pointer: int, *shape: int) -> np.ndarray:
    ctypes = pytest.importorskip("ctypes")
    count = int(np.prod(shape))
    return np.ctypeslib.as_array((ctypes.c_float * count).from_address(pointer)).reshape(shape)


class Frames:
    """A graph whose engine answers with the means of what the letterbox wrote."""

    def __init__(
        self, emulator: ModuleType, *, slots: int = 2, layout: str = "bgr", broken: bool = False
    ) -> None:
        self.calls = 0
        scale, shift = np.float32(1 / (255 * np.array(STD))), np.float32(-np.array(MEAN) / np.array(STD))
        self.normal = [*scale.tolist(), *shift.tolist(), *(np.float32(114) * scale + shift).tolist()]
        _, box = letterbox(np.zeros((*SIZE, 3), np.uint8), canvas=CANVAS)
        self.window = (*box.pad, *(round(n * s) for n, s in zip(box.image, box.scale)))

        def engine(pixels: int, logits: int, boxes: int, stream: int) -> None:
            self.calls += 1
            if broken:
                raise RuntimeError("the engine refuses")

            def work() -> None:
                means = floats(pixels, 3, *CANVAS).mean((1, 2))
                floats(logits, QUERIES, CLASSES)[:] = np.arange(QUERIES)[:, None] - means
                floats(boxes, QUERIES, 4)[:] = (0.5, 0.5, 0.2, 0.4)

            emulator.enqueue(work)

        self.graph = emulator.FrameGraph(
            engine, picture=SIZE, layout=getattr(emulator.PixelFormat, layout), colours=emulator.Colours.bt601,
            canvas=CANVAS, window=self.window, normal=self.normal, logits=(QUERIES, CLASSES), top=TOP,
            no_object=False, half=False, slots=slots, device=0,
        )  # fmt: skip

    def submit(self, seed: int) -> int:
        slot = self.graph.begin()
        if slot >= 0:
            image = picture(seed)
            np.asarray(self.graph.input(slot))[:, : image[0].size] = image.reshape(SIZE[0], -1)
            self.graph.submit(slot)
        return int(slot)

    def take(self) -> tuple[int, np.ndarray]:
        scores, labels, corners = (
            np.zeros(TOP, np.float32),
            np.zeros(TOP, np.int32),
            np.zeros((TOP, 4), np.float32),
        )
        slot = self.graph.take(scores, labels, corners)
        if slot >= 0:
            np.testing.assert_allclose(corners, [[0.4, 0.3, 0.6, 0.7]] * TOP, atol=1e-6)
        return slot, scores


def picture(seed: int) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 40 + 20 * seed, (*SIZE, 3), dtype=np.uint8)


def wanted(seed: int) -> np.ndarray:
    pixels, _ = letterbox(CameraPicture(picture(seed), "bgr"), canvas=CANVAS)
    logits = (np.arange(QUERIES)[:, None] - pixels.mean((1, 2))).ravel()
    return 1 / (1 + np.exp(-np.sort(logits)[::-1][:TOP]))


@pytest.mark.parametrize("slots", [1, 2, 3])
def test_answers_come_in_order_and_slots_are_used_again(emulator: ModuleType, slots: int) -> None:
    frames = Frames(emulator, slots=slots)
    assert frames.calls == 2 * slots  # once to warm up and once captured, for each
    before, sent, taken = emulator.allocations(), 0, 0
    while taken < 7:
        while sent < 7 and frames.submit(sent) >= 0:
            sent += 1
        assert frames.graph.flying == min(slots, 7 - taken)
        assert frames.graph.begin() == -1 or sent == 7
        np.testing.assert_allclose(frames.take()[1], wanted(taken), atol=1e-5)
        taken += 1
    assert frames.take()[0] == -1
    assert not frames.graph.ready()
    assert emulator.allocations() == before
    assert frames.calls == 2 * slots


def test_a_launch_that_fails_gives_its_slot_back(emulator: ModuleType) -> None:
    frames = Frames(emulator)
    try:
        frames.submit(1)
        emulator.fail_launches_after(0)
        with pytest.raises(RuntimeError, match="the launch fails"):
            frames.submit(2)
    finally:
        emulator.fail_launches_after(-1)
    assert frames.graph.flying == 1
    assert frames.submit(3) >= 0
    assert frames.submit(4) == -1
    for seed in (1, 3):
        np.testing.assert_allclose(frames.take()[1], wanted(seed), atol=1e-5)


def test_slots_that_were_not_begun_are_refused(emulator: ModuleType) -> None:
    graph = Frames(emulator).graph
    for wrong in (0, -1, 7):
        with pytest.raises(emulator.ArgumentError, match="begin answered"):
            graph.submit(wrong)
    slot = graph.begin()
    graph.cancel(slot)
    with pytest.raises(emulator.ArgumentError, match="begin answered"):
        graph.cancel(slot)
    with pytest.raises(emulator.ArgumentError, match="no slot"):
        graph.input(5)
    assert graph.begin() == slot


def test_an_engine_that_refuses_ends_the_making(emulator: ModuleType) -> None:
    with pytest.raises(RuntimeError, match="the engine refuses"):
        Frames(emulator, broken=True)
    for slots in (0, 9):
        with pytest.raises(emulator.ArgumentError, match="slots must be"):
            Frames(emulator, slots=slots)


def test_the_input_outlives_its_graph_in_python(emulator: ModuleType) -> None:
    memory: Any = Frames(emulator, layout="nv12").graph.input(0)
    assert memory.shape == (SIZE[0] * 3 // 2, 256)
    np.asarray(memory)[:] = 3
