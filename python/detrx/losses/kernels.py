"""The operators that losses are made of, selectable by name: native, or plain torch to debug them against."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor

from detrx.ops.box_loss import box_loss
from detrx.ops.cross_entropy import cross_entropy
from detrx.ops.ddf_loss import ddf_loss
from detrx.ops.fgl_loss import fgl_loss
from detrx.ops.focal_loss import focal_loss
from detrx.ops.loss_reference import (
    box_loss_reference,
    cross_entropy_reference,
    ddf_loss_reference,
    fgl_loss_reference,
    focal_loss_reference,
)
from detrx.ops.match import match_counting
from detrx.ops.match_cost import match_cost
from detrx.ops.match_weights import MatchWeights
from detrx.ops.reference import match_reference
from detrx.tensors import Targets


@dataclass(frozen=True)
class Kernels:
    """One body of each operator."""

    match: Callable[..., tuple[Tensor, Tensor]]
    box_loss: Callable[..., tuple[Tensor, Tensor, Tensor]]
    focal_loss: Callable[..., Tensor]
    cross_entropy: Callable[..., Tensor]
    ddf_loss: Callable[..., Tensor]
    fgl_loss: Callable[..., Tensor]


def _match_reference(
    logits: Tensor, boxes: Tensor, targets: Targets, *, weights: MatchWeights
) -> tuple[Tensor, Tensor]:
    """As match_counting, one image after another; where any cost is not finite, nothing is matched."""
    truth = targets.labels, targets.boxes
    sick = ~match_cost(logits, boxes, *truth, weights=weights).isfinite() & targets.valid[:, :, None]
    bad = sick.sum((2, 3), dtype=torch.int32).flatten()
    if bad.any():
        return bad.new_full((len(bad), targets.labels.shape[1]), -1), bad
    return match_reference(logits, boxes, *truth, targets.counts, **asdict(weights)).to(bad.device), bad


KERNELS = {
    "native": Kernels(match_counting, box_loss, focal_loss, cross_entropy, ddf_loss, fgl_loss),
    "reference": Kernels(
        _match_reference,
        box_loss_reference,
        focal_loss_reference,
        cross_entropy_reference,
        ddf_loss_reference,
        fgl_loss_reference,
    ),
}
