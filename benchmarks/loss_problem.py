"""Predictions and matches of six decoder layers, as our losses and as others' take them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

LAYERS = 6
CROWDS = {"coco": (7.3, 60), "crowd": (60.0, 150)}
"""Mean and most of the targets of a picture."""


@dataclass
class Problem:
    boxes: Tensor
    """(L, B, Q, 4) centres."""
    truths: Tensor
    """(B, M, 4) centres, padded."""
    labels: Tensor
    """(B, M)."""
    owners: Tensor
    """(L, B, Q) the target that each query owns, or -1."""
    counts: list[int]
    """Targets of each image."""
    pairs: list[list[tuple[Tensor, Tensor]]]
    """Of each layer and image: the same matches as queries and targets."""
    normaliser: Tensor

    @property
    def each_truth(self) -> list[Tensor]:
        return [boxes[:count] for boxes, count in zip(self.truths, self.counts)]

    @property
    def each_label(self) -> list[Tensor]:
        return [labels[:count] for labels, count in zip(self.labels, self.counts)]

    def logits(self, classes: int) -> Tensor:
        """(L, B, Q, classes)."""
        g = torch.Generator().manual_seed(1)
        return torch.randn(*self.owners.shape, classes, generator=g) * 2 - 3


def make_problem(images: int, queries: int, targets: str, *, classes: int = 91) -> Problem:
    g = torch.Generator().manual_seed(0)
    mean, most = CROWDS[targets]
    drawn = torch.poisson(torch.full((images,), mean), generator=g)
    counts = [int(count) for count in drawn.clamp(1, min(most, queries)).tolist()]
    size = max(counts)
    owners = torch.full((LAYERS, images, queries), -1, dtype=torch.int32)
    pairs = []
    for layer in owners:
        pairs.append([])
        for row, count in zip(layer, counts):
            query = torch.randperm(queries, generator=g)[:count]
            row[query] = torch.arange(count, dtype=torch.int32)
            pairs[-1].append((query, torch.arange(count)))
    return Problem(
        boxes=torch.rand(LAYERS, images, queries, 4, generator=g) * 0.4 + 0.2,
        truths=torch.rand(images, size, 4, generator=g) * 0.4 + 0.2,
        labels=torch.randint(classes - 1, (images, size), generator=g),
        owners=owners,
        counts=counts,
        pairs=pairs,
        normaliser=torch.tensor(float(sum(counts))),
    )
