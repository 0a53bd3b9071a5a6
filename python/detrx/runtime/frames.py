"""Pictures through letterbox and model as one captured graph of the GPU: one launch and one wait a frame.

What a backend enqueues is captured once for each of a few slots when the model is opened; afterwards a picture of any
size is copied into a slot's memory, launched, and its answers read from memory that the GPU has written.
"""

from __future__ import annotations

import logging
from contextlib import AbstractContextManager
from types import ModuleType
from typing import Any, Dict, List, Optional, Protocol, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx import native
from detrx.errors import ConfigError, DetrxError, DeviceError, MissingBackendError
from detrx.preprocess import Picture, check_picture, normalisation, plan, planes, size_of, window
from detrx.types import Letterbox, ModelInfo, Raw

log = logging.getLogger(__name__)

SLOTS = 3
"""One that is filled, one that runs, one that is read."""
PICTURE = 1920 * 1080 * 3
"""Bytes that a slot has room for from the start; a larger picture makes room once."""
_TYPES = {"labels": np.int64, "queries": np.int64}


class Engine(Protocol):
    """The work of a model on one picture, in the memory of a GPU."""

    answers: Dict[str, Tuple[np.dtype[Any], Tuple[int, ...]]]
    """Type and shape (1, ...) of each, in the order of Raw's fields."""
    half: bool
    """Whether pixels are float16."""
    device: int
    stream: int
    """Where else the model's memory is used, so that both come one after the other; 0: nowhere."""

    def capturing(self) -> AbstractContextManager[Any]:
        """What holds while the work is captured."""
        ...

    def enqueue(self, pixels: int, answers: List[int], stream: int) -> None:
        """Enqueue the work on a stream that may be recording: from pixels (1, 3, h, w) to answers, by address."""
        ...


class Frames:
    """The slots of one model. Threads may share them.

    Args:
        engine: what is captured.
        info: what the model is.
        slots: how many frames can be under way at once.

    Raises:
        ConfigError: the model's pictures are laid in a way that the GPU does not have.
        MissingBackendError: detrx was built without CUDA.
        RuntimeError: what the device or the engine says.
    """

    def __init__(self, engine: Engine, info: ModelInfo, *, slots: int = SLOTS) -> None:
        if info.marked:
            raise ConfigError(f"[frames] {info.model} shrinks its pictures smoothly, which the CPU does")
        self.slots = slots
        self._info, self._engine = info, engine
        self._kinds = native.load()
        normal = normalisation(info.mean, info.std).ravel().tolist()
        bytes_of = [int(dtype.itemsize * np.prod(shape)) for dtype, shape in engine.answers.values()]
        with engine.capturing():
            self._graph: Any = _kernels().FrameGraph(
                engine.enqueue, canvas=info.canvas, normal=normal, half=engine.half, answers=bytes_of,
                picture=PICTURE, slots=slots, device=engine.device, stream=engine.stream,
            )  # fmt: skip

    def fill(self, image: Picture) -> Optional[Filled]:
        """Copy a picture into a free slot; None where all are in use.

        Raises:
            TypeError, ValueError: no picture.
        """
        image = check_picture(image)
        box = plan(size_of(image), canvas=self._info.canvas)
        slot = self._graph.begin()
        if slot < 0:
            return None
        filled = Filled(self, slot, box)
        plane, chroma, layout, colours = planes(image)
        layout, colours = getattr(self._kinds.PixelFormat, layout), getattr(self._kinds.Colours, colours)
        place = window(filled.box)
        self._graph.put(
            slot, _adjacent(plane), None if chroma is None else _adjacent(chroma), layout, colours, place
        )
        return filled

    def run(self, slot: int) -> Raw:
        """Launch a slot that was filled, and wait for its answers.

        Raises:
            DeviceError: the GPU fails, or ``close`` was called.
        """
        answers = {name: np.empty(shape, dtype) for name, (dtype, shape) in self._engine.answers.items()}
        try:
            self._graph.submit(slot)
            self._graph.take(slot, [array.reshape(-1).view(np.uint8) for array in answers.values()])
        except self._kinds.DeviceError as error:
            raise DeviceError(str(error)) from error
        found: Dict[str, Any] = {
            name: array.astype(_TYPES.get(name, np.float32), copy=False) for name, array in answers.items()
        }
        return Raw(**found)

    def cancel(self, slot: int) -> None:
        """Give a slot back that was filled and not run."""
        self._graph.cancel(slot)

    def close(self) -> None:
        """Wait for what runs; what is only filled can no longer run. The model's memory may go afterwards."""
        self._graph.close()


class Filled:
    """A picture in a slot, laid nowhere yet. It runs once, or gives its slot back when it is forgotten."""

    def __init__(self, frames: Frames, slot: int, box: Letterbox) -> None:
        self._frames, self._slot = frames, slot
        self.box = box
        """Where the picture goes on the canvas."""

    def run(self) -> Raw:
        """As :meth:`Frames.run`."""
        slot, self._slot = self._slot, -1
        if slot < 0:
            raise RuntimeError("[frames] a picture in a slot runs once; prepare it again")
        return self._frames.run(slot)

    def __del__(self) -> None:
        if self._slot >= 0:
            self._frames.cancel(self._slot)


def open_frames(backend: Any, info: ModelInfo, *, slots: Optional[int] = None) -> Optional[Frames]:
    """The slots of a backend that runs on a GPU; where they cannot be had, the log says why.

    Args:
        backend: of :mod:`detrx.runtime.backend`; asked for its ``capturable`` Engine where it has one.
        info: the model as it is to run.
        slots: 1 to 8 frames at once; 0 does without; None chooses.

    Returns:
        None where each frame shall run step by step.
    """
    capturable = getattr(backend, "capturable", None)
    if slots == 0 or capturable is None:
        return None
    try:
        engine: Optional[Engine] = capturable(info)
        return None if engine is None else Frames(engine, info, slots=slots or SLOTS)
    # RuntimeError: DeviceError of detrx._C, and whatever TensorRT's bindings or PyTorch raise.
    except (DetrxError, RuntimeError, ValueError) as error:
        log.warning("each frame runs step by step, not as one captured graph: %s", error)
        return None


def _kernels() -> ModuleType:
    kernels: Optional[ModuleType] = getattr(native.load(), "cuda", None)
    if kernels is None:
        raise MissingBackendError(
            "detrx._C with CUDA",
            "Build it: pip install -C cmake.define.DETRX_CUDA=ON . (in the folder of its source)",
        )
    return kernels


def _adjacent(plane: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The same with the pixels of a row side by side."""
    whole = plane.strides[2] == 1 and plane.strides[1] == plane.shape[2]
    return plane if whole else np.ascontiguousarray(plane)
