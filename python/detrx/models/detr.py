"""The original DETR (arXiv 2005.12872): a backbone, a transformer, and one box for each query."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrx.models.backbone import Backbone
from detrx.models.cache import TensorCache
from detrx.models.config import DetrConfig
from detrx.models.detr_aids import Aids, by_group
from detrx.models.detr_layers import LearnedPositions, Transformer, plain_norms, scale_norms, sine_positions
from detrx.models.detr_masks import LEVELS, AttentionMap, MaskHead
from detrx.models.layers import PRIOR, Mlp
from detrx.tensors import DenoiseQueries, Outputs
from detrx.types import PADDING


class Detr(nn.Module):
    """DETR, DC5 or not, over any timm backbone: (B, 3, h, w) normalised pixels to Outputs.

    The order of operations is that of the original code: with the same weights and the same torch, ``locate`` gives
    the same bits as it does, with padding and without (measured; see docs/decisions/0019). The canvas is free. In eval
    mode only the last decoder layer is in the Outputs (L = 1).
    """

    def __init__(self, config: DetrConfig, *, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes
        self.backbone = Backbone(
            config.backbone, levels=LEVELS if config.masks else (32,), dilated=config.dilated
        )
        if config.frozen_norm:
            scale_norms(self.backbone)
        width = config.hidden
        self.input_proj = nn.Conv2d(self.backbone.channels[-1], width, 1)
        self.transformer = Transformer(config)
        self.query_embed = nn.Embedding(config.queries, width)
        self.class_embed = nn.Linear(width, (config.head_classes or classes) + config.no_object)
        self.bbox_embed = Mlp(width, width, 4, layers=3)
        self.positions = LearnedPositions(width) if config.positions == "learned" else None
        self.aids = (
            Aids(config, classes=self.class_embed.out_features)
            if config.groups > 1 or config.encoder_head
            else None
        )
        if not config.no_object:  # every sigmoid begins where most queries stay: at almost nothing
            nn.init.constant_(self.class_embed.bias, PRIOR)
        self._sines = TensorCache()
        if config.masks:
            self.bbox_attention = AttentionMap(width, heads=config.heads)
            self.mask_head = MaskHead(config, self.backbone.channels)

    def forward(self, pixels: Tensor, denoise: DenoiseQueries | None = None) -> Outputs:
        """Boxes of the canvas.

        Args:
            pixels: (B, 3, h, w); where the configuration says ``masked``, types.PADDING where there is no picture.
            denoise: none; this family has no denoising queries.
        """
        if denoise is not None:
            raise ValueError("[Detr] denoise must be None; denoising queries are for the rt family")
        padding = self._padding(pixels) if self.config.masked else None
        if padding is None:
            return self.locate(pixels, None)
        found = self.locate(pixels.masked_fill(padding[:, None], 0.0), padding)
        return replace(found, boxes=on_canvas(found.boxes, padding))

    def locate(self, pixels: Tensor, padding: Tensor | None) -> Outputs:
        """What the original code answers: boxes in [0, 1] of each picture, not of the canvas.

        Args:
            pixels: (B, 3, h, w), zero on padding.
            padding: (B, h, w) bool, True where there is no picture, or None for none.
        """
        *finer, feature = self.backbone(pixels)
        if padding is not None:
            # Nearest, as the original shrinks it.
            small = F.interpolate(padding[None].float(), size=feature.shape[-2:])
            padding = small[0] > 0.5
        aids = self.aids if self.training else None
        cells = self.input_proj(feature)
        hidden, memory = self.transformer(
            cells,
            padding,
            self.query_embed.weight if aids is None else aids.slots(self.query_embed.weight),
            self._positions(feature, padding),
            every=self.training or not _traced(),
            groups=1 if aids is None else self.config.groups,
        )
        # The heads run on all layers, as the original's do: on the last alone, a matrix product of few rows may sum in
        # another order. It costs less than a 500th of a picture's work.
        logits, boxes = self.class_embed(hidden), self.bbox_embed(hidden).sigmoid()
        if not (self.training and self.config.auxiliary):
            logits, boxes = logits[-1:], boxes[-1:]
        found = self._outputs(logits, boxes)
        if aids is not None:
            found = self._with_aids(aids, found, memory)
        if self.config.masks:
            maps = self.bbox_attention(hidden[-1][:, : self.config.queries], memory, padding)
            found = replace(found, masks=self.mask_head(cells, maps, finer)[None])
        return found

    def _with_aids(self, aids: Aids, found: Outputs, memory: Tensor) -> Outputs:
        """The first group's outputs, beside those of the others and of the encoder's cells."""
        own, others = zip(
            *(by_group(t, self.config.groups) for t in (found.logits, found.boxes)), strict=True
        )
        groups = self._outputs(*others) if self.config.groups > 1 else None
        return replace(self._outputs(*own), groups=groups, encoder=aids.read_cells(memory))

    def _outputs(self, logits: Tensor, boxes: Tensor) -> Outputs:
        return Outputs(logits, boxes, no_object=self.config.no_object, columns=self.config.columns)

    def queries_for(self, canvas: tuple[int, int]) -> int:  # noqa: ARG002  # the rt family's depends on it
        """Q, on any canvas."""
        return self.config.queries

    def freeze_detector(self) -> None:
        """Let only the masks learn, as in the second stage of the paper's panoptic training."""
        for name, parameter in self.named_parameters():
            parameter.requires_grad_(name.startswith(("bbox_attention.", "mask_head.")))

    def fuse(self) -> Detr:
        """Frozen norms as torch's own, in place, which exporters fold into convolutions."""
        plain_norms(self.backbone)
        return self

    def _padding(self, pixels: Tensor) -> Tensor | None:
        """(B, h, w) bool, or None where there is none; a traced graph has to look each time."""
        padding = pixels[:, 0] < PADDING / 2
        return padding if _traced() or bool(padding.any()) else None

    def _positions(self, feature: Tensor, padding: Tensor | None) -> Tensor:
        height, width = feature.shape[-2:]
        if self.positions is not None:
            return cast(Tensor, self.positions(height, width))
        channels = self.config.hidden
        if padding is not None:
            return sine_positions((~padding).float(), channels).to(feature.dtype)
        return self._sines.get(
            (height, width), feature, lambda: (sine_positions(torch.ones(1, height, width), channels),)
        )[0]


def _traced() -> bool:
    return torch._C._is_tracing() or torch.compiler.is_compiling()


def on_canvas(boxes: Tensor, padding: Tensor) -> Tensor:
    """Boxes (L, B, Q, 4) in [0, 1] of pictures to [0, 1] of the canvas that they were laid on.

    Args:
        padding: (B, h, w) bool, False on one rectangle, the picture.
    """
    down, across = (~padding).any(2).float(), (~padding).any(1).float()  # (B, h), (B, w)
    size = torch.stack([across.mean(1), down.mean(1)], -1)
    start = torch.stack(
        [across.argmax(1).float() / across.shape[1], down.argmax(1).float() / down.shape[1]], -1
    )
    size, start = (pair[None, :, None].to(boxes.dtype) for pair in (size, start))  # (1, B, 1, 2)
    return torch.cat([boxes[..., :2] * size + start, boxes[..., 2:] * size], -1)
