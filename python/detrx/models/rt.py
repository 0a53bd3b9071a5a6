"""The real-time family: backbone, hybrid encoder, deformable decoder."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn

from detrx.models.backbone import Backbone
from detrx.models.config import RtConfig
from detrx.models.decoder import BoxDecoder, Decoder, DistributionDecoder
from detrx.models.encoder import HybridEncoder
from detrx.models.layers import fuse
from detrx.tensors import DenoiseQueries, Outputs


class RtDetr(nn.Module):
    """RT-DETRv2 and D-FINE in one: (B, 3, h, w) normalised pixels to Outputs.

    The canvas is free: any h and w that are multiples of 32. In eval mode only the answering layer is in
    the Outputs (L = 1) and nothing that only the losses need is computed.
    """

    def __init__(self, config: RtConfig, *, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.backbone = Backbone(
            config.backbone,
            levels=config.levels,
            padding=config.backbone_padding,
            projection=config.backbone_projection,
        )
        self.encoder = HybridEncoder(self.backbone.channels, config)
        kind: type[BoxDecoder | DistributionDecoder]
        kind = DistributionDecoder if config.head == "dfine" else BoxDecoder
        self.decoder: Decoder = kind(config, classes=classes)

    def forward(self, pixels: Tensor, denoise: DenoiseQueries | None = None) -> Outputs:
        """Args: pixels (B, 3, h, w); denoise: training's noised targets, ahead of the learned queries."""
        height, width = pixels.shape[2:]
        if height % 32 or width % 32:
            raise ValueError(f"[RtDetr] canvas sides must be multiples of 32, got ({height}, {width})")
        return cast(Outputs, self.decoder(self.encoder(self.backbone(pixels)), denoise))

    def queries_for(self, canvas: tuple[int, int]) -> int:
        """Q on a (height, width) canvas: the configured number, or all cells where they are fewer."""
        cells = sum((canvas[0] // stride) * (canvas[1] // stride) for stride in self.config.levels)
        return min(self.config.queries, cells)

    def fuse(self) -> RtDetr:
        """Fold RepVGG branches and norms of encoder and decoder, in place, for a model that is only run."""
        fuse(self)
        return self
