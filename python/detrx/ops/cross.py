"""How tensors go to the native extension: as they lie in memory, whatever their type, strides and device."""

from __future__ import annotations

from torch import Tensor
from torch.utils.dlpack import to_dlpack  # type: ignore[attr-defined]


def cross(tensor: Tensor) -> object:
    """What ``detrx._C`` takes for a tensor: a capsule that keeps it alive. Nothing is copied, and nothing waits.

    Unlike a NumPy array, it may be bfloat16 and lie on a GPU, and writing through it is always allowed.
    """
    # detach() costs more than the rest, and a capsule of a tensor without gradient does not need it.
    return to_dlpack(tensor.detach() if tensor.requires_grad else tensor)
