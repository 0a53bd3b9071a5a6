"""The real-time family: backbone, hybrid encoder, deformable decoder."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from torch import Tensor, nn

from detrx.models.backbone import Backbone
from detrx.models.config import RtConfig
from detrx.models.decoder import BoxDecoder, Decoder, DistributionDecoder
from detrx.models.encoder import HybridEncoder
from detrx.models.layers import fuse
from detrx.models.segmentation import PixelHead, finer_strides
from detrx.tensors import DenoiseQueries, Outputs


class RtDetr(nn.Module):
    """RT-DETRv2 and D-FINE in one, with masks if the configuration says so: (B, 3, h, w) normalised pixels to Outputs.

    The canvas is free: any h and w that are multiples of 32. In eval mode only the answering layer is in
    the Outputs (L = 1) and nothing that only the losses need is computed.
    """

    def __init__(self, config: RtConfig, *, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self._finer = finer_strides(config) if config.masks else ()
        self.backbone = Backbone(
            config.backbone,
            levels=(*self._finer, *config.levels),
            padding=config.backbone_padding,
            projection=config.backbone_projection,
        )
        finer = len(self._finer)
        self.encoder = HybridEncoder(self.backbone.channels[finer:], config)
        kind: type[BoxDecoder | DistributionDecoder]
        kind = DistributionDecoder if config.head == "dfine" else BoxDecoder
        self.decoder: Decoder = kind(config, classes=classes)
        self.pixels = PixelHead(self.backbone.channels[:finer], config) if config.masks else None

    def forward(self, pixels: Tensor, denoise: DenoiseQueries | None = None) -> Outputs:
        """Args: pixels (B, 3, h, w); denoise: training's noised targets, ahead of the learned queries."""
        height, width = pixels.shape[2:]
        if height % 32 or width % 32:
            raise ValueError(f"[RtDetr] canvas sides must be multiples of 32, got ({height}, {width})")
        features = self.backbone(pixels)
        finer, features = features[: len(self._finer)], features[len(self._finer) :]
        maps = self.encoder(features)
        found = cast(Outputs, self.decoder(maps, denoise))
        return found if self.pixels is None else replace(found, pixels=self.pixels(finer, maps[0]))

    def queries_for(self, canvas: tuple[int, int]) -> int:
        """Q on a (height, width) canvas: the configured number, or all cells where they are fewer."""
        cells = sum((canvas[0] // stride) * (canvas[1] // stride) for stride in self.config.levels)
        return min(self.config.queries, cells)

    def fuse(self) -> RtDetr:
        """Fold RepVGG branches and norms of encoder and decoder, in place, for a model that is only run."""
        fuse(self)
        return self
