"""Native kernels.

Arrays are NumPy arrays of the stated type (those that are written must be writable), or DLPack capsules of such
tensors, which torch.utils.dlpack.to_dlpack makes. Floats are capsules or arrays of float32, float16 or bfloat16.
"""

from typing import Any, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

__version__: str
BUILT_WITH: Tuple[str, ...]

class ArgumentError(ValueError): ...
class DeviceError(RuntimeError): ...

def assign(
    cost: NDArray[np.float32],
    counts: NDArray[np.int32],
    match: NDArray[np.int64],
    bad: Optional[NDArray[np.int64]],
    threads: int,
) -> int: ...
def convert(source: Any, target: Any) -> None: ...
def deform_attn(
    values: NDArray[np.float32],
    sides: Sequence[int],
    locations: NDArray[np.float32],
    weights: NDArray[np.float32],
    points: Sequence[int],
    out: NDArray[np.float32],
    threads: int,
) -> None: ...
def deform_attn_backward(
    grad: NDArray[np.float32],
    values: NDArray[np.float32],
    sides: Sequence[int],
    locations: NDArray[np.float32],
    weights: NDArray[np.float32],
    points: Sequence[int],
    grad_values: NDArray[np.float32],
    grad_locations: NDArray[np.float32],
    grad_weights: NDArray[np.float32],
    threads: int,
) -> None: ...
