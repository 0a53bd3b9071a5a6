"""Instance masks: what each query says, times what each place of the picture says (MaskFormer, arXiv 2107.06278)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch.nn.functional as F
from torch import Tensor, nn

from detrx.models.backbone import strides_of
from detrx.models.config import RtConfig
from detrx.models.layers import ConvNorm

FINEST = 4
"""Stride of the masks, where the backbone has such a map; else the next it has."""


def finer_strides(config: RtConfig) -> tuple[int, ...]:
    """The strides below the decoder's finest, rising, whose maps the masks need beside it."""
    known = strides_of(config.backbone)
    found: tuple[int, ...] = ()
    stride = config.levels[0] // 2
    while stride >= FINEST and stride in known:
        found, stride = (stride, *found), stride // 2
    return found


class PixelHead(nn.Module):
    """The encoder's finest map and the backbone's finer ones to (B, E, h', w'), at the finest of their strides.

    A feature pyramid: each step doubles the map and adds the backbone's, then looks around.
    """

    def __init__(self, channels: Sequence[int], config: RtConfig) -> None:
        """
        Args:
            channels: of the backbone's finer maps, finest first.
        """
        super().__init__()
        width = config.mask_width
        self.input_proj = ConvNorm(config.hidden, width, act="silu")
        self.lateral = nn.ModuleList(ConvNorm(count, width) for count in channels)
        self.smooth = nn.ModuleList(ConvNorm(width, width, kernel=3, act="silu") for _ in channels)
        self.output_proj = nn.Conv2d(width, width, 1)

    def forward(self, finer: Sequence[Tensor], deepest: Tensor) -> Tensor:
        """Args: finer (B, C, h, w) of the backbone, finest first; deepest: the encoder's finest map."""
        x = self.input_proj(deepest)
        for at in range(len(finer) - 1, -1, -1):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest") + self.lateral[at](finer[at])
            x = self.smooth[at](x)
        return cast(Tensor, self.output_proj(x))
