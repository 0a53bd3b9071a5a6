"""How tensors go to the native extension: as they lie in memory, whatever their type, strides and device."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses.fake_tensor import is_fake
from torch.utils._python_dispatch import is_in_torch_dispatch_mode
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]

_ORDINARY = (Tensor, torch.nn.Parameter)


class Choice(NamedTuple):
    """One value of an enumeration of detrx._C."""

    group: str
    name: str


class Divisor(NamedTuple):
    """What sums are divided by: a number for the bodies of the CPU, memory for those of a device."""

    normaliser: Tensor | None
    """(); None: 1."""


def cross(tensor: Tensor) -> object:
    """What ``detrx._C`` takes for a tensor: a capsule that keeps it alive. Nothing is copied, and nothing waits.

    Unlike a NumPy array, it may be bfloat16 and lie on a GPU, and writing through it is always allowed.

    Raises:
        ValueError: there is no memory behind the tensor, as where a compiler or an exporter traces.
    """
    # A kernel would follow the pointer of what only looks like a tensor, and take the process with it.
    if tensor.is_meta or (type(tensor) not in _ORDINARY and is_fake(tensor)):
        raise ValueError(
            f"[cross] a tensor must have memory, got {type(tensor).__name__} of shape {tuple(tensor.shape)} on "
            f"{tensor.device} while tracing or on the meta device. Call the public function of detrx.ops, which is "
            "traced as one operator."
        )
    # detach() costs more than the rest, and a capsule of a tensor without gradient does not need it.
    return to_dlpack(tensor.detach() if tensor.requires_grad else tensor)


def is_plain(tensor: Tensor) -> bool:
    """Whether nobody looks on (no compiler, no tracer, no fake tensors), so that the dispatcher may be passed by.

    An operator with gradient costs about 50 us more by way of ``torch.library.custom_op`` than as a bare autograd
    function around the same native calls: as much as the small ones take in all.
    """
    if type(tensor) not in _ORDINARY or torch.compiler.is_compiling() or is_in_torch_dispatch_mode():
        return False
    return tensor.is_cpu or tensor.is_cuda
