"""Matches seen from the queries' side: which target each query answers for."""

from __future__ import annotations

import torch
from torch import Tensor

from detrx import native
from detrx.ops.cross import cross


def owners(match: Tensor, *, images: int, queries: int) -> Tensor:
    """Turn the query of each target into the target of each query. Nothing waits for the device.

    Args:
        match: (L * B, M) int32, the query of each target or -1; no query stands twice in a row.
        images: B.
        queries: Q.

    Returns:
        (L, B, Q) int32: the target in [0, M) that each query owns, or -1.
    """
    found: Tensor = _owners_op(match, queries)
    return found.unflatten(0, (-1, images)) if images else found.reshape(0, 0, queries)


def agree(owners: Tensor) -> Tensor:
    """Let all stages vote for the target of each query (D-FINE's union of matches, arXiv 2410.13842).

    Args:
        owners: (L, B, Q) int32, a target or -1.

    Returns:
        (B, Q) int32: the target that most stages give the query, the lowest-numbered among equals; -1 where no stage
        gives it any.
    """
    found: Tensor = _agree_op(owners)
    return found


@torch.library.custom_op("detrx::owners", mutates_args=())
def _owners_op(match: Tensor, queries: int) -> Tensor:
    """Devices without a kernel of ours."""
    problems, targets = match.shape
    # Targets without a query write into one column too many.
    found = match.new_full((problems, queries + 1), -1, dtype=torch.int32)
    target = torch.arange(targets, dtype=torch.int32, device=match.device).expand(problems, -1)
    found.scatter_(1, torch.where(match < 0, queries, match).long(), target)
    return found[:, :queries].contiguous()


@_owners_op.register_kernel("cpu")
def _(match: Tensor, queries: int) -> Tensor:
    found = torch.empty(match.shape[0], queries, dtype=torch.int32)
    native.load().owners(cross(match.to(torch.int32).contiguous()), cross(found))
    return found


@_owners_op.register_fake
def _(match: Tensor, queries: int) -> Tensor:
    return match.new_empty((match.shape[0], queries), dtype=torch.int32)


@torch.library.custom_op("detrx::agree", mutates_args=())
def _agree_op(owners: Tensor) -> Tensor:
    """Devices without a kernel of ours."""
    if owners.shape[0] == 0:
        return owners.new_full(owners.shape[1:], -1, dtype=torch.int32)
    # Each "none" is a candidate of its own, behind all targets, and so wins only where nobody names a target.
    behind = torch.iinfo(torch.int32).max - torch.arange(owners.shape[0], device=owners.device)
    votes = torch.where(owners < 0, behind.to(torch.int32)[:, None, None], owners)
    count = torch.stack([(votes == vote).sum(0) for vote in votes])
    leader = torch.where(count == count.amax(0), votes, torch.iinfo(torch.int32).max).amin(0)
    return torch.where((owners >= 0).any(0), leader, -1).to(torch.int32)


@_agree_op.register_kernel("cpu")
def _(owners: Tensor) -> Tensor:
    found = torch.empty(owners.shape[1:], dtype=torch.int32)
    flat = owners.to(torch.int32).reshape(owners.shape[0], found.numel()).contiguous()
    native.load().agree(cross(flat), cross(found.view(-1)))
    return found


@_agree_op.register_fake
def _(owners: Tensor) -> Tensor:
    return owners.new_empty(owners.shape[1:], dtype=torch.int32)
