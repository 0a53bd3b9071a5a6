"""What defines a model; free of torch, so that the command line can read it quickly."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Union

from detrx.errors import ConfigError

POINTS = {"dfine": {1: (12,), 2: (6, 6), 3: (3, 6, 3)}, "rtdetrv2": {1: (4,), 2: (4, 4), 3: (4, 4, 4)}}
"""Sampling points of a head on its levels where the configuration names none."""


@dataclass(frozen=True)
class RtConfig:
    """A real-time DETR: backbone, hybrid encoder, deformable decoder and one of two box heads."""

    name: str = "rt-s"
    """The name in the zoo, or whatever the variant is called."""
    backbone: str = "hgnetv2_b0"
    """A timm network with ``features_only``."""
    backbone_padding: Literal["", "same"] = ""
    """"same" pads as TensorFlow does, for weights trained there; only timm's EfficientNet relatives."""
    backbone_projection: bool = False
    """Project the first shortcut too, as RT-DETR's ResNet-18 and 34 do; only for timm's resnet18d and 34d."""
    levels: tuple[int, ...] = (8, 16, 32)
    """Strides of the feature maps in pixels, rising."""
    hidden: int = 256
    """Channels of the encoder."""
    heads: int = 8
    """Attention heads of encoder and decoder."""
    neck: Literal["csp", "elan", "light"] = "elan"
    """How maps are fused: RT-DETR's CSPRepLayer, D-FINE's RepNCSPELAN4, or a sum and depthwise blocks for CPUs."""
    neck_depth: int = 3
    """RepVGG blocks (light: depthwise ones) in each fusion layer."""
    neck_expansion: float = 1.0
    """Inner channels of a fusion layer as a share of ``hidden`` (elan: of half of it; light: none)."""
    attention_levels: tuple[int, ...] = ()
    """Strides whose maps pass through self-attention; empty means the deepest. 32 without such a level attends to the
    deepest map, pooled to that stride."""
    encoder_layers: int = 1
    """Self-attention layers on each of those maps."""
    encoder_feedforward: int = 1024
    """Inner width of the encoder's feed-forward nets."""
    decoder_hidden: int = 256
    """Channels of the decoder."""
    decoder_layers: int = 3
    """Decoder layers that are trained."""
    eval_layer: int = -1
    """The decoder layer that answers in eval mode, as Python counts; the later ones only help training."""
    decoder_feedforward: int = 1024
    """Inner width of the decoder's feed-forward nets."""
    points: tuple[int, ...] = ()
    """Sampling points of each head on each level; empty means the head's usual ones."""
    queries: int = 300
    """Objects that can be found; fewer where the feature maps have fewer cells."""
    head: Literal["dfine", "rtdetrv2"] = "dfine"
    """dfine refines distributions over edge offsets, rtdetrv2 the boxes themselves."""
    bins: int = 32
    """R, the last bin of an edge's distribution, even (dfine)."""
    reg_scale: float = 4.0
    """How flat the bins' offsets are around zero (dfine)."""
    up: float = 0.5
    """The largest offset but one, in box sides (dfine)."""
    masks: bool = False
    """A mask of each query beside its box, at stride 4 where the backbone has such a map, else 8."""

    def __post_init__(self) -> None:
        self._check_levels()
        for name in ("hidden", "decoder_hidden"):
            if getattr(self, name) % (4 * self.heads):
                raise ConfigError(
                    f"[RtConfig] {name} must be a multiple of 4 * heads = {4 * self.heads}, "
                    f"got {getattr(self, name)}"
                )
        if self.head not in POINTS or self.neck not in ("csp", "elan", "light"):
            raise ConfigError(
                "[RtConfig] head must be dfine or rtdetrv2 and neck csp, elan or light, "
                f"got {self.head!r} and {self.neck!r}"
            )
        if self.queries < 1 or self.decoder_layers < 1 or self.bins < 4 or self.bins % 2:
            raise ConfigError(
                "[RtConfig] queries and decoder_layers must be at least 1 and bins even, from 4 on, "
                f"got {self.queries}, {self.decoder_layers} and {self.bins}"
            )
        if not -self.decoder_layers <= self.eval_layer < self.decoder_layers:
            raise ConfigError(
                f"[RtConfig] eval_layer must be one of the {self.decoder_layers} decoder layers, "
                f"got {self.eval_layer}"
            )

    def _check_levels(self) -> None:
        known = all(stride in (4, 8, 16, 32) for stride in self.levels)
        if not known or not self.levels or list(self.levels) != sorted(set(self.levels)):
            raise ConfigError(
                "[RtConfig] levels must be rising strides out of 4, 8, 16, 32, as (8, 16, 32), "
                f"got {self.levels}"
            )
        if any(fine * 2 != coarse for fine, coarse in zip(self.levels, self.levels[1:])):
            raise ConfigError(f"[RtConfig] each level must double the one before, got {self.levels}")
        if not set(self.attention_levels) <= {*self.levels, 32}:
            raise ConfigError(
                f"[RtConfig] attention_levels must be 32 or among the levels {self.levels}, "
                f"got {self.attention_levels}"
            )
        if self.points and len(self.points) != len(self.levels):
            raise ConfigError(
                f"[RtConfig] points must name one number for each of the levels {self.levels}, "
                f"got {self.points}"
            )

    @property
    def level_points(self) -> tuple[int, ...]:
        """Sampling points of each level."""
        usual = POINTS[self.head]
        return self.points or usual.get(len(self.levels), (4,) * len(self.levels))

    @property
    def mask_width(self) -> int:
        """Channels of the masks' embeddings: half of the encoder's, since the finest map has many cells."""
        return self.hidden // 2

    @property
    def last_layer(self) -> int:
        """Index of the decoder layer that answers in eval mode."""
        return self.eval_layer % self.decoder_layers


@dataclass(frozen=True)
class DetrConfig:
    """The original DETR (arXiv 2005.12872): backbone, transformer encoder and decoder, one box a query."""

    name: str = "detr-r50"
    """The name in the zoo, or whatever the variant is called."""
    backbone: str = "resnet50"
    """A timm network with ``features_only``; its deepest map, of stride 32, is used."""
    dilated: bool = False
    """DC5: the last stage dilates rather than strides, so that the map has stride 16 and four times the cells."""
    frozen_norm: bool = True
    """Batch norms keep their statistics and their gain, also in training; for backbones that have learnt."""
    hidden: int = 256
    """Channels of encoder and decoder."""
    heads: int = 8
    """Attention heads."""
    encoder_layers: int = 6
    """Self-attention layers over the map."""
    decoder_layers: int = 6
    """Layers of the decoder; each answers in training, the last one in use."""
    feedforward: int = 2048
    """Inner width of the feed-forward nets."""
    dropout: float = 0.1
    """Share of what attention and feed-forward nets drop in training, in [0, 1)."""
    queries: int = 100
    """Objects that can be found."""
    positions: Literal["sine", "learned"] = "sine"
    """How cells know their place: sines of it, or a table of 50 rows and 50 columns."""
    norm_first: bool = False
    """Normalise before attention and feed-forward nets (pre-norm) rather than after them."""
    auxiliary: bool = True
    """In training every decoder layer answers, rather than the last alone."""
    no_object: bool = True
    """The class scores are a softmax with "no object" as last column; False: a sigmoid for each class."""
    head_classes: int = 0
    """Columns of the class head without "no object", where some stand for no class (COCO's 91 ids); 0: one a class."""
    columns: tuple[int, ...] = ()
    """The column of each class where ``head_classes`` is given."""
    masked: bool = False
    """Look away from canvas pixels that are marked as padding, as the published weights learnt it; False: the grey
    around a picture is part of it, as for the rt family."""
    masks: bool = False
    """A mask of each query beside its box (the panoptic models)."""
    groups: int = 1
    """Sets of queries that learn side by side (Group DETR); the first alone answers in use."""
    encoder_head: bool = False
    """In training the encoder's cells answer too, which teaches the encoder at once; only without ``no_object``."""

    def __post_init__(self) -> None:
        if self.masks and (self.hidden % 16 or (self.hidden + self.heads) % 8):
            raise ConfigError(
                "[DetrConfig] masks ask for hidden as a multiple of 16 and hidden + heads of 8, "
                f"got {self.hidden} and {self.heads} heads"
            )
        if self.heads < 1 or self.hidden < 1 or self.hidden % self.heads or self.hidden % 4:
            raise ConfigError(
                f"[DetrConfig] hidden must be a multiple of heads and of 4, got {self.hidden} and {self.heads} heads"
            )
        for name in ("encoder_layers", "decoder_layers", "feedforward", "queries", "groups"):
            if getattr(self, name) < 1:
                raise ConfigError(f"[DetrConfig] {name} must be at least 1, got {getattr(self, name)}")
        if not 0 <= self.dropout < 1:
            raise ConfigError(f"[DetrConfig] dropout must be in [0, 1), got {self.dropout}")
        if self.positions not in ("sine", "learned"):
            raise ConfigError(f"[DetrConfig] positions must be sine or learned, got {self.positions!r}")
        if self.encoder_head and self.no_object:
            raise ConfigError("[DetrConfig] encoder_head needs no_object=False, found no_object=True")
        known = set(range(self.head_classes))
        if not set(self.columns) <= known or len(set(self.columns)) != len(self.columns):
            raise ConfigError(
                f"[DetrConfig] columns must be different numbers below head_classes {self.head_classes}, "
                f"got {self.columns}"
            )


ModelConfig = Union[RtConfig, DetrConfig]
"""What a model is built from."""
KINDS: dict[str, type[RtConfig] | type[DetrConfig]] = {"rt": RtConfig, "detr": DetrConfig}
"""The families by the word that checkpoints have for them."""
