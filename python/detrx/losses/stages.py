"""All the places of a network that take losses, side by side, and what a batch cost in them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detrx.errors import TrainingError
from detrx.losses.kernels import Kernels
from detrx.ops.assign import assign_counting
from detrx.ops.match import raise_bad
from detrx.ops.match_cost import match_cost
from detrx.ops.match_weights import MatchWeights
from detrx.ops.owners import owners
from detrx.tensors import Outputs, Targets

Sums = dict[str, Tensor]
"""The weighted sum of each kind of loss in the first N stages, (N,)."""


@dataclass(frozen=True)
class Stages:
    """The predictions of one kind of query in all places: decoder layers, first head, encoder."""

    logits: Tensor
    """(L, B, Q, C) float32."""
    boxes: Tensor
    """(L, B, Q, 4) float32 centres in [0, 1]."""
    names: list[str]
    """What each stage adds to the name of its terms: nothing for the last layer."""
    edges: Tensor | None = None
    """(N, B, Q, 4, R + 1) float32 distributions of the first N stages, the layers."""
    references: Tensor | None = None
    """(N, B, Q, 4) float32 centres."""

    @property
    def spoken(self) -> list[str]:
        """What errors call each stage."""
        return [name.strip("_") or "the last layer" for name in self.names]


def stack(outputs: Outputs, *, prefix: str = "") -> Stages:
    """Lay the predictions of all places after one another, the layers first.

    Args:
        prefix: the place of these queries, where they are not the learned ones.
    """
    places = [p for p in (outputs, outputs.first, outputs.encoder, outputs.groups) if p is not None]
    edges, references = outputs.distributions, outputs.references
    return Stages(
        torch.cat([place.logits for place in places]).float(),
        torch.cat([place.boxes for place in places]).float().clamp(0, 1),
        _names(outputs, prefix=prefix),
        None if edges is None else edges.float().unflatten(-1, (4, -1)),
        None if references is None else references.detach().float(),
    )


def _names(outputs: Outputs, *, prefix: str) -> list[str]:
    layers = len(outputs.logits)
    if prefix:
        names = [f"{prefix}{i}" for i in range(layers)]
    else:
        names = [f"_aux{i}" for i in range(layers - 1)] + [""]
    return (
        names
        + ([f"{prefix}_first"] if outputs.first is not None else [])
        + ([f"{prefix}_encoder"] if outputs.encoder is not None else [])
        + (["_groups"] * len(outputs.groups.logits) if outputs.groups is not None else [])
    )


@dataclass(frozen=True)
class Costs:
    """How many matching costs of a batch were not finite."""

    bad: Tensor
    """(L * B,) int32, on the device."""
    images: int
    """B."""
    names: Sequence[str]
    """What errors call each of the L stages."""

    def check(self) -> None:
        """Wait for the device and refuse costs that are not finite.

        Raises:
            TrainingError: it names the first such stage and image.
        """
        raise_bad(self.bad, images=self.images, names=self.names)


def match_stages(
    stages: Stages, targets: Targets, *, weights: MatchWeights, kernels: Kernels, more: Tensor | None = None
) -> tuple[Tensor, Tensor, Costs]:
    """Who answers for whom in each stage.

    Args:
        more: (N, B, M, Q) what is added to the costs of the first N stages, as of masks.

    Returns:
        The query (L, B, M) of each target and the target (L, B, Q) of each query, -1 for none; and what they cost,
        of which ``measure`` refuses what is not finite.
    """
    _, images, queries, _ = stages.logits.shape
    logits, boxes = stages.logits.detach(), stages.boxes.detach()
    if more is None:
        match, bad = kernels.match(logits, boxes, targets, weights=weights)
    else:
        match, bad = _match_with(logits, boxes, targets, more, weights=weights, kernels=kernels)
    own = owners(match, images=images, queries=queries)
    return match.unflatten(0, (-1, images)), own, Costs(bad, images, stages.spoken)


def _match_with(
    logits: Tensor, boxes: Tensor, targets: Targets, more: Tensor, *, weights: MatchWeights, kernels: Kernels
) -> tuple[Tensor, Tensor]:
    """The match (L * B, M) and the costs that are not finite (L * B,), the first stages with more costs."""
    count = len(more)
    cost = match_cost(logits[:count], boxes[:count], targets.labels, targets.boxes, weights=weights) + more
    match, bad = assign_counting(cost.flatten(0, 1).mT, targets.counts.repeat(count))
    first = match.to(logits.device, torch.int32), bad.to(logits.device, torch.int32)
    if count == len(logits):
        return first
    rest = kernels.match(logits[count:], boxes[count:], targets, weights=weights)
    return torch.cat((first[0], rest[0])), torch.cat((first[1], rest[1]))


ELSEWHERE = "[match] costs must be finite, but some are NaN or infinite in another process."
Total = Callable[[Tensor], Tensor]
"""Adds a tensor up over all processes that share a batch; alone, it gives it back."""


def alone(tensor: Tensor) -> Tensor:
    return tensor


@dataclass(frozen=True)
class Sizes:
    """What a batch holds, the shares of all processes together: float32 on the device."""

    boxes: Tensor
    """()"""
    queries: Tensor
    """() queries of all images, of one stage."""
    owned: Tensor
    """(L,) or (1,): how many of them own a target, in each stage or in all."""
    groups: int = 1
    """How often each box is there to be returned."""

    @property
    def normaliser(self) -> Tensor:
        """() what losses of boxes are divided by."""
        return self.boxes.clamp(min=1) * self.groups

    def repeated(self, groups: int, *, share: float) -> Sizes:
        """The same of denoising queries: ``share`` times as many, which return each box ``groups`` times."""
        return Sizes(self.boxes, self.queries * share, (self.boxes * groups)[None], groups)


def measure(targets: Targets, own: Tensor, costs: Costs, *, total: Total) -> Sizes:
    """Count for the whole batch, in one message where it is shared.

    Args:
        own: (L, B, Q) or (B, Q) the target of each query, -1 for none.

    Raises:
        TrainingError: on the CPU, a cost is not finite, be it in another process.
    """
    owned = (own >= 0).sum((-2, -1)).reshape(-1)
    queries = torch.full_like(owned[:1], own.shape[-2] * own.shape[-1])
    found = torch.cat([targets.counts.sum()[None], queries, costs.bad.sum()[None], owned])
    found = total(found.to(torch.float32))
    if found.device.type == "cpu":
        costs.check()
        if total is not alone and found[2]:
            raise TrainingError(ELSEWHERE)
    return Sizes(found[0], found[1], found[3:])


@dataclass(frozen=True)
class Losses:
    """What a batch cost."""

    total: Tensor
    """The weighted sum of all terms, to differentiate."""
    terms: dict[str, Tensor]
    """Each weighted term, detached: ``vfl``, ``l1``, ... of the last layer, ``vfl_aux0``, ``vfl_first``,
    ``vfl_encoder``, ``vfl_groups``, ``vfl_denoise0`` ... of the others."""
    costs: Costs | None = None
    """On a device that is not to be waited for: what has to be checked before the weights move. On the CPU bad costs
    are refused at once."""


def add_up(parts: Sequence[tuple[Stages, Sums]], *, costs: Costs) -> Losses:
    """The losses of all kinds and stages as one."""
    total = torch.cat([values for _, sums in parts for values in sums.values()]).sum()
    terms: dict[str, Tensor] = {}
    for stages, sums in parts:
        for kind, values in sums.items():
            terms.update(named_terms(kind, values, stages))
    return Losses(total, terms, costs)


def named_terms(kind: str, values: Tensor, stages: Stages) -> dict[str, Tensor]:
    """The (N,) values of the first N stages by name, detached; those of one name as their sum."""
    found: dict[str, Tensor] = {}
    for name, value in zip(stages.names, values.detach().unbind()):
        found[kind + name] = found[kind + name] + value if kind + name in found else value
    return found
