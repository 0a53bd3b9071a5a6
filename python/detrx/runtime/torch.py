"""PyTorch: runs weights as they are, on the CPU or on a CUDA device."""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any, Optional

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DeviceError, MissingBackendError, pip_install
from detrx.runtime.torch_engine import TorchEngine
from detrx.types import ModelInfo, Raw

log = logging.getLogger(__name__)

TOP = 300
"""The most detections of an image that are decoded."""


class TorchBackend:
    """The eager model. One call at a time: a lock keeps threads apart."""

    batch: Optional[int] = None
    free = True
    """Pictures of any size are taken."""

    def __init__(self, path: Path, *, device: str = "auto", threads: Optional[int] = None) -> None:
        self._torch = _torch()
        from detrx.models.checkpoint import load_model
        from detrx.models.head import answers, decode_outputs

        self._device = choose_device(self._torch, device)
        if threads is not None:
            self._torch.set_num_threads(threads)
        model: Any
        model, self.info = load_model(path)
        layout = self._torch.channels_last
        self._model: Any = model.eval().to(device=self._device, memory_format=layout)
        self._decode, self._answers = decode_outputs, answers
        self._lock = threading.Lock()
        self.description = f"PyTorch {self._torch.__version__} on {self._device}"

    def infer(self, pixels: NDArray[np.float32]) -> Raw:
        torch = self._torch
        try:
            with self._lock, torch.inference_mode():
                batch = torch.from_numpy(pixels).to(self._device, memory_format=torch.channels_last)
                found = self._model(batch)
                answer = self._decode(found, top=min(TOP, self._answers(found)))
                scores, labels, *rest = (tensor.cpu().numpy() for tensor in answer)
        except torch.cuda.OutOfMemoryError as error:
            raise DeviceError(
                f"[TorchBackend] {self._device} is out of memory for {pixels.shape}: {error}"
            ) from error
        return Raw(scores, labels.astype(np.int64, copy=False), *rest)

    def capturable(self, info: ModelInfo) -> Optional[TorchEngine]:
        """For :mod:`detrx.runtime.frames`; None on the CPU."""
        if self._device == "cpu":
            return None
        return TorchEngine(self._model, info.canvas, device=self._device, top=TOP)

    def close(self) -> None:
        self._model = None


def open_model(path: Path, *, device: str, threads: Optional[int]) -> TorchBackend:
    """What :func:`detrx.runtime.backend.open_backend` calls for weights.

    Raises:
        CheckpointError: the weights cannot be read.
        DeviceError: "cuda" was asked for and there is none.
        MissingBackendError: torch is not installed.
    """
    return TorchBackend(path, device=device, threads=threads)


def _torch() -> Any:
    try:
        import torch
    except ImportError as error:
        raise MissingBackendError(
            "PyTorch",
            f"Export the weights to ONNX on another machine, or type: {pip_install('train')}",
        ) from error
    return torch


def choose_device(torch: Any, device: str) -> str:
    """The device to run on: "auto" is "cuda" where there is one.

    Raises:
        DeviceError: "cuda" was asked for and there is none.
    """
    if device == "cpu":
        return "cpu"
    if torch.cuda.is_available():
        return "cuda"
    if device == "cuda":
        raise DeviceError(
            "[TorchBackend] device 'cuda' was asked for and PyTorch finds none; "
            "see `nvidia-smi` and `detrx doctor`, or pass device='cpu'"
        )
    log.info("no CUDA device, running on the CPU")
    return "cpu"
