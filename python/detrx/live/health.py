"""What is wrong with a picture that a camera sent."""

from __future__ import annotations

import time
import zlib
from typing import Any, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.images import opencv

EVERY = 8
"""Each so many pixels is looked at, across and down."""


class BadFrame(Exception):  # noqa: N818 - one frame, not the source
    """A frame arrived damaged."""


def is_broken(image: NDArray[np.uint8]) -> bool:
    """Whether the lower quarter of a (H, W, 3) RGB picture is what decoders leave where nothing arrived.

    That is the green of an empty YUV plane - (0, 135, 0), or (0, 77, 0) in BT.709 - or the grey of a reference
    picture that is missing, without any noise.
    """
    lower = image[image.shape[0] * 3 // 4 :: EVERY, ::EVERY].reshape(-1, 3)
    if not len(lower):
        return False
    low, high = lower.min(axis=0), lower.max(axis=0)
    if (high.astype(int) - low).max() > 6:
        return False
    red, green, blue = (int(value) for value in high)
    empty = red <= 8 and blue <= 8 and 70 <= green <= 160
    return empty or (min(red, green, blue) >= 126 and max(red, green, blue) <= 132)


class Frozen:
    """Finds out that a picture no longer changes: a real camera's has noise."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._digest: Optional[int] = None
        self._since = 0.0
        self._frozen = self._reported = False

    def see(self, image: NDArray[np.uint8]) -> None:
        digest = zlib.crc32(image[::EVERY, ::EVERY].tobytes())
        now = time.monotonic()
        if digest != self._digest:
            self._digest, self._since = digest, now
            self._frozen = self._reported = False
        elif now - self._since >= self._seconds:
            self._frozen = True

    def state(self) -> Tuple[bool, bool]:
        """Whether it is frozen, and whether to open the source anew for it: once, as some pictures are still."""
        anew = self._frozen and not self._reported
        self._reported = self._reported or anew
        return self._frozen, anew


def decode_jpeg(data: Any) -> NDArray[np.uint8]:
    """A whole JPEG as (H, W, 3) RGB.

    Raises:
        BadFrame: it is cut off, or is none.
    """
    cv2 = opencv()
    content = bytes(data).rstrip(b"\0\r\n")
    if content[:2] != b"\xff\xd8" or content[-2:] != b"\xff\xd9":
        raise BadFrame("no whole JPEG")
    image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
    if image is None:
        raise BadFrame("a JPEG that cannot be decoded")
    rgb: NDArray[np.uint8] = cv2.cvtColor(image, cv2.COLOR_BGR2RGB)
    return rgb
