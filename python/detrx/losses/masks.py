"""What masks cost, at sampled points: in the matching all queries, in the loss the matched ones.

Points after PointRend and Mask2Former (arXiv 1912.08193, 2112.01527). Half of all candidates are drawn inside the
targets' boxes, since few of a whole picture's points fall into a small object.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from detrx.boxes import to_corners
from detrx.errors import ConfigError
from detrx.losses.config import LossConfig
from detrx.losses.stages import Sums
from detrx.tensors import Targets

_CANDIDATES = 3
"""Points that are looked at for each that is kept."""
_UNSURE = 0.75
"""Share of the points that are the candidates whose logits are nearest 0; the rest are any."""


def mask_cost(embeddings: Tensor, pixels: Tensor, targets: Targets, *, config: LossConfig) -> Tensor:
    """What it costs to give each target the mask of each query, at points that all of an image share.

    Args:
        embeddings: (L, B, Q, E).
        pixels: (B, E, h', w').
        targets: with masks (B, M, h, w).
        config: ``mask_cost`` weighs the cross-entropy's mean, ``dice_cost`` the Dice loss.

    Returns:
        (L, B, M, Q) float32.
    """
    with torch.no_grad():
        points = _shared_points(targets, count=config.mask_points)
        truth = look_up(_truths(targets), points[:, None].expand(-1, targets.labels.shape[1], -1, -1))
        seen = F.grid_sample(
            pixels.float(), 2 * points[:, None] - 1, align_corners=False, padding_mode="border"
        )
        logits = embeddings.float() @ seen[:, :, 0]
        share = logits.sigmoid()
        # Cross-entropy is softplus(x) - x * t; the first part does not know the target.
        entropy = F.softplus(logits).sum(-1, keepdim=True) - logits @ truth.mT
        both, sizes = share @ truth.mT, share.sum(-1, keepdim=True) + truth.sum(-1)[:, None]
        dice = 1 - (2 * both + 1) / (sizes + 1)
        return (config.mask_cost / points.shape[1] * entropy + config.dice_cost * dice).mT


def mask_losses(
    embeddings: Tensor,
    pixels: Tensor,
    targets: Targets,
    match: Tensor,
    *,
    config: LossConfig,
    normaliser: Tensor,
) -> Sums:
    """Cross-entropy and Dice loss of the masks of matched queries, each a sum over targets.

    Args:
        embeddings: (L, B, Q, E).
        pixels: (B, E, h', w').
        targets: with masks.
        match: (L, B, M) the query of each target, -1 for none.
        config: the weights and the number of points.
        normaliser: () what the sums are divided by.

    Returns:
        "mask" and "dice", (L,) each.
    """
    layers, images, many = match.shape
    chosen = embeddings.gather(
        2, match.clamp(min=0).long()[..., None].expand(-1, -1, -1, embeddings.shape[-1])
    )
    logits = (chosen @ pixels.flatten(2)).unflatten(-1, pixels.shape[2:]).flatten(0, 2)
    rows = torch.arange(layers * images * many, device=match.device)
    counts = (match >= 0).flatten()
    if not match.is_cuda:  # where nothing has to wait for it, padding is left out
        rows = counts.nonzero()[:, 0]
        logits = logits[rows]
    target = rows % (images * many)
    with torch.no_grad():
        points = _unsure_points(logits, targets, target, count=config.mask_points)
        truth = look_up(_truths(targets).flatten(0, 1)[:, None], points[:, None], rows=target)[:, 0]
    found = _sample(logits, points)
    share, weight = found.sigmoid(), counts[rows].float()
    entropy = F.binary_cross_entropy_with_logits(found, truth, reduction="none").mean(1)
    dice = 1 - (2 * (share * truth).sum(1) + 1) / (share.sum(1) + truth.sum(1) + 1)
    layer = rows // (images * many)
    zeros = entropy.new_zeros(layers)
    return {
        "mask": zeros.index_add(0, layer, entropy * weight) * (config.mask_weight / normaliser),
        "dice": zeros.index_add(0, layer, dice * weight) * (config.dice_weight / normaliser),
    }


def _truths(targets: Targets) -> Tensor:
    """The masks of targets.

    Raises:
        ConfigError: they have none.
    """
    if targets.masks is None:
        raise ConfigError(
            "[Criterion] a model with masks must be taught with masks, got targets without; "
            "open the data set with masks=True"
        )
    return targets.masks


def look_up(masks: Tensor, points: Tensor, *, rows: Tensor | None = None) -> Tensor:
    """What masks say at points.

    Args:
        masks: (N, M, h, w) bool.
        points: (R, M, P, 2) x, y in [0, 1].
        rows: (R,) which of the N each is for; None: one after the other.

    Returns:
        (R, M, P) float32, 0 or 1.
    """
    height, width = masks.shape[2:]
    x = (points[..., 0] * width).long().clamp(0, width - 1)
    y = (points[..., 1] * height).long().clamp(0, height - 1)
    first = torch.arange(len(points), device=masks.device) if rows is None else rows
    second = torch.arange(masks.shape[1], device=masks.device)
    return masks[first[:, None, None], second[:, None], y, x].float()


def _sample(logits: Tensor, points: Tensor) -> Tensor:
    """(R, P) of maps (R, h', w') at points (R, P, 2)."""
    grid = 2 * points[:, None] - 1
    return F.grid_sample(logits[:, None], grid, align_corners=False, padding_mode="border")[:, 0, 0]


def _in_boxes(corners: Tensor, count: int) -> Tensor:
    """(..., count, 2) points drawn in boxes (..., 4) that are half as large again."""
    centre, size = (corners[..., :2] + corners[..., 2:]) / 2, corners[..., 2:] - corners[..., :2]
    drawn = torch.rand(*corners.shape[:-1], count, 2, device=corners.device) - 0.5
    return (centre[..., None, :] + 1.5 * size[..., None, :] * drawn).clamp(0, 1)


def _shared_points(targets: Targets, *, count: int) -> Tensor:
    """(B, count, 2): half of them anywhere, half around targets drawn at random."""
    images, half = len(targets.counts), count // 2
    device = targets.boxes.device
    drawn = torch.rand(images, half, device=device) * targets.counts.clamp(min=1)[:, None]
    boxes = to_corners(targets.boxes.float()).gather(1, drawn.long()[..., None].expand(-1, -1, 4))
    return torch.cat((torch.rand(images, count - half, 2, device=device), _in_boxes(boxes, 1)[:, :, 0]), 1)


def _unsure_points(logits: Tensor, targets: Targets, target: Tensor, *, count: int) -> Tensor:
    """(R, count, 2): of the candidates mostly those of which the model is least sure."""
    corners = to_corners(targets.boxes.float()).flatten(0, 1)[target]
    many = _CANDIDATES * count
    anywhere = torch.rand(len(target), many - many // 2, 2, device=logits.device)
    points = torch.cat((anywhere, _in_boxes(corners, many // 2)), 1)
    unsure = round(_UNSURE * count)
    nearest = _sample(logits, points).abs().topk(unsure, dim=1, largest=False).indices
    chosen = points.gather(1, nearest[..., None].expand(-1, -1, 2))
    rest = points[:, torch.randperm(many, device=logits.device)[: count - unsure]]
    return torch.cat((chosen, rest), 1)
