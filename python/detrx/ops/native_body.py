"""Which body of an operator answers: the native one, at once or by way of torch's dispatcher, or the reference."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from detrx import native
from detrx.errors import MissingBackendError
from detrx.ops.cuda_bodies import has_cuda

_FLOATS = (torch.float32, torch.bfloat16, torch.float16)


def has_native(name: str, tensor: Tensor) -> bool:
    """Whether the operator of that name has a native body for a floating tensor's device and type."""
    return tensor.dtype in _FLOATS and _has_body(name, tensor.device.type)


def is_plain(tensor: Tensor) -> bool:
    """Whether nobody looks on (no compiler, no tracer, no fake tensors), so that the dispatcher may be passed by.

    An operator with gradient costs about 50 us more by way of ``torch.library.custom_op`` than as a bare autograd
    function around the same native calls: as much as the small ones take in all.
    """
    if torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return False
    return tensor.device.type in ("cpu", "cuda") and type(tensor) in (Tensor, torch.nn.Parameter)


def by_stage(owners: Tensor) -> Tensor:
    """(L, B, Q) or (1, B, Q) int32 of owners that may also be (B, Q) or of another integer type."""
    owners = owners if owners.dtype == torch.int32 else owners.to(torch.int32)
    return owners if owners.ndim == 3 else owners.unsqueeze(0)


def adjacent(tensor: Tensor) -> Tensor:
    """The tensor with the items of its last dimension side by side."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def number(normaliser: Tensor | None) -> float:
    """What native bodies on the CPU divide by."""
    return 1.0 if normaliser is None else float(normaliser)


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
