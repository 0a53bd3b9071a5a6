"""Which query answers for which target: match tensors turned into rows to gather."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Pairs:
    """P pairs in each of N stages. A query stands in at most one pair of a stage."""

    rows: Tensor
    """(N, P) int64 into the B * Q queries of the batch."""
    truths: Tensor
    """(N, P) int64 into the B * M targets of the batch."""

    def to(self, device: torch.device) -> Pairs:
        return Pairs(self.rows.to(device, non_blocking=True), self.truths.to(device, non_blocking=True))

    def flat(self, height: int) -> Tensor:
        """(N * P,) the rows of all stages in a table of N * height rows, height being B * Q."""
        stage = torch.arange(self.rows.shape[0], device=self.rows.device)
        return (self.rows + stage[:, None] * height).reshape(-1)

    def repeat(self, stages: int) -> Pairs:
        """The pairs of one stage for several."""
        return Pairs(self.rows.expand(stages, -1), self.truths.expand(stages, -1))

    def first(self, stages: int) -> Pairs:
        """The pairs of the first stages."""
        return Pairs(self.rows[:stages], self.truths[:stages])


def pair(match: Tensor, queries: int) -> Pairs:
    """List the pairs of each stage.

    Args:
        match: (N, B, M) int64 the query of each target, -1 for none; every stage has equally many.
        queries: Q.
    """
    stages, _, targets = match.shape
    stage, image, target = (match >= 0).nonzero(as_tuple=True)
    rows = image * queries + match[stage, image, target]
    shape = (stages, len(rows) // stages)
    return Pairs(rows.reshape(shape), (image * targets + target).reshape(shape))


def pair_union(match: Tensor, queries: int) -> Pairs:
    """List the pairs on which any stage agrees, in one stage (D-FINE, arXiv 2410.13842).

    A query that different stages give to different targets goes to the one with the most votes; among equals to the
    one that stands first.
    """
    _, batch, targets = match.shape
    votes = torch.zeros(batch, targets, queries + 1, dtype=torch.int64)
    where = torch.where(match < 0, queries, match).permute(1, 2, 0)
    votes.scatter_add_(2, where, torch.ones_like(where))
    votes = votes[:, :, :queries]
    earlier = torch.arange(targets - 1, -1, -1)[:, None]
    best = (votes * targets + earlier).amax(dim=1) if targets else votes.new_zeros(batch, queries)
    image, query = (best >= max(targets, 1)).nonzero(as_tuple=True)
    target = targets - 1 - best[image, query] % max(targets, 1)
    return Pairs((image * queries + query)[None], (image * targets + target)[None])


def pair_denoise(match: Tensor, queries: int) -> Pairs:
    """List the pairs of the denoising queries, in one stage.

    Args:
        match: (B, M, G) int64 the queries that must return each target, -1 past the counts.
        queries: D.
    """
    image, target, group = (match >= 0).nonzero(as_tuple=True)
    rows = image * queries + match[image, target, group]
    return Pairs(rows[None], (image * match.shape[1] + target)[None])
