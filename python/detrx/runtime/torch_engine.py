"""An eager model as work that a CUDA graph can capture."""

from __future__ import annotations

from contextlib import ExitStack
from types import SimpleNamespace
from typing import Any, Dict, List, Tuple

import numpy as np

from detrx import native
from detrx.errors import DeviceError
from detrx.runtime.onnx import MORE, OUTPUTS

MOST = 2048
"""Answers that the native decoding gives at most."""


class TorchEngine:
    """As :class:`detrx.runtime.frames.Engine`.

    What the model allocates while it is captured lies in a pool of its own, which nothing else is given from: the
    graph writes there whenever it runs.

    Args:
        model: on a CUDA device, in eval mode.
        canvas: (height, width) of its pixels.
        device: "cuda", or "cpu" under test.
        top: the most answers.

    Raises:
        DeviceError: PyTorch is too old.
    """

    half = False
    stream = 0

    def __init__(self, model: Any, canvas: Tuple[int, int], *, device: str, top: int) -> None:
        import torch

        from detrx.models.head import answers, decode_outputs

        self._torch, self._model, self._decode = torch, model, decode_outputs
        self._device = device
        self._shape = (1, 3, *canvas)
        self._views: Dict[Tuple[int, str], Any] = {}
        with torch.inference_mode():
            found = model(self._laid(torch.zeros(self._shape, device=device)))
            self._top = min(top, answers(found))
            given = decode_outputs(found, top=self._top)
        self.answers = {
            name: (np.dtype(str(tensor.dtype).partition(".")[2]), tuple(tensor.shape))
            for name, tensor in zip((*OUTPUTS, *MORE), given)
        }
        self.device = 0
        if device != "cpu":
            self._prepare_device()

    def _prepare_device(self) -> None:
        cuda = self._torch.cuda
        if not hasattr(cuda, "use_mem_pool"):
            raise DeviceError(
                f"[frames] PyTorch {self._torch.__version__} has no memory pools; 2.6 and later have"
            )
        self.device = cuda.current_device()
        self._pool = cuda.MemPool()
        cuda.synchronize()  # the weights are there, whatever stream brought them

    def capturing(self) -> ExitStack:
        """Before the capture begins, because PyTorch asks who captures, and it is not PyTorch."""
        stack = ExitStack()
        stack.enter_context(self._torch.inference_mode())
        if self._device != "cpu":
            stack.enter_context(self._torch.cuda.use_mem_pool(self._pool))
        return stack

    def enqueue(self, pixels: int, answers: List[int], stream: int) -> None:
        """The model on pixels (1, 3, h, w) float32 at an address, its answers to others."""
        float32 = np.dtype(np.float32)
        with ExitStack() as stack:
            if self._device != "cpu":
                cuda = self._torch.cuda
                stack.enter_context(cuda.stream(cuda.ExternalStream(stream, device=self.device)))
            found = self._model(self._laid(self._view(pixels, float32, self._shape)))
            room = [self._view(to, *kind) for to, kind in zip(answers, self.answers.values())]
            if not self._decode_natively(found, room, stream):
                for to, tensor in zip(room, self._decode(found, top=self._top)):
                    to.copy_(tensor)

    def _laid(self, pixels: Any) -> Any:
        return pixels.to(memory_format=self._torch.channels_last)

    def _decode_natively(self, found: Any, room: List[Any], stream: int) -> bool:
        """One kernel in place of a dozen, where it knows the model's way of answering."""
        if len(room) > len(OUTPUTS) or found.columns or self._top > MOST:
            return False
        from detrx.ops.cross import cross

        kernels = native.load().cuda
        logits = found.logits[-1].float().contiguous()
        boxes = found.boxes[-1].float().contiguous()
        size = kernels.decode_workspace(*logits.shape[:2], found.no_object)
        work = self._torch.empty(size, dtype=self._torch.uint8, device=logits.device)
        given = [cross(tensor) for tensor in (logits, boxes)]
        kernels.decode(*given, found.no_object, *map(cross, (*room, work)), stream)
        return True

    def _view(self, address: int, dtype: np.dtype[Any], shape: Tuple[int, ...]) -> Any:
        """A tensor over memory of the device that somebody else owns; made once, outside of the capture."""
        key = (address, str(dtype))
        if key not in self._views:
            self._views[key] = self._wrap(address, dtype, shape)
        return self._views[key]

    def _wrap(self, address: int, dtype: np.dtype[Any], shape: Tuple[int, ...]) -> Any:
        owner = SimpleNamespace(
            __cuda_array_interface__={
                "shape": shape, "typestr": dtype.str, "data": (address, False), "version": 3, "strides": None,
            }
        )  # fmt: skip
        return self._torch.as_tensor(owner, device=f"cuda:{self.device}")
