"""From logits and boxes to the best objects, inside the exported graph."""

from __future__ import annotations

import torch
from torch import Tensor

from detrx.tensors import Outputs


def decode_outputs(found: Outputs, *, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best ``top`` objects of each image as the last layer has them, in the way of its family; see decode."""
    logits, boxes = found.logits[-1].float(), found.boxes[-1].float()
    if found.no_object or found.columns:
        return decode_queries(logits, boxes, top=top, no_object=found.no_object, columns=found.columns)
    return decode(logits, boxes, top=top)


def answers(found: Outputs) -> int:
    """The most objects of an image that can be decoded."""
    queries, classes = found.logits.shape[-2:]
    return int(queries if found.no_object or found.columns else queries * classes)


def decode(logits: Tensor, boxes: Tensor, *, top: int) -> tuple[Tensor, Tensor, Tensor]:
    """The best ``top`` pairs of query and class of each image, best first.

    Args:
        logits: (B, Q, C) class logits.
        boxes: (B, Q, 4) centres cx, cy, w, h in [0, 1].
        top: K, at most Q * C are answered.

    Returns:
        scores (B, K) in [0, 1], labels (B, K) int64, boxes (B, K, 4) corners in [0, 1].
    """
    classes = logits.shape[-1]
    flat = logits.flatten(1)
    best, index = flat.topk(min(top, flat.shape[1]), dim=1)
    query = torch.div(index, classes, rounding_mode="floor")
    picked = boxes.gather(1, query[..., None].expand(-1, -1, 4))
    return best.sigmoid(), index - query * classes, _corners(picked)


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
    shares = logits.softmax(-1)[..., :-1] if no_object else logits.sigmoid()
    if columns:
        shares = shares[..., list(columns)]
    best, labels = shares.max(-1)
    scores, query = best.topk(min(top, best.shape[1]), dim=1)
    picked = boxes.gather(1, query[..., None].expand(-1, -1, 4))
    return scores, labels.gather(1, query), _corners(picked)


def _corners(boxes: Tensor) -> Tensor:
    centre, half = boxes[..., :2], boxes[..., 2:] * 0.5
    return torch.cat([centre - half, centre + half], -1).clamp(0, 1)
