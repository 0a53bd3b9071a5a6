"""How tensors go to the native extension: as they lie in memory, whatever their type, strides and device."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]


def cross(tensor: Tensor) -> object:
    """What ``detrx._C`` takes for a tensor: a capsule that keeps it alive. Nothing is copied, and nothing waits.

    Unlike a NumPy array, it may be bfloat16 and lie on a GPU, and writing through it is always allowed.
    """
    # detach() costs more than the rest, and a capsule of a tensor without gradient does not need it.
    return to_dlpack(tensor.detach() if tensor.requires_grad else tensor)


def may_go_straight(tensor: Tensor) -> bool:
    """Whether an operator's CPU body may be called at once: an ordinary tensor, and nobody records or traces.

    Torch's dispatcher takes longer than the kernel where the problem is small.
    """
    if torch.compiler.is_compiling() or type(tensor) is not Tensor or not tensor.is_cpu:
        return False
    return not torch._C._len_torch_dispatch_stack()
