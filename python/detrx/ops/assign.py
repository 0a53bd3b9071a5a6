"""Optimal one-to-one assignment of many small problems in one native call."""

from __future__ import annotations

import torch
from torch import Tensor

from detrx import native
from detrx.errors import TrainingError
from detrx.ops import cuda_bodies
from detrx.ops.cross import cross, is_plain


def assign(cost: Tensor, counts: Tensor, *, threads: int | None = None) -> Tensor:
    """Give every target its own query at the least total cost (shortest augmenting paths, float64 duals).

    Args:
        cost: (N, Q, M) floating point on any device, in any layout; columns past the count are not used.
        counts: (N,) integers, how many of the M targets of each problem are real.
        threads: how many threads share the problems; None: as many as torch uses.

    Returns:
        (N, M) int64 on the device of cost: the query of each target; -1 past the count and, where targets
        outnumber queries, for those that the cheapest total leaves out.

    Raises:
        TrainingError: a cost that is used is NaN or infinite.
        ValueError: a shape does not fit.
    """
    _check(cost, counts, threads)
    body = _assigned if is_plain(cost) else _op
    match: Tensor = body(cost.detach(), counts, threads)
    return match


def _refuse(bad: Tensor) -> None:
    """Raise where a count is not 0; waits for the device."""
    if not bad.any():
        return
    first = int(bad.nonzero()[0])
    raise TrainingError(
        f"[assign] costs must be finite, but {int(bad[first])} of problem {first} are NaN or infinite. "
        "Look at what the costs were made of."
    )


def assign_counting(cost: Tensor, counts: Tensor, *, threads: int | None = None) -> tuple[Tensor, Tensor]:
    """Assign, and count the costs that are not finite in place of raising.

    Args:
        cost: (N, Q, M), as for assign.
        counts: (N,) integers.
        threads: how many threads share the problems; None: as many as torch uses.

    Returns:
        Two CPU tensors: the match (N, M) int64, and (N,) int64 how many used costs were NaN or infinite. A problem
        that has any is matched as if those costs were very high.
    """
    _check(cost, counts, threads)
    body = _counted if is_plain(cost) else _counting_op
    match, bad = body(cost.detach(), counts, threads)
    return match, bad


def _check(cost: Tensor, counts: Tensor, threads: int | None) -> None:
    """What a tracer would not see refused."""
    if cost.ndim != 3 or counts.ndim != 1 or counts.shape[0] != cost.shape[0]:
        raise ValueError(
            "[assign] cost must have shape (N, Q, M) and counts (N,), "
            f"got {tuple(cost.shape)} and {tuple(counts.shape)}"
        )
    if threads is not None and threads < 1:
        raise ValueError(f"[assign] threads must be >= 1, got {threads}")


def _assigned(cost: Tensor, counts: Tensor, threads: int | None) -> Tensor:
    if cost.is_cuda and cuda_bodies.has_cuda("assign"):
        found, bad = cuda_bodies.assign(cost.transpose(1, 2), counts)
        _refuse(bad)
        return found.long()
    match, total = _assign(cost, counts, None, threads)
    if total:
        _refuse(_counted(cost, counts, threads)[1])
    return match if cost.is_cpu else match.to(cost.device)


def _counted(cost: Tensor, counts: Tensor, threads: int | None) -> tuple[Tensor, Tensor]:
    bad = torch.empty(cost.shape[0], dtype=torch.int64)
    match, _ = _assign(cost, counts, bad, threads)
    return match, bad


_op = torch.library.custom_op("detrx::assign", _assigned, mutates_args=())
_counting_op = torch.library.custom_op("detrx::assign_counting", _counted, mutates_args=())


@_op.register_fake
def _(cost: Tensor, counts: Tensor, threads: int | None) -> Tensor:
    return cost.new_empty((cost.shape[0], cost.shape[2]), dtype=torch.int64)


@_counting_op.register_fake
def _(cost: Tensor, counts: Tensor, threads: int | None) -> tuple[Tensor, Tensor]:
    match = cost.new_empty((cost.shape[0], cost.shape[2]), dtype=torch.int64, device="cpu")
    return match, match.new_empty(cost.shape[:1])


def _assign(cost: Tensor, counts: Tensor, bad: Tensor | None, threads: int | None) -> tuple[Tensor, int]:
    """The match, and how many costs are not finite. Of tiny problems most of the time goes by here: nothing is
    converted that need not be.
    """
    if cost.dtype != torch.float32 or not cost.is_cpu:
        cost = cost.to("cpu", torch.float32)
    if not (counts.is_cpu and counts.dtype in (torch.int32, torch.int64)):
        counts = counts.to("cpu", torch.int64)
    match = torch.empty(cost.shape[0], cost.shape[-1], dtype=torch.int64)
    total: int = native.load().assign(
        cross(cost),
        cross(counts),
        cross(match),
        None if bad is None else cross(bad),
        torch.get_num_threads() if threads is None else threads,
    )
    return match, total
