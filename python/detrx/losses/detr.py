"""The training loss of the first DETR (arXiv 2005.12872): softmax classes with "no object" as one of them."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor, nn

from detrx.errors import ConfigError
from detrx.losses.kernels import KERNELS
from detrx.losses.mask_terms import mask_terms
from detrx.losses.stages import (
    Losses,
    Sizes,
    Stages,
    Sums,
    Total,
    add_up,
    alone,
    match_stages,
    measure,
    named_terms,
    stack,
)
from detrx.ops.match_weights import MatchWeights
from detrx.tensors import Outputs, Targets

_WEIGHTS = MatchWeights(class_cost="softmax", class_=1.0, l1=5.0, giou=2.0)


class DetrCriterion(nn.Module):
    """Weighted cross-entropy over all queries; L1 and GIoU of matched ones, normalised by the number of boxes."""

    def __init__(
        self,
        classes: int,
        *,
        no_object: float = 0.1,
        class_weight: float = 1.0,
        l1_weight: float = 5.0,
        giou_weight: float = 2.0,
        mask_weight: float = 1.0,
        dice_weight: float = 1.0,
        match: MatchWeights = _WEIGHTS,
        kernels: Literal["native", "reference"] = "native",
        total: Total = alone,
    ) -> None:
        """
        Args:
            classes: C; outputs have one logit more, the last, for "no object".
            no_object: the weight of a query that is matched to nothing; the others weigh 1.
            class_weight: of the cross-entropy.
            l1_weight: of the L1 distance of (cx, cy, w, h).
            giou_weight: of 1 - GIoU.
            mask_weight: of the focal loss of masks, where the outputs have them.
            dice_weight: of their Dice loss.
            match: what the matching cost is made of.
            kernels: what computes the losses; "reference" to look for a fault.
            total: adds up over all processes that share a batch: losses are divided by what all of it holds.
        """
        super().__init__()
        self.classes, self.no_object, self.match = classes, no_object, match
        self.class_weight, self.l1_weight, self.giou_weight = class_weight, l1_weight, giou_weight
        self.mask_weight, self.dice_weight = mask_weight, dice_weight
        self.kernels, self.total = KERNELS[kernels], total

    def forward(self, outputs: Outputs, targets: Targets) -> Losses:
        """Add up all losses of a batch: ``ce``, ``l1``, ``giou`` of the last layer, ``ce_aux0`` ... of the others, and
        ``mask`` and ``dice`` of a model with masks.

        ``cardinality`` is how many objects a picture has too many or too few on average; it teaches nothing.

        Raises:
            ConfigError: the outputs do not have ``classes`` + 1 classes.
            TrainingError: on the CPU, a matching cost is NaN or infinite; it names the layer and the image. On other
                devices ``Losses.costs`` raises it when asked.
        """
        if outputs.logits.shape[-1] != self.classes + 1:
            raise ConfigError(
                f"[DetrCriterion] outputs must have {self.classes} classes and one for no object, "
                f"got {outputs.logits.shape[-1]} in all. Build the model and the criterion for the same data set."
            )
        with torch.autocast(outputs.logits.device.type, enabled=False):
            stages = stack(outputs)
            _, own, costs = match_stages(stages, targets, weights=self.match, kernels=self.kernels)
            sizes = measure(targets, own, costs, total=self.total)
            losses = add_up([(stages, self._sums(stages, targets, own, sizes))], costs=costs)
            off = _cardinality(stages, targets) * (own.shape[-1] / sizes.queries)
            losses.terms.update(named_terms("cardinality", off, stages))
            if outputs.masks is None:
                return losses
            terms = mask_terms(outputs.masks[-1], targets, own[-1], normaliser=sizes.normaliser)
            mask, dice = terms["mask"] * self.mask_weight, terms["dice"] * self.dice_weight
            losses.terms.update(mask=mask.detach(), dice=dice.detach())
            return replace(losses, total=losses.total + mask + dice)

    def _sums(self, stages: Stages, targets: Targets, own: Tensor, sizes: Sizes) -> Sums:
        ce = self.kernels.cross_entropy(stages.logits, targets.labels, own, no_object=self.no_object)
        l1, giou, _ = self.kernels.box_loss(stages.boxes, targets.boxes, own, normaliser=sizes.normaliser)
        here = self._weight((own >= 0).sum((-2, -1)), own[0].numel())
        return {
            # A mean over the queries at hand becomes their part of the mean over all.
            "ce": ce * (here / self._weight(sizes.owned, sizes.queries)) * self.class_weight,
            "l1": l1 * self.l1_weight,
            "giou": giou * self.giou_weight,
        }

    def _weight(self, owned: Tensor, queries: Tensor | int) -> Tensor:
        """(L,) what the cross-entropy of each stage is divided by."""
        return owned + (queries - owned) * self.no_object


def _cardinality(stages: Stages, targets: Targets) -> Tensor:
    """(L,) sum over the images of how far the number of queries that name an object is from the truth."""
    named = stages.logits.detach().argmax(-1) < stages.logits.shape[-1] - 1
    return (named.sum(-1) - targets.counts).abs().float().sum(-1)
