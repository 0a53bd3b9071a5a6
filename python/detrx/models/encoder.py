"""RT-DETR's hybrid encoder: attention inside the deepest map, convolutions across maps (arXiv 2304.08069)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrx.models.cache import TensorCache
from detrx.models.config import RtConfig
from detrx.models.layers import ConvNorm, CspRep, ElanRep, LightFuse, ScDown, SelfAttention


def position_embedding(height: int, width: int, channels: int) -> Tensor:
    """(1, height * width, channels) sines and cosines of the row, then of the column, of each cell."""
    rates = 10000.0 ** -(torch.arange(channels // 4, dtype=torch.float64) / (channels // 4))
    rows = torch.arange(height, dtype=torch.float64)[:, None] * rates
    columns = torch.arange(width, dtype=torch.float64)[:, None] * rates
    rows = torch.cat([rows.sin(), rows.cos()], 1)[:, None].expand(-1, width, -1)
    columns = torch.cat([columns.sin(), columns.cos()], 1)[None].expand(height, -1, -1)
    return torch.cat([rows, columns], 2).reshape(1, height * width, channels).float()


class EncoderLayer(nn.Module):
    """Self-attention and feed-forward over (B, N, width) tokens, norms after each."""

    def __init__(self, width: int, *, heads: int, feedforward: int) -> None:
        super().__init__()
        self.self_attn = SelfAttention(width, heads=heads)
        self.linear1 = nn.Linear(width, feedforward)
        self.linear2 = nn.Linear(feedforward, width)
        self.norm1 = nn.LayerNorm(width)
        self.norm2 = nn.LayerNorm(width)

    def forward(self, x: Tensor, position: Tensor) -> Tensor:
        x = self.norm1(x + self.self_attn(x, position))
        return cast(Tensor, self.norm2(x + self.linear2(F.gelu(self.linear1(x)))))


class LevelAttention(nn.Module):
    """Self-attention among all cells of one map (AIFI): (B, C, h, w) -> the same shape.

    With ``pool`` the cells are means of pool x pool, and what they learn is added to the map: a sixteenth of the
    pairs for pool 2.
    """

    def __init__(self, config: RtConfig, *, pool: int = 1) -> None:
        super().__init__()
        self.pool = pool
        self.layers = nn.ModuleList(
            EncoderLayer(config.hidden, heads=config.heads, feedforward=config.encoder_feedforward)
            for _ in range(config.encoder_layers)
        )
        self._positions = TensorCache()

    def forward(self, x: Tensor) -> Tensor:
        if self.pool == 1:
            return self._attend(x)
        seen = self._attend(F.avg_pool2d(x, self.pool))
        return x + F.interpolate(seen, scale_factor=float(self.pool), mode="nearest")

    def _attend(self, x: Tensor) -> Tensor:
        channels, height, width = x.shape[1:]
        (position,) = self._positions.get(
            (height, width), x, lambda: (position_embedding(height, width, channels),)
        )
        tokens = x.flatten(2).transpose(1, 2)
        for layer in self.layers:
            tokens = layer(tokens, position)
        return cast(Tensor, tokens.transpose(1, 2).unflatten(2, (height, width)))


class HybridEncoder(nn.Module):
    """Backbone maps to as many maps of ``hidden`` channels that know of each other, finest first."""

    def __init__(self, channels: Sequence[int], config: RtConfig) -> None:
        super().__init__()
        width, steps = config.hidden, len(channels) - 1
        self.input_proj = nn.ModuleList(ConvNorm(count, width) for count in channels)
        strides = config.attention_levels or config.levels[-1:]
        deepest = config.levels[-1]
        self.attention_at = [config.levels.index(min(stride, deepest)) for stride in strides]
        self.encoder = nn.ModuleList(
            LevelAttention(config, pool=max(stride // deepest, 1)) for stride in strides
        )
        self.lateral_convs = nn.ModuleList(
            ConvNorm(width, width, act="silu" if config.neck == "csp" else "") for _ in range(steps)
        )
        self.fpn_blocks = nn.ModuleList(_fusion(config) for _ in range(steps))
        self.downsample_convs = nn.ModuleList(_halving(config) for _ in range(steps))
        self.pan_blocks = nn.ModuleList(_fusion(config) for _ in range(steps))

    def forward(self, features: Sequence[Tensor]) -> list[Tensor]:
        maps = [proj(feature) for proj, feature in zip(self.input_proj, features)]
        for index, attention in zip(self.attention_at, self.encoder):
            maps[index] = attention(maps[index])
        return self._up(self._down(maps))

    def _down(self, maps: list[Tensor]) -> list[Tensor]:
        for i, (lateral, block) in enumerate(zip(self.lateral_convs, self.fpn_blocks)):
            at = len(maps) - 1 - i
            maps[at] = lateral(maps[at])
            wide = F.interpolate(maps[at], scale_factor=2.0, mode="nearest")
            maps[at - 1] = _join(block, wide, maps[at - 1])
        return maps

    def _up(self, maps: list[Tensor]) -> list[Tensor]:
        for at, (halve, block) in enumerate(zip(self.downsample_convs, self.pan_blocks), 1):
            maps[at] = _join(block, halve(maps[at - 1]), maps[at])
        return maps


def _join(block: nn.Module, first: Tensor, second: Tensor) -> Tensor:
    if isinstance(block, LightFuse):
        return cast(Tensor, block(first, second))
    return cast(Tensor, block(torch.cat([first, second], 1)))


def _fusion(config: RtConfig) -> nn.Module:
    if config.neck == "light":
        return LightFuse(config.hidden, blocks=config.neck_depth)
    kind = ElanRep if config.neck == "elan" else CspRep
    return kind(2 * config.hidden, config.hidden, blocks=config.neck_depth, expansion=config.neck_expansion)


def _halving(config: RtConfig) -> nn.Module:
    if config.neck == "csp":
        return ConvNorm(config.hidden, config.hidden, kernel=3, stride=2, act="silu")
    return nn.Sequential(ScDown(config.hidden))
