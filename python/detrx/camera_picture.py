"""Pictures in the layouts of cameras and decoders, taken as they lie in memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

import numpy as np
from numpy.typing import NDArray

CHANNELS = {"rgb": 3, "bgr": 3, "rgba": 4, "bgra": 4, "grey": 1, "nv12": 1, "yuyv": 2}
"""Bytes a pixel of the (first) plane of each layout."""

_YUV = {
    "bt601": (16, 1220542, 2116026, -409993, -852492, 1673527),
    "bt601_full": (0, 1048576, 1858077, -360853, -748826, 1470104),
    "bt709": (16, 1220945, 2215014, -223607, -558796, 1879825),
    "bt709_full": (0, 1048576, 1945738, -196424, -490864, 1651297),
}
"""Black, and the weights of y, u in blue and green, v in green and red, times 2^20, as in csrc/core/picture.h."""


@dataclass(frozen=True)
class CameraPicture:
    """A picture that need not be turned into RGB first: the letterbox reads it as it is.

    An NV12 buffer of H * 3 / 2 rows is given as ``CameraPicture(buffer[:H, :, None], "nv12",
    chroma=buffer[H:].reshape(H // 2, W // 2, 2))``.
    """

    plane: NDArray[np.uint8]
    """(H, W, C) of any strides: C is 3 for "rgb" and "bgr", 4 for "rgba" and "bgra", 1 for "grey" and the luma of
    "nv12", 2 for "yuyv" (then W is even)."""
    layout: str = "bgr"
    """One of CHANNELS. A fourth byte is passed over."""
    colours: str = "bt601"
    """What y, u and v mean: "bt601" or "bt709", of limited range, or with "_full" of 0 to 255."""
    chroma: Optional[NDArray[np.uint8]] = None
    """Of "nv12": (H / 2, W / 2, 2) pairs of u and v, rounded up."""

    def __post_init__(self) -> None:
        if self.layout not in CHANNELS or self.colours not in _YUV:
            raise ValueError(
                f"[CameraPicture] layout must be one of {', '.join(CHANNELS)} and colours one of {', '.join(_YUV)}, "
                f"got {self.layout!r} and {self.colours!r}"
            )
        _check("plane", self.plane, (None, None, CHANNELS[self.layout]))
        if 0 in self.plane.shape or (self.layout == "yuyv" and self.plane.shape[1] % 2):
            raise ValueError(f"[CameraPicture] no picture of {self.layout} has shape {self.plane.shape}")
        if (self.chroma is not None) != (self.layout == "nv12"):
            raise ValueError('[CameraPicture] "nv12" has a plane of chroma, and no other layout')
        if self.chroma is not None:
            _check("chroma", self.chroma, ((self.size[0] + 1) // 2, (self.size[1] + 1) // 2, 2))

    @property
    def size(self) -> Tuple[int, int]:
        """(height, width) in pixels."""
        return self.plane.shape[0], self.plane.shape[1]

    def to_rgb(self) -> NDArray[np.uint8]:
        """(H, W, 3) uint8 of its own memory; what the native letterbox is held to."""
        if self.layout in ("nv12", "yuyv"):
            return self._from_yuv()
        order = {1: [0, 0, 0], 3: [2, 1, 0], 4: [2, 1, 0]}[self.plane.shape[2]]
        if self.layout.startswith("rgb"):
            order = order[::-1]
        return np.ascontiguousarray(self.plane[..., order])

    def _from_yuv(self) -> NDArray[np.uint8]:
        height, width = self.size
        y = self.plane[..., 0].astype(np.int32)
        if self.chroma is not None:
            pairs = self.chroma.repeat(2, 0)[:height].repeat(2, 1)[:, :width].astype(np.int32) - 128
        else:
            both = self.plane[..., 1].reshape(height, width // 2, 2)
            pairs = both.repeat(2, 1).astype(np.int32) - 128
        black, light, ub, ug, vg, vr = _YUV[self.colours]
        u, v = pairs[..., 0], pairs[..., 1]
        base = (y - black).clip(0) * light + (1 << 19)
        found = np.stack([base + vr * v, base + vg * v + ug * u, base + ub * u], axis=-1) >> 20
        return found.clip(0, 255).astype(np.uint8)


def _check(name: str, array: object, shape: Tuple[Optional[int], ...]) -> None:
    if not isinstance(array, np.ndarray) or array.dtype != np.uint8:
        raise TypeError(
            f"[CameraPicture] {name} must be a uint8 array, got {getattr(array, 'dtype', type(array))}"
        )
    fits = array.ndim == len(shape) and all(want in (None, have) for want, have in zip(shape, array.shape))
    if not fits:
        raise ValueError(f"[CameraPicture] {name} must have shape {shape}, got {array.shape}")
