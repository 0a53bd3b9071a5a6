"""Which cells of the feature maps become queries."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from detrx.models.cache import TensorCache
from detrx.models.layers import Mlp

_SIDE = 0.05
"""Side of the finest level's anchors in canvases; each coarser level doubles it."""
_EDGE = 1e-2
"""Anchors nearer to the border than this, in canvases, are not used."""
_FAR = 1e4
"""The logit of an unused anchor: its sigmoid is 1, and float16 holds it."""


class Chosen(NamedTuple):
    """The best cells of each image."""

    content: Tensor
    """(B, Q, d) their features, cut off from the gradient."""
    logits: Tensor
    """(B, Q, C) class logits."""
    boxes: Tensor
    """(B, Q, 4) boxes before the sigmoid."""


def make_anchors(shapes: Sequence[tuple[int, int]]) -> tuple[Tensor, Tensor]:
    """Logits (1, S, 4) of a square on each cell, and (1, S, 1) which of them are well inside the canvas."""
    levels = []
    for level, (height, width) in enumerate(shapes):
        y = (torch.arange(height) + 0.5) / height
        x = (torch.arange(width) + 0.5) / width
        grid = torch.stack([x.expand(height, -1), y[:, None].expand(-1, width)], -1).flatten(0, 1)
        levels.append(torch.cat([grid, torch.full_like(grid, _SIDE * 2.0**level)], -1))
    anchors = torch.cat(levels)[None]
    valid = ((anchors > _EDGE) & (anchors < 1 - _EDGE)).all(-1, keepdim=True)
    return torch.where(valid, anchors.logit(), _FAR), valid.float()


class QuerySelection(nn.Module):
    """Scores every cell and takes the best, with a box for each (two-stage selection of RT-DETR)."""

    def __init__(self, width: int, *, classes: int, queries: int) -> None:
        super().__init__()
        self.queries = queries
        self.enc_output = nn.Sequential()
        self.enc_output.add_module("proj", nn.Linear(width, width))
        self.enc_output.add_module("norm", nn.LayerNorm(width))
        self.enc_score_head = nn.Linear(width, classes)
        self.enc_bbox_head = Mlp(width, width, 4, layers=3)
        self._anchors = TensorCache()

    def anchors(self, shapes: Sequence[tuple[int, int]], like: Tensor) -> tuple[Tensor, Tensor]:
        """(1, S, 4) anchor logits and (1, S, 1) validity as floats, remembered for each canvas.

        Never in half precision: bfloat16 would move anchors by about a pixel of a 640 canvas.
        """
        exact = like.new_empty(0, dtype=torch.promote_types(like.dtype, torch.float32))
        found = self._anchors.get(tuple(shapes), exact, lambda: make_anchors(shapes))
        return found[0], found[1]

    def select(self, memory: Tensor, shapes: Sequence[tuple[int, int]]) -> Chosen:
        """The best cells of (B, S, d) memory whose levels have ``shapes``."""
        anchors, valid = self.anchors(shapes, memory)
        memory = memory * valid.to(memory)
        # The choice takes no gradient, so only the chosen cells pass through the heads again with one.
        with torch.no_grad():
            features = self.enc_output(memory)
            best = self.enc_score_head(features).amax(-1)
            index = best.topk(min(self.queries, best.shape[1]), dim=1).indices[..., None]
        features = self.enc_output(_pick(memory, index)) if self.training else _pick(features, index)
        boxes = self.enc_bbox_head(features) + anchors[0][index[..., 0]]
        return Chosen(features.detach(), cast(Tensor, self.enc_score_head(features)), boxes)


def _pick(x: Tensor, index: Tensor) -> Tensor:
    return x.gather(1, index.expand(-1, -1, x.shape[-1]))
