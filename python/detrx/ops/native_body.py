"""Which operators have native bodies, and tensors as these want them."""

from __future__ import annotations

import torch
from torch import Tensor

from detrx import native
from detrx.errors import MissingBackendError
from detrx.ops.cuda_bodies import has_cuda

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def has_native(name: str, tensor: Tensor) -> bool:
    """Whether the operator of that name has a native body for a floating tensor's device and type."""
    return tensor.dtype in _FLOATS and _has_body(name, tensor.device.type)


def by_stage(owners: Tensor) -> Tensor:
    """(L, B, Q) or (1, B, Q) int32 of owners that may also be (B, Q) or of another integer type."""
    owners = owners if owners.dtype == torch.int32 else owners.to(torch.int32)
    return owners if owners.ndim == 3 else owners.unsqueeze(0)


def adjacent(tensor: Tensor) -> Tensor:
    """The tensor with the items of its last dimension side by side."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def room(like: Tensor, *ranks: int) -> tuple[Tensor, ...]:
    """Empty float32 tensors of the first dimensions of ``like``, so many of them each."""
    return tuple(torch.empty(like.shape[:n], dtype=torch.float32, device=like.device) for n in ranks)


_known: dict[tuple[str, str], bool] = {}


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def _has_body(name: str, device: str) -> bool:
    found = _known.get((name, device))
    if found is None:
        bodies = {"cpu": _is_built, "cuda": has_cuda}
        found = _known[name, device] = device in bodies and bodies[device](name)
    return found


def _is_built(name: str) -> bool:
    try:
        return hasattr(native.load(), name)
    except MissingBackendError:
        return False
