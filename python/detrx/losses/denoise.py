"""Contrastive denoising queries (DN-DETR, arXiv 2203.01305; DINO, arXiv 2203.03605)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from detrx.boxes import to_centres, to_corners
from detrx.losses.config import LossConfig
from detrx.tensors import DenoiseQueries, Targets


def make_denoise(
    targets: Targets,
    *,
    classes: int,
    queries: int,
    config: LossConfig,
    generator: torch.Generator,
    first: int = 0,
    whole: int | None = None,
) -> DenoiseQueries | None:
    """Make noised copies of the targets that the decoder must repair.

    Each of G groups holds M positives, moved by less than half their size, then M negatives, moved by more; G is as
    many as ``config.denoise`` positives allow, at least one. Noise is drawn where the generator lives, so that a
    seed gives the same queries on every device.

    Args:
        targets: the truth of the batch, padded to M.
        classes: C; also the class that marks padding.
        queries: Q, how many learned queries follow.
        config: how many and how noisy.
        generator: the source of all randomness.
        first: pictures before these in the batch that they are a share of; noise is drawn for the whole batch, so
            that a picture gets the same whoever has it.
        whole: pictures of that batch; None: these are all.

    Returns:
        D = 2 * M * G queries, or None where targets are padded to M = 0 or denoise is 0.
    """
    most = targets.labels.shape[1]
    if most == 0 or config.denoise == 0:
        return None
    groups = max(config.denoise // most, 1)
    valid = targets.valid.repeat(1, 2 * groups)
    labels = torch.where(valid, targets.labels.repeat(1, 2 * groups), classes)
    chance = _Chance(generator, first, whole or len(labels), labels.shape)
    labels = _noise_labels(labels, valid, classes=classes, share=config.label_noise / 2, chance=chance)
    truths = targets.boxes.float().repeat(1, 2 * groups, 1)
    far = (torch.arange(2 * most * groups, device=truths.device) // most % 2).to(truths.dtype)
    boxes = _noise_boxes(truths, far[:, None], scale=config.box_noise, chance=chance)
    return DenoiseQueries(
        labels=labels,
        boxes=boxes.clamp(0, 1).logit(eps=1e-5),
        mask=_mask(groups, 2 * most, queries, device=labels.device),
        owners=_owners(targets, groups),
        groups=groups,
    )


@dataclass(frozen=True)
class _Chance:
    """Draws for ``whole`` pictures, and keeps those of ``shape[0]`` from ``first`` on."""

    generator: torch.Generator
    first: int
    whole: int
    shape: torch.Size
    """(B, D)"""

    def share(self, *last: int) -> Tensor:
        """(B, D, *last) in [0, 1)."""
        shape = (self.whole, *self.shape[1:], *last)
        return self._mine(torch.rand(shape, generator=self.generator, device=self.generator.device))

    def below(self, number: int, *last: int) -> Tensor:
        """(B, D, *last) int64 in [0, number)."""
        shape = (self.whole, *self.shape[1:], *last)
        return self._mine(
            torch.randint(number, shape, generator=self.generator, device=self.generator.device)
        )

    def _mine(self, drawn: Tensor) -> Tensor:
        return drawn[self.first : self.first + self.shape[0]]


def _noise_labels(labels: Tensor, valid: Tensor, *, classes: int, share: float, chance: _Chance) -> Tensor:
    drawn = chance.share() < share
    fresh = chance.below(classes)
    return torch.where(drawn.to(labels.device) & valid, fresh.to(labels.device), labels)


def _noise_boxes(truths: Tensor, far: Tensor, *, scale: float, chance: _Chance) -> Tensor:
    """Move each edge of (B, D, 4) centres by a share of half the size: below 1, or above where far is 1."""
    sign = chance.below(2, 4).to(truths) * 2 - 1
    part = chance.share(4).to(truths) + far
    reach = truths[..., 2:].repeat(1, 1, 2) * (0.5 * scale)
    return to_centres((to_corners(truths) + sign * part * reach).clamp(0, 1))


def _mask(groups: int, size: int, queries: int, *, device: torch.device) -> Tensor:
    """True where a query must not attend: learned ones to noised ones, noised ones to other groups."""
    group = torch.arange(groups * size, device=device) // size
    group = torch.cat((group, torch.full((queries,), groups, device=device)))
    learned = group == groups
    return (group[:, None] != group[None]) & ~learned[None]


def _owners(targets: Targets, groups: int) -> Tensor:
    """(B, D) int32: the first M queries of each group are the positives of the M targets."""
    target = torch.arange(targets.labels.shape[1], dtype=torch.int32, device=targets.labels.device)
    positive = torch.where(targets.valid, target, -1)
    return torch.cat((positive, torch.full_like(positive, -1)), 1).repeat(1, groups)
