"""A model whose parts leave nodes of our domain in the traced graph."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn

from detrx.export import plugin_reference as reference
from detrx.export.plugin_nodes import (
    ATTENTION,
    DECODE,
    DEFORM_ATTN,
    DOMAIN,
    HEAD_DIMENSION,
    LAYER_NORM,
    PLUGIN_NAMESPACE,
    PLUGIN_VERSION,
)
from detrx.models.decoder import DeformableAttention
from detrx.models.detr_layers import Attention
from detrx.models.head import fade, masks_of
from detrx.models.layers import SelfAttention
from detrx.tensors import Outputs

REACH = 0.5
"""Half a box: where the offset of a level's only point is 1, it lies on the box's edge."""


def use_plugins(model: nn.Module, kinds: frozenset[str]) -> nn.Module:
    """Put modules that leave our nodes in place of those of the wanted kinds, in place."""
    for name, child in list(model.named_children()):
        made = _instead(child, kinds)
        if made is None:
            use_plugins(child, kinds)
        else:
            setattr(model, name, made)
    return model


def _instead(module: nn.Module, kinds: frozenset[str]) -> nn.Module | None:
    if isinstance(module, DeformableAttention) and DEFORM_ATTN.name in kinds:
        return _DeformAttn(module)
    if isinstance(module, nn.LayerNorm) and LAYER_NORM.name in kinds and module.elementwise_affine:
        return _LayerNorm(module)
    if isinstance(module, (SelfAttention, Attention)) and ATTENTION.name in kinds:
        width = module.in_proj_weight.shape[1]
        if width == HEAD_DIMENSION * module.heads:
            return _TokensFirst(module) if isinstance(module, SelfAttention) else _CellsFirst(module)
    return None


def decode_node(found: Outputs, *, top: int) -> tuple[Tensor, ...]:
    """As ``models.head.decode_outputs`` answers, by one node."""
    each = bool(found.no_object or found.columns)
    settings: dict[str, Any] = {"top": top, "each": int(each), "no_object": int(found.no_object)}
    if found.columns:
        settings["columns"] = list(found.columns)
    logits, boxes = found.logits[-1].float(), found.boxes[-1].float()
    scores, labels, corners, queries = _node(DECODE.name, settings, logits, boxes)
    answer, query = (scores, labels.long(), corners), queries.long()
    masks = masks_of(found, query)
    if masks is None:
        return answer
    return (*answer, masks, query) if found.masks is not None else (*answer, fade(masks, corners))


class _DeformAttn(nn.Module):
    """DeformableAttention with everything between its linear layers in one node."""

    def __init__(self, plain: DeformableAttention) -> None:
        super().__init__()
        self.points = plain.points
        self.sampling_offsets, self.attention_weights = plain.sampling_offsets, plain.attention_weights
        self.output_proj = plain.output_proj
        self.values = plain.values  # a bound method: value_proj stays with its module
        self.value_proj = plain.value_proj

    def forward(
        self, query: Tensor, boxes: Tensor, values: Tensor, shapes: Sequence[tuple[int, int]]
    ) -> Tensor:
        settings = {
            "shapes": [side for shape in shapes for side in shape],
            "points": list(self.points),
            "reach": REACH,
        }
        offsets, logits = self.sampling_offsets(query), self.attention_weights(query)
        (out,) = _node(DEFORM_ATTN.name, settings, values, boxes, offsets, logits)
        return out if self.output_proj is None else cast(Tensor, self.output_proj(out))


class _LayerNorm(nn.Module):
    def __init__(self, plain: nn.LayerNorm) -> None:
        super().__init__()
        self.weight, self.bias, self.eps = plain.weight, plain.bias, plain.eps

    def forward(self, x: Tensor) -> Tensor:
        return _node(LAYER_NORM.name, {"epsilon": self.eps}, x, self.weight, self.bias)[0]


class _Attention(nn.Module):
    """What both families' attentions share: packed projections, and one node after them."""

    def __init__(self, plain: SelfAttention | Attention) -> None:
        super().__init__()
        self.heads, self.out_proj = plain.heads, plain.out_proj
        self.in_proj_weight, self.in_proj_bias = plain.in_proj_weight, plain.in_proj_bias

    def _attend(self, query: Tensor, key: Tensor, value: Tensor, *bias: Tensor) -> Tensor:
        """All (B, N or S, width)."""
        weights, biases = self.in_proj_weight.chunk(3), self.in_proj_bias.chunk(3)
        parts = [
            nn.functional.linear(x, w, b)
            for x, w, b in zip((query, key, value), weights, biases, strict=True)
        ]
        settings = {"heads": self.heads, "scale": 1 / math.sqrt(HEAD_DIMENSION)}
        (out,) = _node(ATTENTION.name, settings, *parts, *bias)
        return cast(Tensor, self.out_proj(out))


class _TokensFirst(_Attention):
    """In place of SelfAttention of the rt family."""

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is not None:
            raise ValueError("[_TokensFirst] mask must be None in an exported graph; it is for training")
        both = x + position
        return self._attend(both, both, x)


class _CellsFirst(_Attention):
    """In place of Attention of the detr family, whose sequences are (S, B, width)."""

    def forward(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
        bias = (
            () if hidden is None else (hidden[:: self.heads, 0].float(),)
        )  # the same for all heads of an image
        return self._attend(*(x.transpose(0, 1) for x in (query, key, value)), *bias).transpose(0, 1)


def _node(kind: str, settings: dict[str, Any], *tensors: Tensor) -> tuple[Tensor, ...]:
    found = _Node.apply(kind, settings, [], *tensors)
    return found if isinstance(found, tuple) else (found,)


class _Node(torch.autograd.Function):
    """Computes in numpy what the node means, and leaves the node in the graph."""

    @staticmethod
    def forward(ctx: Any, kind: str, settings: dict[str, Any], made: list[Tensor], *tensors: Tensor) -> Any:  # noqa: ARG004
        found = reference.BODIES[kind](settings, *(tensor.detach().numpy() for tensor in tensors))
        made[:] = [torch.from_numpy(np.ascontiguousarray(array)) for array in found]
        return tuple(made) if len(made) > 1 else made[0]

    @staticmethod
    def symbolic(g: Any, kind: str, settings: dict[str, Any], made: list[Tensor], *tensors: Any) -> Any:
        marks = {list: "_i", int: "_i", float: "_f"}
        nodes = g.op(
            f"{DOMAIN}::{kind}",
            *tensors,
            outputs=len(made),
            plugin_version_s=PLUGIN_VERSION,
            plugin_namespace_s=PLUGIN_NAMESPACE,
            **{name + marks[type(value)]: value for name, value in settings.items()},
        )
        sizes = tensors[0].type().sizes()
        batch = sizes[0] if sizes else None  # None where any number will do
        for node, like in zip(nodes if len(made) > 1 else [nodes], made):
            node.setType(torch._C.TensorType.create_from_tensor(like).with_sizes([batch, *like.shape[1:]]))
        return nodes
