"""The masks of DETR (arXiv 2005.12872, section 4.4): each query's attention map, made finer by the backbone's maps.

The order of operations is that of the original code, as in models/detr.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrx.models.config import DetrConfig

LEVELS = (4, 8, 16, 32)
"""Strides of the backbone's maps that the masks need; the last is the transformer's."""
_GROUPS = 8


class AttentionMap(nn.Module):
    """Where each query looks: a softmax over all heads and cells, with no values."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.q_linear = nn.Linear(width, width)
        self.k_linear = nn.Linear(width, width)
        for linear in (self.q_linear, self.k_linear):
            nn.init.xavier_uniform_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, queries: Tensor, memory: Tensor, padding: Tensor | None) -> Tensor:
        """(B, Q, heads, h, w), in [0, 1].

        Args:
            queries: (B, Q, C) of the last decoder layer.
            memory: (B, C, h, w) of the encoder.
            padding: (B, h, w) bool, True where there is no picture, or None.
        """
        batch, count, width = queries.shape
        height, across = memory.shape[-2:]
        deep = width // self.heads
        q = self.q_linear(queries).view(batch, count, self.heads, deep).transpose(1, 2)
        k = F.conv2d(memory, self.k_linear.weight[..., None, None], self.k_linear.bias)
        k = k.view(batch, self.heads, deep, height * across)
        scores = (q * float(deep) ** -0.5) @ k
        if padding is not None:
            scores = scores.masked_fill(padding.flatten(1)[:, None, None], float("-inf"))
        # One softmax over the cells of all heads together, as the original has it.
        shares = scores.transpose(1, 2).flatten(2).softmax(-1)
        return cast(Tensor, shares.view(batch, count, self.heads, height, across))


class MaskHead(nn.Module):
    """Convolutions that double the size three times, each time with a finer map of the backbone added."""

    def __init__(self, config: DetrConfig, channels: Sequence[int]) -> None:
        """Args: channels of the backbone's maps of LEVELS."""
        super().__init__()
        width, inner = config.hidden, config.hidden + config.heads
        sizes = (inner, inner, *(width // part for part in (2, 4, 8, 16)))
        for i in range(1, 6):
            self.add_module(f"lay{i}", nn.Conv2d(sizes[i - 1], sizes[i], 3, padding=1))
            self.add_module(f"gn{i}", nn.GroupNorm(min(_GROUPS, sizes[i]), sizes[i]))
        self.out_lay = nn.Conv2d(sizes[-1], 1, 3, padding=1)
        for i, finer in enumerate(reversed(channels[:3])):
            self.add_module(f"adapter{i + 1}", nn.Conv2d(finer, sizes[i + 2], 1))
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.kaiming_uniform_(layer.weight, a=1)
                nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, feature: Tensor, maps: Tensor, finer: Sequence[Tensor]) -> Tensor:
        """(B, Q, h', w') logits, h' and w' of the finest map.

        Args:
            feature: (B, C, h, w) what the encoder got.
            maps: (B, Q, heads, h, w) of AttentionMap.
            finer: the backbone's maps of LEVELS but the last.
        """
        batch, count = maps.shape[:2]
        x = torch.cat([_for_each(feature, count), maps.flatten(0, 1)], 1)
        x = self._layer(2, self._layer(1, x))
        for i, level in enumerate(reversed(finer)):
            add = self.get_submodule(f"adapter{i + 1}")(level)
            x = F.interpolate(x, size=add.shape[-2:], mode="nearest")
            x = self._layer(i + 3, _for_each(add, count) + x)
        return cast(Tensor, self.out_lay(x).unflatten(0, (batch, count)).squeeze(2))

    def _layer(self, number: int, x: Tensor) -> Tensor:
        x = self.get_submodule(f"lay{number}")(x)
        return F.relu(self.get_submodule(f"gn{number}")(x))


def _for_each(x: Tensor, count: int) -> Tensor:
    """(B, C, h, w) to (B * count, C, h, w), each picture's map for each of its queries."""
    return x[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1)
