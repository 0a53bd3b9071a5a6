"""The deformable decoder and its two ways to refine boxes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrx.errors import ConfigError
from detrx.models.config import RtConfig
from detrx.models.distribution import Quality, bin_offsets, edges_to_boxes
from detrx.models.layers import PRIOR, ConvNorm, Mlp, SelfAttention, inverse_sigmoid
from detrx.models.queries import Chosen, QuerySelection
from detrx.ops.deform_attn import deform_attn
from detrx.tensors import DenoiseQueries, Outputs

Shapes = list[tuple[int, int]]


class DeformableAttention(nn.Module):
    """Each query looks at a few learnt points around its box on every level (arXiv 2010.04159)."""

    def __init__(self, width: int, *, heads: int, points: Sequence[int], project: bool) -> None:
        super().__init__()
        self.heads, self.points = heads, list(points)
        total = heads * sum(points)
        self.sampling_offsets = nn.Linear(width, 2 * total)
        self.attention_weights = nn.Linear(width, total)
        self.value_proj = nn.Linear(width, width) if project else None
        self.output_proj = nn.Linear(width, width) if project else None
        scale = torch.tensor([1 / n for n in points for _ in range(n)])
        self.register_buffer("num_points_scale", scale)
        self._reset()

    num_points_scale: Tensor

    def _reset(self) -> None:
        """Points start on rays around the centre, one ray for each head, weighted alike."""
        angles = torch.arange(self.heads) * (2.0 * math.pi / self.heads)
        rays = torch.stack([angles.cos(), angles.sin()], -1)
        rays = rays / rays.abs().amax(-1, keepdim=True)
        reach = torch.cat([torch.arange(1, n + 1) for n in self.points])
        with torch.no_grad():
            self.sampling_offsets.bias.copy_((rays[:, None] * reach[:, None]).flatten())
        for tensor in (self.sampling_offsets.weight, *self.attention_weights.parameters()):
            nn.init.zeros_(tensor)
        for linear in (self.value_proj, self.output_proj):
            if linear is not None:
                nn.init.xavier_uniform_(linear.weight)
                nn.init.zeros_(linear.bias)

    def values(self, memory: Tensor) -> Tensor:
        """(B, S, width) memory as (B, S, heads, width / heads) float32."""
        memory = memory if self.value_proj is None else self.value_proj(memory)
        return cast(Tensor, memory.unflatten(-1, (self.heads, -1)).float())

    def forward(self, query: Tensor, boxes: Tensor, values: Tensor, shapes: Shapes) -> Tensor:
        """Args: query (B, Q, width); boxes (B, Q, 4) centres in [0, 1]; values as ``values`` gives them."""
        locations, logits = self._aim(query, boxes)
        out = deform_attn(values, shapes, locations, logits, self.points, softmax=True)
        return out if self.output_proj is None else cast(Tensor, self.output_proj(out))

    def sample(self, query: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """Where each query looks, (B, Q, heads, P, 2) x, y in [0, 1] of the canvas, and the shares of 1 that the P
        points of a head have, (B, Q, heads, P). Arguments as of ``forward``."""
        locations, logits = self._aim(query, boxes)
        return locations, logits.softmax(-1)

    def _aim(self, query: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        """As ``sample``, before the softmax."""
        offsets = self.sampling_offsets(query).unflatten(-1, (self.heads, -1, 2)).float()
        logits = self.attention_weights(query).unflatten(-1, (self.heads, -1)).float()
        boxes = boxes[:, :, None, None]
        reach = boxes[..., 2:] * (0.5 * self.num_points_scale)[:, None]
        return boxes[..., :2] + offsets * reach, logits


class Gate(nn.Module):
    """Weighs two (B, Q, width) streams against each other, channel by channel (D-FINE)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.gate = nn.Linear(2 * width, 2 * width)
        self.norm = nn.LayerNorm(width)
        nn.init.zeros_(self.gate.weight)
        nn.init.zeros_(self.gate.bias)

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        one, two = self.gate(torch.cat([first, second], -1)).sigmoid().chunk(2, -1)
        return cast(Tensor, self.norm(one * first + two * second))


class DecoderLayer(nn.Module):
    """Self-attention among queries, deformable attention to the maps, feed-forward; norms after each."""

    def __init__(self, config: RtConfig) -> None:
        super().__init__()
        width, gated = config.decoder_hidden, config.head == "dfine"
        self.self_attn = SelfAttention(width, heads=config.heads)
        self.norm1 = nn.LayerNorm(width)
        self.cross_attn = DeformableAttention(
            width, heads=config.heads, points=config.level_points, project=not gated
        )
        if gated:
            self.gateway = Gate(width)
        else:
            self.norm2 = nn.LayerNorm(width)
        self.gated = gated
        self.linear1 = nn.Linear(width, config.decoder_feedforward)
        self.linear2 = nn.Linear(config.decoder_feedforward, width)
        self.norm3 = nn.LayerNorm(width)
        nn.init.xavier_uniform_(self.linear1.weight)
        nn.init.xavier_uniform_(self.linear2.weight)

    def forward(
        self, x: Tensor, position: Tensor, boxes: Tensor, values: Tensor, shapes: Shapes, mask: Tensor | None
    ) -> Tensor:
        x = self.norm1(x + self.self_attn(x, position, mask))
        seen = self.cross_attn(x + position, boxes, values, shapes)
        x = self.gateway(x, seen) if self.gated else self.norm2(x + seen)
        x = x + self.linear2(F.relu(self.linear1(x)))
        # The clamp keeps float16 finite before the norm.
        return cast(Tensor, self.norm3(x.clamp(-65504, 65504) if self.gated else x))


class DecoderLayers(nn.Module):
    """The layers in a row, with the quality estimators of the D-FINE head."""

    def __init__(self, config: RtConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        if config.head == "dfine":
            self.lqe_layers = nn.ModuleList(Quality() for _ in range(config.decoder_layers))


@dataclass
class Trail:
    """What the layers said on the way, queries of denoising first."""

    logits: list[Tensor] = field(default_factory=list)
    boxes: list[Tensor] = field(default_factory=list)
    distributions: list[Tensor] = field(default_factory=list)
    references: Tensor | None = None
    first: tuple[Tensor, Tensor] | None = None
    embeddings: list[Tensor] = field(default_factory=list)

    def outputs(self, low: int, high: int) -> Outputs:
        """The queries in [low, high) of every layer."""
        cut = slice(low, high)
        layers = len(self.logits)
        return Outputs(
            torch.stack([x[:, cut] for x in self.logits]),
            torch.stack([x[:, cut] for x in self.boxes]),
            torch.stack([x[:, cut] for x in self.distributions]) if self.distributions else None,
            None if self.references is None else self.references[None, :, cut].expand(layers, -1, -1, -1),
            None if self.first is None else Outputs(self.first[0][None, :, cut], self.first[1][None, :, cut]),
            embeddings=torch.stack([x[:, cut] for x in self.embeddings]) if self.embeddings else None,
        )


class Decoder(QuerySelection):
    """Maps of the encoder to objects; ``_refine`` of the two heads differs."""

    def __init__(self, config: RtConfig, *, classes: int, box_outputs: int) -> None:
        width = config.decoder_hidden
        super().__init__(width, classes=classes, queries=config.queries)
        self.config, self.classes = config, classes
        same = config.hidden == width and config.head == "dfine"  # RT-DETRv2 projects in any case
        self.input_proj = nn.ModuleList(
            nn.Identity() if same else ConvNorm(config.hidden, width) for _ in config.levels
        )
        self.decoder = DecoderLayers(config)
        self.denoising_class_embed = nn.Embedding(classes + 1, width, padding_idx=classes)
        self.query_pos_head = Mlp(4, 2 * width, width, layers=2)
        count = config.decoder_layers
        self.dec_score_head = nn.ModuleList(nn.Linear(width, classes) for _ in range(count))
        self.dec_bbox_head = nn.ModuleList(Mlp(width, width, box_outputs, layers=3) for _ in range(count))
        self.mask_embed = Mlp(width, width, config.mask_width, layers=3) if config.masks else None
        self._reset_heads()

    def _reset_heads(self) -> None:
        for score in (self.enc_score_head, *self.dec_score_head):
            nn.init.constant_(cast(Tensor, score.bias), PRIOR)
        for head in (self.enc_bbox_head, *self.dec_bbox_head):
            _zero_last(cast(Mlp, head))
        nn.init.xavier_uniform_(cast(nn.Linear, self.enc_output[0]).weight)
        for layer in self.query_pos_head.layers:
            nn.init.xavier_uniform_(cast(nn.Linear, layer).weight)

    def forward(self, maps: Sequence[Tensor], denoise: DenoiseQueries | None = None) -> Outputs:
        maps = [proj(x) for proj, x in zip(self.input_proj, maps)]
        shapes = [(int(x.shape[2]), int(x.shape[3])) for x in maps]
        memory = torch.cat([x.flatten(2).transpose(1, 2) for x in maps], 1)
        chosen = self.select(memory, shapes)
        content, boxes = chosen.content, chosen.boxes.detach().float()
        if denoise is None:
            trail = self._refine(content, boxes.sigmoid(), memory, shapes, None)
            return self._outputs(trail, chosen, 0)
        count = denoise.labels.shape[1]
        content = torch.cat([self.denoising_class_embed(denoise.labels).to(content), content], 1)
        boxes = torch.cat([denoise.boxes.to(boxes), boxes], 1)
        trail = self._refine(content, boxes.sigmoid(), memory, shapes, _mask(denoise, content))
        return self._outputs(trail, chosen, count)

    def _outputs(self, trail: Trail, chosen: Chosen, denoised: int) -> Outputs:
        total = trail.logits[0].shape[1]
        main = trail.outputs(denoised, total)
        if not self.training:
            return main
        encoder = Outputs(chosen.logits.float()[None], chosen.boxes.float().sigmoid()[None])
        noise = trail.outputs(0, denoised) if denoised else None
        return replace(main, encoder=encoder, denoise=noise)

    def _refine(self, x: Tensor, boxes: Tensor, memory: Tensor, shapes: Shapes, mask: Tensor | None) -> Trail:
        raise NotImplementedError("[Decoder] use BoxDecoder or DistributionDecoder")

    def _embed(self, x: Tensor, trail: Trail) -> None:
        if self.mask_embed is not None:
            trail.embeddings.append(self.mask_embed(x))

    def _active(self) -> Sequence[nn.Module]:
        layers = self.decoder.layers
        return list(layers) if self.training else list(layers)[: self.config.last_layer + 1]


class BoxDecoder(Decoder):
    """RT-DETRv2: every layer moves the boxes of the one before (arXiv 2407.17140)."""

    def __init__(self, config: RtConfig, *, classes: int) -> None:
        super().__init__(config, classes=classes, box_outputs=4)

    def _refine(self, x: Tensor, boxes: Tensor, memory: Tensor, shapes: Shapes, mask: Tensor | None) -> Trail:
        trail, before = Trail(), boxes
        layers = self._active()
        for i, layer in enumerate(layers):
            values = cast(DecoderLayer, layer).cross_attn.values(memory)
            x = layer(x, self.query_pos_head(boxes), boxes, values, shapes, mask)
            # A layer's loss also reaches the layer before, through ``before`` (DINO looks forward twice).
            after = (self.dec_bbox_head[i](x).float() + inverse_sigmoid(before)).sigmoid()
            if self.training or i == len(layers) - 1:
                trail.logits.append(self.dec_score_head[i](x).float())
                trail.boxes.append(after)
                self._embed(x, trail)
            before, boxes = after, after.detach()
        return trail


class DistributionDecoder(Decoder):
    """D-FINE: the first layer sets a box, all layers refine distributions over its edges' offsets."""

    def __init__(self, config: RtConfig, *, classes: int) -> None:
        super().__init__(config, classes=classes, box_outputs=4 * (config.bins + 1))
        width = config.decoder_hidden
        self.pre_bbox_head = Mlp(width, width, 4, layers=3)
        self.register_buffer("up", torch.tensor([config.up]))
        self.register_buffer("reg_scale", torch.tensor([config.reg_scale]))
        _zero_last(self.pre_bbox_head)
        for quality in self.decoder.lqe_layers:
            _zero_last(cast(Quality, quality).reg_conf)

    up: Tensor
    reg_scale: Tensor

    def _refine(self, x: Tensor, boxes: Tensor, memory: Tensor, shapes: Shapes, mask: Tensor | None) -> Trail:
        trail = Trail()
        offsets = bin_offsets(self.config.bins, up=self.up, reg_scale=self.reg_scale)
        layers = self._active()
        values = cast(DecoderLayer, layers[0]).cross_attn.values(
            memory
        )  # unprojected: the same for all layers
        corners, before = None, None
        for i, layer in enumerate(layers):
            x = layer(x, self.query_pos_head(boxes).clamp(-10, 10), boxes, values, shapes, mask)
            if trail.references is None:
                first = (self.pre_bbox_head(x).float() + inverse_sigmoid(boxes)).sigmoid()
                trail.references = first.detach()
                if self.training:
                    trail.first = (self.dec_score_head[0](x).float(), first)
            edges = self.dec_bbox_head[i](x if before is None else x + before).float()
            corners = edges if corners is None else edges + corners
            likely = corners.unflatten(-1, (4, -1)).softmax(-1)
            after = edges_to_boxes(trail.references, likely @ offsets, reg_scale=self.reg_scale)
            if self.training or i == len(layers) - 1:
                trail.logits.append(self.dec_score_head[i](x).float() + self.decoder.lqe_layers[i](likely))
                trail.boxes.append(after)
                trail.distributions.append(corners)
                self._embed(x, trail)
            boxes, before = after.detach(), x.detach()
        return trail


def _zero_last(mlp: Mlp) -> None:
    for tensor in mlp.layers[-1].parameters():
        nn.init.zeros_(tensor)


def _mask(denoise: DenoiseQueries, content: Tensor) -> Tensor:
    """The denoising mask as numbers to add, (N, N), after a look at its size."""
    total = content.shape[1]
    if tuple(denoise.mask.shape) != (total, total):
        raise ConfigError(
            f"[Decoder] the denoising mask must be ({total}, {total}) for this canvas, "
            f"got {tuple(denoise.mask.shape)}; make it with queries=model.queries_for(canvas)"
        )
    return torch.zeros_like(denoise.mask, dtype=content.dtype).masked_fill(denoise.mask, -math.inf)
