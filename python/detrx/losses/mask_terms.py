"""What DETR's masks cost (arXiv 2005.12872): a focal and a Dice loss at every pixel, of matched queries alone."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from detrx.errors import ConfigError
from detrx.tensors import Targets

ALPHA, GAMMA = 0.25, 2.0
"""Of the focal loss, as in the original."""


def mask_terms(logits: Tensor, targets: Targets, owners: Tensor, *, normaliser: Tensor) -> dict[str, Tensor]:
    """The losses of the masks of one layer, each a sum over matched queries.

    Args:
        logits: (B, Q, h', w').
        targets: with masks (B, M, h, w); the logits are scaled to them.
        owners: (B, Q) the target of each query, -1 for none.
        normaliser: () what the sums are divided by.

    Returns:
        "mask", the mean focal loss over the pixels, and "dice"; () each.

    Raises:
        ConfigError: the targets have no masks.
    """
    if targets.masks is None:
        raise ConfigError(
            "[DetrCriterion] a model with masks must be taught with masks, got targets without; "
            "open the data set with masks=True"
        )
    image, query = (owners >= 0).nonzero(as_tuple=True)
    truth = targets.masks[image, owners[image, query].long()].flatten(1).float()
    found = logits[image, query][:, None].float()
    found = F.interpolate(found, size=targets.masks.shape[2:], mode="bilinear", align_corners=False).flatten(
        1
    )
    share = found.sigmoid()
    dice = 1 - (2 * (share * truth).sum(1) + 1) / (share.sum(1) + truth.sum(1) + 1)
    wrong = share + truth - 2 * share * truth
    entropy = F.binary_cross_entropy_with_logits(found, truth, reduction="none")
    focal = (ALPHA * truth + (1 - ALPHA) * (1 - truth)) * entropy * wrong**GAMMA
    return {"mask": focal.mean(1).sum() / normaliser, "dice": dice.sum() / normaliser}
