"""Optimal one-to-one assignment of many small problems in one native call."""

from __future__ import annotations

import torch
from torch import Tensor

from detrx import native
from detrx.errors import TrainingError


def assign(cost: Tensor, counts: Tensor, *, threads: int | None = None) -> Tensor:
    """Give every target its own query at the least total cost (shortest augmenting paths, float64 duals).

    Args:
        cost: (N, Q, M) floating point on any device; columns past the count are not read.
        counts: (N,) integers, how many of the M targets of each problem are real.
        threads: how many threads share the problems; None: as many as torch uses.

    Returns:
        (N, M) int64 on the device of cost: the query of each target; -1 past the count and, where targets
        outnumber queries, for those that the cheapest total leaves out.

    Raises:
        TrainingError: a cost that is used is NaN or infinite.
        ValueError: a shape does not fit.
    """
    match, bad = assign_counting(cost.transpose(1, 2), counts, threads=threads)
    if bad.any():
        first = int(bad.nonzero()[0])
        raise TrainingError(
            f"[assign] costs must be finite, but {int(bad[first])} of problem {first} are NaN or infinite. "
            "Look at what the costs were made of."
        )
    return match.to(cost.device)


def assign_counting(cost: Tensor, counts: Tensor, *, threads: int | None = None) -> tuple[Tensor, Tensor]:
    """Assign, and count the costs that are not finite in place of raising.

    Args:
        cost: (N, M, Q), fastest where the queries lie side by side in memory.
        counts: (N,) integers.
        threads: how many threads share the problems; None: as many as torch uses.

    Returns:
        Two CPU tensors: the match (N, M) int64, and (N,) int64 how many used costs were NaN or infinite. A problem
        that has any is matched as if those costs were very high.
    """
    problems, targets, _ = cost.shape
    match = torch.empty(problems, targets, dtype=torch.int64)
    bad = torch.empty(problems, dtype=torch.int64)
    native.load().assign(
        cost.detach().to("cpu", torch.float32).numpy(),
        counts.to("cpu", torch.int32).contiguous().numpy(),
        match.numpy(),
        bad.numpy(),
        torch.get_num_threads() if threads is None else threads,
    )
    return match, bad
