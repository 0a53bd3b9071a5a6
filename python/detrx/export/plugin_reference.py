"""What the nodes of our domain compute, in numpy, and a backend that runs the plugin graph with it on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detrx.export.plugin_nodes import ATTENTION, DECODE, DEFORM_ATTN, LAYER_NORM

Array = NDArray[Any]
Settings = dict[str, Any]


def deform_attn(
    settings: Settings, values: Array, boxes: Array, offsets: Array, logits: Array
) -> tuple[Array]:
    """DetrxDeformAttn."""
    batch, _, heads, channels = values.shape
    queries, counts = boxes.shape[1], np.asarray(settings["points"])
    total = int(counts.sum())
    weights = softmax(logits.astype(np.float32).reshape(batch, queries, heads, total))
    moves = offsets.astype(np.float32).reshape(batch, queries, heads, total, 2)
    share = (settings["reach"] / np.repeat(counts, counts)).astype(np.float32)[:, None]
    boxes = boxes.astype(np.float32)[:, :, None, None]
    places = boxes[..., :2] + moves * boxes[..., 2:] * share
    out = np.zeros((batch, queries, heads, channels), np.float32)
    start, first = 0, 0
    for (height, width), count in zip(np.reshape(settings["shapes"], (-1, 2)).tolist(), counts.tolist()):
        level = values[:, start : start + height * width].astype(np.float32)
        here = slice(first, first + count)
        seen = _sample(level.reshape(batch, height, width, heads, channels), places[:, :, :, here])
        out += (weights[:, :, :, here, None] * seen).sum(3)
        start, first = start + height * width, first + count
    return (out.reshape(batch, queries, heads * channels).astype(values.dtype),)


def _sample(level: Array, places: Array) -> Array:
    """Bilinear samples (B, Q, H, P, D) of a map (B, h, w, H, D) at (B, Q, H, P, 2) x, y in [0, 1]; zeros outside."""
    batch, height, width, heads, _ = level.shape
    at = places * np.array([width, height], np.float32) - np.float32(0.5)
    low = np.floor(at)
    far = at - low
    image = np.arange(batch)[:, None, None, None]
    head = np.arange(heads)[None, None, :, None]
    out: Array = np.zeros((*places.shape[:-1], level.shape[-1]), np.float32)
    for down in (0, 1):
        for right in (0, 1):
            x, y = low[..., 0] + right, low[..., 1] + down
            share = np.abs(1 - right - far[..., 0]) * np.abs(1 - down - far[..., 1])
            share = np.where((x >= 0) & (x < width) & (y >= 0) & (y < height), share, 0)
            column = x.clip(0, width - 1).astype(np.int64)
            row = y.clip(0, height - 1).astype(np.int64)
            out += share[..., None] * level[image, row, column, head]
    return out


def decode(settings: Settings, logits: Array, boxes: Array) -> tuple[Array, Array, Array, Array]:
    """DetrxDecode."""
    shares = softmax(logits)[..., :-1] if settings["no_object"] else _sigmoid(logits)
    if settings.get("columns"):
        shares = shares[..., list(settings["columns"])]
    classes, top = shares.shape[-1], settings["top"]
    if settings["each"]:
        best, labels = shares.max(-1), shares.argmax(-1)
        order = np.argsort(-best, axis=1, kind="stable")[:, :top]
        scores, kinds, queries = (
            np.take_along_axis(best, order, 1),
            np.take_along_axis(labels, order, 1),
            order,
        )
    else:
        # By logits: a sigmoid in float32 makes ties of the highest.
        order = np.argsort(-logits.reshape(len(logits), -1), axis=1, kind="stable")[:, :top]
        scores = np.take_along_axis(shares.reshape(len(logits), -1), order, 1)
        queries, kinds = order // classes, order % classes
    picked = np.take_along_axis(boxes, queries[..., None], 1)
    centre, half = picked[..., :2], picked[..., 2:] * np.float32(0.5)
    corners = np.concatenate([centre - half, centre + half], -1).clip(0, 1)
    return (
        scores.astype(np.float32),
        kinds.astype(np.int32),
        corners.astype(np.float32),
        queries.astype(np.int32),
    )


def layer_norm(settings: Settings, x: Array, gain: Array, bias: Array) -> tuple[Array]:
    """DetrxLayerNorm."""
    wide = x.astype(np.float32)
    centred = wide - wide.mean(-1, keepdims=True)
    spread = np.sqrt((centred**2).mean(-1, keepdims=True) + np.float32(settings["epsilon"]))
    return ((centred / spread * gain + bias).astype(x.dtype),)


def attention(
    settings: Settings, query: Array, key: Array, value: Array, bias: Array | None = None
) -> tuple[Array]:
    """DetrxAttention."""
    heads = settings["heads"]

    def split(x: Array) -> Array:
        parts: Array = x.astype(np.float32).reshape(*x.shape[:2], heads, -1).transpose(0, 2, 1, 3)
        return parts

    scores = (split(query) * np.float32(settings["scale"])) @ split(key).transpose(0, 1, 3, 2)
    if bias is not None:
        scores = scores + bias[:, None, None]
    out = softmax(scores) @ split(value)
    return (out.transpose(0, 2, 1, 3).reshape(query.shape).astype(query.dtype),)


def softmax(x: Array) -> Array:
    raised = np.exp(x - x.max(-1, keepdims=True))
    shares: Array = raised / raised.sum(-1, keepdims=True)
    return shares


def _sigmoid(x: Array) -> Array:
    with np.errstate(over="ignore"):
        shares: Array = 1 / (1 + np.exp(-x))
    return shares


BODIES: dict[str, Callable[..., tuple[Array, ...]]] = {
    DEFORM_ATTN.name: deform_attn,
    DECODE.name: decode,
    LAYER_NORM.name: layer_norm,
    ATTENTION.name: attention,
}
