"""Masks as COCO writes them: lengths of runs down the columns, packed into text. NumPy only."""

from __future__ import annotations

from typing import Any, Dict, List, Mapping

import numpy as np
from numpy.typing import NDArray

_DIGITS = 7
"""Characters of five bits that the longest run takes: runs are below 2 ** 31."""


def encode(mask: NDArray[np.bool_]) -> Dict[str, Any]:
    """A mask as COCO's compressed run lengths, letter for letter as pycocotools writes it.

    Args:
        mask: (H, W) bool.

    Returns:
        ``{"size": [H, W], "counts": text}``.
    """
    flat = mask.T.reshape(-1)
    edges = np.flatnonzero(flat[1:] != flat[:-1]) + 1
    starts = [0] if len(flat) and flat[0] else []  # the first run is of zeros, be it empty
    ends = np.concatenate(([0], starts, edges, [len(flat)])).astype(np.int64)
    return {"size": [int(side) for side in mask.shape], "counts": pack(np.diff(ends))}


def decode(segmentation: Mapping[str, Any]) -> NDArray[np.bool_]:
    """The mask of run lengths, packed or plain: (H, W) bool.

    Raises:
        ValueError: it is no run-length code, or its runs do not add up to its size.
    """
    counts = runs(segmentation)
    height, width = segmentation["size"]
    flat = np.repeat(np.arange(len(counts)) % 2 == 1, counts)
    found: NDArray[np.bool_] = flat.reshape(width, height).T
    return found


def runs(segmentation: Mapping[str, Any]) -> NDArray[np.int64]:
    """The lengths of the runs, the first of zeros.

    Raises:
        ValueError: as ``decode`` says.
    """
    size, counts = segmentation.get("size"), segmentation.get("counts")
    if not isinstance(size, (list, tuple)) or len(size) != 2 or not all(_is_side(side) for side in size):
        raise ValueError(f"[rle] size must be [height, width], got {str(size)[:60]}")
    found = unpack(counts) if isinstance(counts, (str, bytes)) else _plain(counts)
    if (found < 0).any() or found.sum() != size[0] * size[1]:
        raise ValueError(
            f"[rle] runs must add up to {size[0]} x {size[1]} = {size[0] * size[1]} pixels, "
            f"got {int(found.sum())} in {len(found)} runs"
        )
    return found


def _is_side(value: Any) -> bool:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool) and bool(0 < value < 1 << 24)


def _plain(counts: Any) -> NDArray[np.int64]:
    listed = isinstance(counts, (list, tuple, np.ndarray))
    if not listed or not all(isinstance(n, (int, np.integer)) and 0 <= n < 1 << 48 for n in counts):
        raise ValueError(f"[rle] counts must be text or a list of whole numbers, got {str(counts)[:60]}")
    return np.asarray(counts, np.int64)


def area(segmentation: Mapping[str, Any]) -> int:
    """Pixels of the mask."""
    return int(runs(segmentation)[1::2].sum())


def pack(counts: NDArray[np.int64]) -> str:
    """Run lengths as text: from the fourth on as the difference to the last but one, five bits a character."""
    left = counts.astype(np.int64)
    left[3:] -= counts[1:-2]
    letters = np.zeros((len(left), _DIGITS), np.uint8)
    used = np.zeros((len(left), _DIGITS), bool)
    going = np.ones(len(left), bool)
    for place in range(_DIGITS):
        bits = left & 31
        left = left >> 5
        # The last character's highest bit is the sign of what would follow.
        more = np.where(bits & 16, left != -1, left != 0)
        letters[:, place] = 48 + bits + 32 * more
        used[:, place] = going
        going = going & more
    return letters[used].tobytes().decode("ascii")


def unpack(text: Any) -> NDArray[np.int64]:
    """The run lengths of what ``pack`` wrote.

    Raises:
        ValueError: characters that it never writes, or a cut end.
    """
    codes = np.frombuffer(text.encode("utf-8") if isinstance(text, str) else text, np.uint8).astype(np.int64)
    codes = codes - 48
    if len(codes) == 0 or ((codes < 0) | (codes > 63)).any() or codes[-1] & 32:
        raise ValueError(f"[rle] counts must be COCO's packed run lengths, got {str(text)[:60]!r}")
    last = np.flatnonzero(codes & 32 == 0)
    first = np.concatenate(([0], last[:-1] + 1))
    if (last - first).max() >= _DIGITS:
        raise ValueError(
            f"[rle] a run must have at most {_DIGITS} characters, got {int((last - first).max()) + 1}"
        )
    place = np.arange(len(codes)) - np.repeat(first, last - first + 1)
    found = np.add.reduceat((codes & 31) << (5 * place), first)
    negative = codes[last] & 16 != 0
    found -= np.where(negative, np.int64(1) << (5 * (last - first + 1)), 0)
    found[1::2] = np.cumsum(found[1::2])
    found[2::2] = np.cumsum(found[2::2])
    return found


def bounds(mask: NDArray[np.bool_]) -> List[int]:
    """x0, y0, x1, y1 around the set pixels of (H, W); zeros where there are none."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return [0, 0, 0, 0]
    return [int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1]
