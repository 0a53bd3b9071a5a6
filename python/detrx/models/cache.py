"""Tensors that follow from the input's size, made once a size."""

from __future__ import annotations

from collections.abc import Callable, Hashable

import torch
from torch import Tensor

_SIZES = 32
"""How many sizes are remembered; multi-scale training uses about a dozen."""


class TensorCache:
    """Remembers constant tensors by size, device and dtype; no part of a state dict."""

    def __init__(self) -> None:
        self._found: dict[Hashable, tuple[Tensor, ...]] = {}

    def get(self, size: Hashable, like: Tensor, make: Callable[[], tuple[Tensor, ...]]) -> tuple[Tensor, ...]:
        """What ``make`` answers for this size, floats as ``like``."""
        if torch.compiler.is_compiling() or torch._C._is_tracing():
            return _as(make(), like)  # a traced tensor must not outlive its trace
        key = (size, like.device, like.dtype)
        if key not in self._found:
            if len(self._found) >= _SIZES:
                self._found.clear()
            # Made outside inference mode, since a training step may use it next.
            with torch.inference_mode(False), torch.no_grad():
                self._found[key] = _as(make(), like)
        return self._found[key]

    def __deepcopy__(self, memo: dict[int, object]) -> TensorCache:
        return TensorCache()

    def __getstate__(self) -> dict[str, object]:
        return {"_found": {}}


def _as(tensors: tuple[Tensor, ...], like: Tensor) -> tuple[Tensor, ...]:
    return tuple(
        t.to(like.device, like.dtype) if t.is_floating_point() else t.to(like.device) for t in tensors
    )
