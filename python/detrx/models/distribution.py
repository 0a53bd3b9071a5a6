"""D-FINE's boxes: each edge is a distribution over offsets that every layer refines (arXiv 2410.13842)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrx.models.layers import Mlp

_TOP = 4
"""How many of an edge's highest probabilities tell of its certainty."""


def bin_offsets(bins: int, *, up: Tensor, reg_scale: Tensor) -> Tensor:
    """The (bins + 1,) offsets that the bins stand for, in box sides times ``reg_scale``, rising.

    They grow geometrically from the middle, which is zero; the outermost are twice ``up * reg_scale``.
    """
    bound = (up * reg_scale).abs()
    half = bins // 2
    steps = torch.arange(1, half, device=up.device, dtype=up.dtype)
    right = (bound + 1) ** (2 * steps / (bins - 2)) - 1
    return torch.cat([-2 * bound, -right.flip(0), torch.zeros_like(bound), right, 2 * bound])


def edges_to_boxes(references: Tensor, distances: Tensor, *, reg_scale: Tensor) -> Tensor:
    """Move the edges of (..., 4) centres by (..., 4) left, top, right, bottom distances outwards."""
    centre, size = references[..., :2], references[..., 2:]
    unit = size / reg_scale.abs()
    low = centre - (0.5 * size + distances[..., :2] * unit)
    high = centre + (0.5 * size + distances[..., 2:] * unit)
    return torch.cat([(low + high) / 2, high - low], -1)


class Quality(nn.Module):
    """Location quality (LQE): how peaked the edges are, as (B, Q, 1) to add to the class logits."""

    def __init__(self, *, hidden: int = 64) -> None:
        super().__init__()
        self.reg_conf = Mlp(4 * (_TOP + 1), hidden, 1, layers=2)

    def forward(self, probabilities: Tensor) -> Tensor:
        """Args: probabilities (B, Q, 4, bins + 1)."""
        top = probabilities.topk(_TOP, -1).values
        peaks: Tensor = self.reg_conf(torch.cat([top, top.mean(-1, keepdim=True)], -1).flatten(2))
        return peaks
