"""What a detector says of a batch, before training and after it, for data like COCO and for crowds."""

from __future__ import annotations

import torch
from torch import Tensor

from detrx.tensors import Targets

TARGETS = {"coco": (7.3, 60), "crowd": (60.0, 150)}
"""Mean and most targets of an image."""


def count_targets(kind: str, images: int, *, generator: torch.Generator) -> Tensor:
    """(B,) how many targets each image has: most have few, some have many."""
    mean, most = TARGETS[kind]
    return torch.empty(images).exponential_(1 / mean, generator=generator).round().clamp(1, most).int()


def scene(
    counts: Tensor, *, queries: int, layers: int = 6, classes: int = 91, trained: bool = True, seed: int = 0
) -> tuple[Tensor, Tensor, Targets]:
    """Logits (L, B, Q, C), boxes (L, B, Q, 4) and the truth.

    A fresh network says "nothing" of every class at boxes all over the image. A trained one has a query near each
    target, more than one near some, and says its class.
    """
    g = torch.Generator().manual_seed(seed)
    images, most = len(counts), int(counts.max())
    truths = torch.rand(images, most, 4, generator=g) * torch.tensor([0.8, 0.8, 0.35, 0.35]) + 0.03
    labels = torch.randint(classes, (images, most), generator=g)
    logits = torch.randn(layers, images, queries, classes, generator=g) * 0.5 - 4.6
    boxes = torch.rand(layers, images, queries, 4, generator=g) * torch.tensor([0.9, 0.9, 0.4, 0.4]) + 0.02
    if trained:
        for image, count in enumerate(counts.tolist()):
            about = torch.arange(min(queries, count + count // 2))
            near, target = torch.randperm(queries, generator=g)[: len(about)], about % count
            noise = 0.01 * torch.randn(layers, len(about), 4, generator=g)
            boxes[:, image, near] = (truths[image, target] + noise).clamp(0.001, 1)
            logits[:, image, near, labels[image, target]] += 4.0
    return logits, boxes, Targets(truths, labels, counts)
