"""Which of these boxes are which of those: overlap, and the assignment of most overlap."""

from __future__ import annotations

from typing import Tuple

import numpy as np
from numpy.typing import NDArray

from detrx import native

Indices = NDArray[np.int64]


def overlaps(a: NDArray[np.float64], b: NDArray[np.float64]) -> NDArray[np.float64]:
    """(A, B) intersection over union of (A, 4) and (B, 4) corners, in [0, 1]."""
    shared = [
        np.maximum(np.minimum.outer(a[:, at + 2], b[:, at + 2]) - np.maximum.outer(a[:, at], b[:, at]), 0)
        for at in (0, 1)
    ]
    inter = shared[0] * shared[1]
    areas = [np.prod(np.maximum(boxes[:, 2:] - boxes[:, :2], 0), axis=1) for boxes in (a, b)]
    found: NDArray[np.float64] = inter / np.maximum(np.add.outer(*areas) - inter, 1e-9)
    return found


def pair(gain: NDArray[np.float64], *, least: float) -> Tuple[Indices, Indices]:
    """Pair rows with columns for the greatest total gain; a pair under ``least`` does not count as one.

    Args:
        gain: (A, B), 0 or more.
        least: above 0.

    Returns:
        The rows, and the column of each.
    """
    allowed = np.where(gain >= least, gain, 0.0)
    if not allowed.any():
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    wide = allowed.shape[0] <= allowed.shape[1]
    columns = _assign(-allowed if wide else -allowed.T)
    rows = np.arange(len(columns), dtype=np.int64)
    if not wide:
        rows, columns = columns, rows
    real = allowed[rows, columns] > 0
    return rows[real], columns[real]


def _assign(cost: NDArray[np.float64]) -> Indices:
    """(M,) the column of each row of (M, Q) costs, M <= Q, for the least total."""
    assign = native.find("assign")
    if assign is None:
        return shortest_paths(cost)
    match: Indices = np.full((1, len(cost)), -1, np.int64)
    costs = np.ascontiguousarray(cost.T[None], np.float32)
    assign(costs, np.array([len(cost)], np.int32), match, None, 1)
    return match.reshape(-1)


def shortest_paths(cost: NDArray[np.float64]) -> Indices:
    """The same in NumPy: each row in turn joins over the shortest augmenting path (Jonker and Volgenant, 1987)."""
    rows, columns = cost.shape
    row_price, column_price = np.zeros(rows), np.zeros(columns)
    owner = np.full(columns, -1, np.int64)
    match = np.full(rows, -1, np.int64)
    for start in range(rows):
        far = np.full(columns, np.inf)
        back = np.full(columns, -1, np.int64)
        done = np.zeros(columns, bool)
        row, at = start, 0.0
        seen = [start]
        while True:
            way = at + cost[row] - row_price[row] - column_price
            closer = ~done & (way < far)
            far[closer], back[closer] = way[closer], row
            column = int(np.argmin(np.where(done, np.inf, far)))
            at = float(far[column])
            done[column] = True
            if owner[column] < 0:
                break
            row = int(owner[column])
            seen.append(row)
        for other in seen:
            held = match[other]
            row_price[other] += at - (far[held] if held >= 0 else 0.0)
        column_price[done] -= at - far[done]
        while True:
            row = int(back[column])
            owner[column] = row
            match[row], column = column, int(match[row])
            if row == start:
                break
    return match
