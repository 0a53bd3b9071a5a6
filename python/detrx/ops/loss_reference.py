"""What each loss operator must answer, in plain torch that autograd differentiates, in any floating type.

Stages are L places that take losses (decoder layers, first head, encoder) of B images with Q queries each. The targets
of an image are padded to M. ``owners`` says which target each query answers for: (L, B, Q), or (1, B, Q) or (B, Q) for
all stages alike, integers in [0, M) or -1 for none. Everything is dense and masked, so that nothing waits for a device.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

_TINY = 1e-12
"""Stands in for an area of zero, so that a degenerate box answers 0 and not NaN."""


def box_loss_reference(
    boxes: Tensor, truths: Tensor, owners: Tensor, *, kind: str = "giou", normaliser: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum the distances of the boxes of owning queries from their truths.

    Args:
        boxes: (L, B, Q, 4) centres; takes the gradient.
        truths: (B, M, 4) centres.
        owners: the target of each query.
        kind: "iou", "giou" (arXiv 1902.09630), "diou" or "ciou" (arXiv 1911.08287).
        normaliser: () what the sums are divided by; None: 1.

    Returns:
        (L,) sums of L1 over cx, cy, w, h; (L,) sums of 1 - overlap; (L, B, Q) IoU without gradient, 0 without owner.
    """
    boxes, owned = _wide(boxes), _spread(owners, boxes) >= 0
    truth = _of_owned(truths.to(boxes.dtype), _spread(owners, boxes), fill=1.0)
    ours = torch.where(owned.unsqueeze(-1), boxes, truth)
    distance = (ours - truth).abs().sum(-1)
    iou, overlap = _overlaps(ours, truth, kind=kind)
    away = torch.where(owned, 1 - overlap, 0)
    return (
        _total(distance, normaliser),
        _total(away, normaliser),
        torch.where(owned, iou, 0).detach(),
    )


def focal_loss_reference(
    logits: Tensor,
    labels: Tensor,
    owners: Tensor,
    *,
    kind: str = "focal",
    alpha: float = 0.25,
    gamma: float = 2.0,
    quality: Tensor | None = None,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Sum the sigmoid class loss over all queries and classes.

    Args:
        logits: (L, B, Q, C); takes the gradient.
        labels: (B, M) int64 classes in [0, C).
        owners: the target of each query.
        kind: "focal" (arXiv 1708.02002), "varifocal" (arXiv 2008.13367: a negative weighs alpha * p ** gamma, a
            positive is taught its quality and weighs it) or "mal" (arXiv 2412.04234: a negative weighs p ** gamma, a
            positive is taught quality ** gamma). Only focal's weights carry gradient.
        alpha: see kind; in focal the share of positives. Not used by mal.
        gamma: the power.
        quality: (L, B, Q) in [0, 1], how good each owning query's box is; needed unless kind is "focal".
        normaliser: () what the sums are divided by; None: 1.

    Returns:
        (L,)
    """
    x = _wide(logits)
    owners = _spread(owners, x)
    own_class = _of_owned(labels.unsqueeze(-1), owners, fill=-1)
    hot = own_class == torch.arange(x.shape[-1], device=x.device)
    p = x.sigmoid()
    if kind == "focal":
        missed = torch.where(hot, 1 - p, p)
        weight = torch.where(hot, alpha, 1 - alpha) * missed**gamma
        wanted = hot.to(x.dtype)
    elif quality is None:
        raise ValueError(f"[focal_loss] {kind} must have quality, got None")
    else:
        score = quality.to(x.dtype).unsqueeze(-1)
        negative = p.detach() ** gamma
        if kind == "varifocal":
            weight, score = torch.where(hot, score, alpha * negative), score
        else:
            weight, score = torch.where(hot, 1, negative), score**gamma
        wanted = torch.where(hot, score, 0)
    loss = F.binary_cross_entropy_with_logits(x, wanted.detach(), reduction="none") * weight
    return _total(loss.sum(-1), normaliser)


def cross_entropy_reference(
    logits: Tensor, labels: Tensor, owners: Tensor, *, no_object: float = 0.1
) -> Tensor:
    """The weighted mean of the softmax class loss over all queries (DETR, arXiv 2005.12872).

    Args:
        logits: (L, B, Q, C + 1), the last class for "no object"; takes the gradient.
        labels: (B, M) int64 classes in [0, C).
        owners: the target of each query.
        no_object: the weight of a query that owns nothing; the others weigh 1.

    Returns:
        (L,) each divided by the sum of its stage's weights.
    """
    x = _wide(logits)
    owners = _spread(owners, x)
    wanted = _of_owned(labels.unsqueeze(-1), owners, fill=x.shape[-1] - 1)
    loss = -x.log_softmax(-1).gather(-1, wanted).squeeze(-1)
    weight = torch.where(owners >= 0, 1.0, no_object).to(x.dtype)
    return _total(loss * weight, None) / _total(weight, None).clamp(min=_TINY)


def fgl_loss_reference(
    edges: Tensor,
    references: Tensor,
    truths: Tensor,
    owners: Tensor,
    iou: Tensor,
    *,
    reg_scale: float,
    up: float,
    normaliser: Tensor | None = None,
) -> Tensor:
    """Sum D-FINE's fine-grained localisation loss (arXiv 2410.13842) over owning queries.

    Each edge's distribution is taught the two bins around the true edge, in shares of how near they are; a query
    weighs its IoU.

    Args:
        edges: (L, B, Q, 4, R + 1) logits over the bins, left, top, right, bottom; takes the gradient.
        references: (L, B, Q, 4) centres that the distributions refine.
        truths: (B, M, 4) centres.
        owners: the target of each query.
        iou: (L, B, Q) the weights.
        reg_scale: how the bins crowd around zero.
        up: the farthest bin, in sizes of the reference over reg_scale.
        normaliser: () what the sums are divided by; None: 1.

    Returns:
        (L,)
    """
    x = _wide(edges)
    owners = _spread(owners, x[..., 0])
    owned = (owners >= 0).unsqueeze(-1)
    truth = _of_owned(truths.detach().to(x.dtype), owners, fill=1.0)
    seen = torch.where(owned, references.detach().to(x.dtype), truth)
    left, share = _bins_around(seen, truth, bins=x.shape[-1] - 1, reg_scale=reg_scale, up=up)
    logs = torch.where(owned.unsqueeze(-1), x, 0).log_softmax(-1)
    at_left, at_right = (logs.gather(-1, i.unsqueeze(-1)).squeeze(-1) for i in (left, left + 1))
    loss = -(at_left * (1 - share) + at_right * share).sum(-1)
    weight = torch.where(owned.squeeze(-1), iou.detach().to(x.dtype), 0)
    return _total(loss * weight, normaliser)


def ddf_loss_reference(
    edges: Tensor,
    confidence: Tensor,
    owners: Tensor,
    iou: Tensor,
    *,
    temperature: float = 5.0,
    matched: Tensor | None = None,
    queries: Tensor | None = None,
) -> Tensor:
    """The Kullback-Leibler divergence of each layer's distributions from the last one's (D-FINE, arXiv 2410.13842).

    Args:
        edges: (L, B, Q, 4, R + 1) logits over the bins; those before the last layer's take the gradient.
        confidence: (B, Q) the weight of a query that owns nothing.
        owners: the target of each query.
        iou: (L, B, Q) the weight of a query that owns a target.
        temperature: of both softmaxes.
        matched: (L - 1,) or (1,) how many queries own a target; None: as owners say.
        queries: () how many there are in all; None: B * Q.

    Returns:
        (L - 1,) the mean over owning queries and the mean over the others, weighed by the roots of their numbers.
    """
    x = _wide(edges) / temperature
    owned = (_spread(owners, x[..., 0]) >= 0)[:-1]
    wanted = x[-1:].detach().log_softmax(-1)
    apart = (wanted.exp() * (wanted - x[:-1].log_softmax(-1))).sum((-1, -2))
    found = (owned.sum((1, 2)) if matched is None else matched).to(x.dtype)[:, None, None]
    others = (owned.shape[1] * owned.shape[2] if queries is None else queries) - found
    share = torch.where(owned, found.clamp(min=1).rsqrt(), others.clamp(min=1).rsqrt())
    weight = torch.where(owned, iou.detach()[:-1].to(x.dtype), confidence.detach().to(x.dtype))
    factor = temperature**2 / 4 / (found.sqrt() + others.sqrt()).clamp(min=1)
    return _total(apart * weight * share * factor, None)


def _bins_around(
    references: Tensor, truths: Tensor, *, bins: int, reg_scale: float, up: float
) -> tuple[Tensor, Tensor]:
    """(..., 4) the bin to the left of each true edge, and the share of the bin to its right."""
    low, high = _corners(truths)
    middle, step = references[..., :2], references[..., 2:] / reg_scale + 1e-16
    edges = torch.cat(((middle - low) / step, (high - middle) / step), -1) - 0.5 * reg_scale
    offsets = _bin_offsets(bins, bound=abs(up * reg_scale), like=edges)
    edges = edges.clamp(min=offsets[0], max=offsets[-1])
    left = (torch.searchsorted(offsets, edges.contiguous(), right=True) - 1).clamp(0, bins - 1)
    start, end = offsets[left], offsets[left + 1]
    return left, (edges - start) / (end - start)


def _bin_offsets(bins: int, *, bound: float, like: Tensor) -> Tensor:
    """(bins + 1,) rising: geometric from zero in the middle to bound, and twice that at both ends."""
    half = bins // 2
    place = torch.arange(-half, half + 1, device=like.device, dtype=like.dtype)
    inner = (bound + 1) ** (2 * place.abs() / (bins - 2)) - 1
    return torch.where(place.abs() == half, 2 * bound, inner) * place.sign()


def _overlaps(a: Tensor, b: Tensor, *, kind: str) -> tuple[Tensor, Tensor]:
    """IoU, and the overlap of the kind asked for, of (..., 4) centres in pairs."""
    (a_low, a_high), (b_low, b_high) = _corners(a), _corners(b)
    inter = _area((torch.minimum(a_high, b_high) - torch.maximum(a_low, b_low)).clamp(min=0))
    join = _area(a[..., 2:]) + _area(b[..., 2:]) - inter
    iou = inter / join.clamp(min=_TINY)
    hull = torch.maximum(a_high, b_high) - torch.minimum(a_low, b_low)
    if kind == "iou":
        return iou, iou
    if kind == "giou":
        around = _area(hull)
        return iou, iou - (around - join) / around.clamp(min=_TINY)
    apart = (a[..., :2] - b[..., :2]).square().sum(-1)
    diou = iou - apart / hull.square().sum(-1).clamp(min=_TINY)
    if kind == "diou":
        return iou, diou
    if kind == "ciou":
        return iou, diou - _aspect_penalty(a, b, iou)
    raise ValueError(f'[box_loss] kind must be "giou", "ciou", "diou" or "iou", got {kind!r}')


def _aspect_penalty(a: Tensor, b: Tensor, iou: Tensor) -> Tensor:
    """CIoU's difference of the sides' ratios; its weight carries no gradient."""
    angles = [torch.atan(box[..., 2] / box[..., 3].clamp(min=_TINY)) for box in (a, b)]
    differs = (4 / math.pi**2) * (angles[1] - angles[0]).square()
    with torch.no_grad():
        weight = differs / (1 - iou + differs).clamp(min=_TINY)
    return weight * differs


def _corners(centres: Tensor) -> tuple[Tensor, Tensor]:
    middle, half = centres[..., :2], 0.5 * centres[..., 2:]
    return middle - half, middle + half


def _area(size: Tensor) -> Tensor:
    """Width times height; the gradient of torch's prod waits for the device."""
    return size[..., 0] * size[..., 1]


def _wide(x: Tensor) -> Tensor:
    """At least float32, whatever autocast made of it."""
    return x if x.dtype == torch.float64 else x.float()


def _spread(owners: Tensor, values: Tensor) -> Tensor:
    """(L, B, Q) int64 of owners that may stand for all stages."""
    return owners.long().expand(values.shape[:3])


def _of_owned(values: Tensor, owners: Tensor, *, fill: float) -> Tensor:
    """(L, B, Q, K) what (B, M, K) says of the target that each query owns, ``fill`` where it owns none."""
    padded = F.pad(values, (0, 0, 0, 1), value=fill)
    image = torch.arange(owners.shape[1], device=owners.device).unsqueeze(-1)
    return padded[image, owners]  # -1 reads the padding, which stands last


def _total(losses: Tensor, normaliser: Tensor | None) -> Tensor:
    """(L,) of (L, B, Q)."""
    total = losses.flatten(1).sum(1)
    return total if normaliser is None else total / normaliser
