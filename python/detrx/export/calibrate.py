"""How large the numbers of a graph get on pictures: what the scales of 8-bit integers are made from."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DataError

BINS = 2048
METHODS = ("percentile", "entropy", "largest")
PERCENTILE = 99.99
SAMPLE = 1 << 15
"""Numbers of one tensor on one picture that a histogram counts, about; the largest of all are kept besides."""
LEVELS = 128
"""Magnitudes that an 8-bit integer with a sign tells apart."""

Progress = Callable[[int, int], None]


@dataclass
class Range:
    """What one tensor held: a histogram of magnitudes, and the largest magnitude of each channel."""

    counts: NDArray[np.int64]
    top: float
    """The right edge of the last bin."""
    channels: NDArray[np.float32]
    """(C,) the largest magnitude along the last axis."""
    low: float = 0.0
    """The least number, or zero."""
    high: float = 0.0
    """The largest number, or zero."""

    def add(self, values: NDArray[np.float32]) -> None:
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))
        magnitudes = np.abs(values)
        largest = float(magnitudes.max(initial=0.0))
        while largest > self.top:  # two bins become one
            self.counts = np.concatenate([self.counts.reshape(-1, 2).sum(1), np.zeros(BINS // 2, np.int64)])
            self.top *= 2
        some = magnitudes.reshape(-1)[:: max(1, magnitudes.size // SAMPLE)]
        self.counts += np.histogram(some, bins=BINS, range=(0.0, self.top))[0]
        self.channels = np.maximum(self.channels, magnitudes.reshape(-1, values.shape[-1]).max(0))

    def ends(self, method: str) -> tuple[float, float]:
        """The numbers that become the least and the largest integer; zero lies between them."""
        bound = self.bound(method)
        return max(self.low, -bound), min(self.high, bound)

    def bound(self, method: str) -> float:
        """The magnitude that becomes 127; what is larger is cut off."""
        if method == "entropy":
            return _entropy_bound(self.counts, self.top)
        if method == "largest":
            return max(-self.low, self.high, self.top / BINS)
        # Zeros, which a ReLU makes by the million, say nothing of how large numbers are.
        counts = self.counts.copy()
        counts[0] = 0
        total = np.cumsum(counts)
        if total[-1] == 0:
            return self.top / BINS
        return float((np.searchsorted(total, PERCENTILE / 100 * total[-1]) + 1) * self.top / BINS)


def _entropy_bound(counts: NDArray[np.int64], top: float) -> float:
    """The bound whose 8-bit histogram tells least wrong of the whole one (Kullback-Leibler divergence)."""
    best, bound = np.inf, BINS
    whole = counts.astype(np.float64)
    whole[0] = whole[1]
    for end in range(LEVELS, BINS + 1, LEVELS // 4):
        kept = whole[:end].copy()
        kept[-1] += whole[end:].sum()
        groups = np.array_split(np.arange(end), LEVELS)
        told = np.zeros(end)
        for group in groups:
            filled = whole[group] > 0
            told[group[filled]] = whole[group].sum() / max(filled.sum(), 1)
        used = (kept > 0) & (told > 0)
        if not used.any():
            continue
        p, q = kept[used] / kept.sum(), told[used] / told.sum()
        divergence = (
            float((p * np.log(p / q)).sum()) + float(kept[(kept > 0) & (told == 0)].sum()) / kept.sum()
        )
        if divergence < best:
            best, bound = divergence, end
    return bound * top / BINS


def ranges(
    model: Any,
    names: Sequence[str],
    pictures: Iterable[NDArray[np.float32]],
    *,
    total: int,
    progress: Progress | None = None,
) -> dict[str, Range]:
    """Run pictures through a float32 graph and see how large the named tensors get.

    Args:
        model: an onnx.ModelProto without nodes of ours.
        names: float tensors of it.
        pictures: (B, 3, h, w) pixels.
        total: how many pictures come, for ``progress``.
        progress: called with the pictures done and in all.

    Raises:
        DataError: there is no picture, or a tensor is zero on all of them: the pictures are empty.
    """
    session = _answering(model, names)
    found: dict[str, Range] = {}
    done = 0
    for pixels in pictures:
        for name, values in zip(names, session.run(list(names), {"pixels": pixels})):
            if name not in found:
                start = float(np.abs(values).max(initial=0.0)) or 1e-6
                width = values.shape[-1] if values.ndim < 4 else 1
                found[name] = Range(np.zeros(BINS, np.int64), start, np.zeros(width, np.float32))
            found[name].add(values if values.ndim < 4 else values.reshape(-1, 1))
        done += 1
        if progress is not None:
            progress(done, total)
    if not done:
        raise DataError(
            "[calibrate] needs at least one picture that is not black, got none; pass --calibrate FOLDER or --data ROOT"
        )
    return found


def _answering(model: Any, names: Sequence[str]) -> Any:
    """A session that also answers with the named tensors."""
    import onnx
    import onnxruntime

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    present = {out.name for out in copy.graph.output}
    copy.graph.output.extend(
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, None)
        for name in dict.fromkeys(names)
        if name not in present and name != "pixels"
    )
    if "pixels" in names:
        raise ValueError("[calibrate] names must not hold the input")
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    return onnxruntime.InferenceSession(copy.SerializeToString(), options, providers=["CPUExecutionProvider"])
