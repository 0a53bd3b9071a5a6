"""From logits and boxes to the best objects, inside the exported graph."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from detrx.tensors import Outputs

_SLOPE = 8.0
"""Mask logits lost per cell of distance from the box."""


def decode_outputs(found: Outputs, *, top: int) -> tuple[Tensor, ...]:
    """The best ``top`` objects of each image as the last layer has them, in the way of its family; see decode.

    Returns:
        scores, labels and boxes, and of a model with masks their logits (B, K, h', w'); where it is a DETR also the
        query (B, K) int64 of each, since its masks are merged in that order.
    """
    logits, boxes = found.logits[-1].float(), found.boxes[-1].float()
    if found.no_object or found.columns:
        scores, labels, query = _best_queries(logits, top, no_object=found.no_object, columns=found.columns)
    else:
        scores, labels, query = _best_pairs(logits, top)
    masks = masks_of(found, query)
    corners = _corners(_pick(boxes, query))
    answer = scores, labels, corners
    if masks is None:
        return answer
    return (*answer, masks, query) if found.masks is not None else (*answer, fade(masks, corners))


def masks_of(found: Outputs, query: Tensor) -> Tensor | None:
    """The last layer's mask logits (B, K, h', w') of the queries (B, K), or None; of the others none are made."""
    if found.embeddings is not None and found.pixels is not None:
        chosen = _pick(found.embeddings[-1].float(), query)
        logits = chosen @ found.pixels.float().flatten(2)
        return cast(Tensor, logits.unflatten(2, found.pixels.shape[2:]))
    if found.masks is None:
        return None
    masks = found.masks[-1].float()
    return cast(Tensor, _pick(masks.flatten(2), query).unflatten(2, masks.shape[2:]))


def fade(masks: Tensor, corners: Tensor) -> Tensor:
    """Lower mask logits outside their boxes, the more the farther away.

    What a query says of a place has no place in it, so that its mask also covers things that look alike. YOLACT
    (arXiv 1904.02689) cuts at the box; a slope differs little where a runtime's box differs little.

    Args:
        masks: (B, K, h', w') logits.
        corners: (B, K, 4) in [0, 1].

    Returns:
        as ``masks``; cells that touch the box are as they were.
    """
    height, width = masks.shape[2:]
    across = torch.arange(width, device=masks.device, dtype=masks.dtype)
    down = torch.arange(height, device=masks.device, dtype=masks.dtype)
    left, top, right, bottom = (corners[..., side : side + 1] for side in range(4))
    beside = torch.maximum(left * width - across - 1, across - right * width).clamp(min=0)
    above = torch.maximum(top * height - down - 1, down - bottom * height).clamp(min=0)
    return masks - _SLOPE * (above.unsqueeze(-1) + beside.unsqueeze(-2))


def answers(found: Outputs) -> int:
    """The most objects of an image that can be decoded."""
    queries, classes = found.logits.shape[-2:]
    return int(queries if found.no_object or found.columns else queries * classes)


def class_scores(found: Outputs) -> Tensor:
    """(B, Q, C) the score in [0, 1] that the last layer gives each class."""
    return _shares(found.logits[-1].float(), no_object=found.no_object, columns=found.columns)


def decode(logits: Tensor, boxes: Tensor, *, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best ``top`` pairs of query and class of each image, best first.

    Args:
        logits: (B, Q, C) class logits.
        boxes: (B, Q, 4) centres cx, cy, w, h in [0, 1].
        top: K, at most Q * C are answered.

    Returns:
        scores (B, K) in [0, 1], labels (B, K) int64, boxes (B, K, 4) corners in [0, 1].
    """
    scores, labels, query = _best_pairs(logits, top)
    return scores, labels, _corners(_pick(boxes, query))


def decode_queries(
    logits: Tensor, boxes: Tensor, *, top: int, no_object: bool, columns: tuple[int, ...] = ()
) -> tuple[Tensor, Tensor, Tensor]:
    """The best ``top`` queries of each image, each with its best class, as DETR is scored.

    Args:
        logits: (B, Q, W) class logits.
        boxes: (B, Q, 4) centres cx, cy, w, h in [0, 1].
        top: K, at most Q are answered.
        no_object: the last column says "no object", and scores are a softmax; else a sigmoid.
        columns: the column of each class; empty: all, in order.

    Returns:
        as ``decode``.
    """
    scores, labels, query = _best_queries(logits, top, no_object=no_object, columns=columns)
    return scores, labels, _corners(_pick(boxes, query))


def _best_pairs(logits: Tensor, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and queries (B, K)."""
    classes = logits.shape[-1]
    flat = logits.flatten(1)
    best, index = flat.topk(min(top, flat.shape[1]), dim=1)
    query = torch.div(index, classes, rounding_mode="floor")
    return best.sigmoid(), index - query * classes, query


def _best_queries(
    logits: Tensor, top: int, *, no_object: bool, columns: tuple[int, ...]
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores, labels and queries (B, K)."""
    best, labels = _shares(logits, no_object=no_object, columns=columns).max(-1)
    scores, query = best.topk(min(top, best.shape[1]), dim=1)
    return scores, labels.gather(1, query), query


def _pick(values: Tensor, query: Tensor) -> Tensor:
    """(B, K, N) of (B, Q, N)."""
    return values.gather(1, query[..., None].expand(-1, -1, values.shape[-1]))


def _shares(logits: Tensor, *, no_object: bool, columns: tuple[int, ...]) -> Tensor:
    shares = logits.softmax(-1)[..., :-1] if no_object else logits.sigmoid()
    return shares[..., list(columns)] if columns else shares


def _corners(boxes: Tensor) -> Tensor:
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
    return torch.cat([centre - half, centre + half], -1).clamp(0, 1)
