"""What helps the original DETR to learn and has no part in what it answers: its eval graph stays as it is without."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrx.models.config import DetrConfig
from detrx.models.queries import QuerySelection
from detrx.tensors import Outputs

_NOTHING = -20.0
"""A class logit whose sigmoid no loss sees."""


class Aids(nn.Module):
    """Further groups of queries (Group DETR, arXiv 2207.13085), and a head that reads objects off the encoder's cells.

    Both take the losses of the queries that answer. Their weights lie under ``aids.`` beside those of the model.
    """

    def __init__(self, config: DetrConfig, *, classes: int) -> None:
        super().__init__()
        extra = (config.groups - 1) * config.queries
        self.group_embed = nn.Embedding(extra, config.hidden) if extra else None
        self.cells = (
            QuerySelection(config.hidden, classes=classes, queries=config.queries)
            if config.encoder_head
            else None
        )

    def slots(self, own: Tensor) -> Tensor:
        """(Q, C) learned queries to (G * Q, C), the model's own first."""
        return own if self.group_embed is None else torch.cat([own, self.group_embed.weight])

    def read_cells(self, memory: Tensor) -> Outputs | None:
        """What the best cells of the encoder's (B, C, h, w) say, one layer."""
        if self.cells is None:
            return None
        height, width = memory.shape[-2:]
        chosen = self.cells.select(memory.flatten(2).transpose(1, 2), [(height, width)])
        # Of few cells, the rest are as queries that saw nothing, which no loss moves.
        rest = (0, 0, 0, self.cells.queries - chosen.logits.shape[1])
        logits = F.pad(chosen.logits, rest, value=_NOTHING)
        return Outputs(logits[None], F.pad(chosen.boxes, rest).sigmoid()[None])


def by_group(x: Tensor, groups: int) -> tuple[Tensor, Tensor]:
    """(L, B, G * Q, ...) to (L, B, Q, ...) of the first group, and (L * (G - 1), B, Q, ...) of the others."""
    first, *others = x.chunk(groups, dim=2)
    return first, torch.cat(others) if others else x[:0]
