"""The training loss of a real-time DETR: all layers at once, one matching call, and no wait for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from detrx.errors import ConfigError
from detrx.losses.config import LossConfig
from detrx.losses.kernels import KERNELS
from detrx.losses.masks import mask_cost, mask_losses
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
    stack,
)
from detrx.ops.owners import agree
from detrx.tensors import DenoiseQueries, Outputs, Targets

_LABEL_LOSS = {"vfl": "varifocal", "mal": "mal"}


class Criterion(nn.Module):
    """Class, box, distribution and mask losses of matched queries, normalised by the number of boxes, in float32.

    The class loss is taken on each layer's own matches. Boxes and distributions are taught, for D-FINE, on the union
    of the matches of all layers. A target that no query is left for counts in the normaliser all the same.
    """

    def __init__(self, config: LossConfig, classes: int, *, total: Total = alone) -> None:
        """
        Args:
            total: adds up over all processes that share a batch: losses are divided by what all of it holds.
        """
        super().__init__()
        self.total = total
        self.config = config
        self.classes = classes
        self.kernels = KERNELS[config.kernels]

    def forward(self, outputs: Outputs, targets: Targets, denoise: DenoiseQueries | None = None) -> Losses:
        """Add up all losses of a batch.

        Raises:
            ConfigError: the outputs do not have ``classes`` classes or ``bins`` + 1 bins.
            TrainingError: on the CPU, a matching cost is NaN or infinite; it names the layer and the image. On other
                devices ``Losses.costs`` raises it when asked.
        """
        self._check(outputs)
        with torch.autocast(outputs.logits.device.type, enabled=False):
            stages = stack(outputs)
            more = self._mask_cost(outputs, targets)
            match, own, costs = match_stages(
                stages, targets, weights=self.config.match, kernels=self.kernels, more=more
            )
            joint = agree(own) if self.config.union and stages.edges is not None else own
            sizes = measure(targets, joint, costs, total=self.total)
            sums = self._sums(stages, targets, own, joint, sizes)
            if outputs.embeddings is not None and outputs.pixels is not None:
                sums.update(
                    mask_losses(
                        outputs.embeddings,
                        outputs.pixels,
                        targets,
                        match[: len(outputs.embeddings)],
                        config=self.config,
                        normaliser=sizes.normaliser,
                    )
                )
            parts = [(stages, sums)]
            if denoise is not None and outputs.denoise is not None:
                noised = stack(outputs.denoise, prefix="_denoise")
                share = denoise.owners.shape[1] / own.shape[-1]
                noise = sizes.repeated(denoise.groups, share=share)
                parts.append((noised, self._sums(noised, targets, denoise.owners, denoise.owners, noise)))
            return add_up(parts, costs=costs)

    def _mask_cost(self, outputs: Outputs, targets: Targets) -> Tensor | None:
        if outputs.embeddings is None or outputs.pixels is None:
            return None
        return mask_cost(outputs.embeddings, outputs.pixels, targets, config=self.config)

    def _check(self, outputs: Outputs) -> None:
        if outputs.logits.shape[-1] != self.classes:
            raise ConfigError(
                f"[Criterion] outputs must have {self.classes} classes, got {outputs.logits.shape[-1]}. "
                "Build the model and the criterion for the same data set."
            )
        edges = 4 * (self.config.bins + 1)
        if outputs.distributions is not None and outputs.distributions.shape[-1] != edges:
            raise ConfigError(
                f"[Criterion] distributions must have 4 * (bins + 1) = {edges} values, "
                f"got {outputs.distributions.shape[-1]}"
            )

    def _sums(self, stages: Stages, targets: Targets, own: Tensor, joint: Tensor, sizes: Sizes) -> Sums:
        """Every kind of loss of every stage: class losses over own and boxes, the rest over joint and shared."""
        boxes = sizes.normaliser
        shared = boxes if joint is own else sizes.owned[0].clamp(min=1)
        config = self.config
        l1, giou, iou = self.kernels.box_loss(stages.boxes, targets.boxes, joint, normaliser=shared)
        quality = iou
        if own is not joint:
            quality = self.kernels.box_loss(stages.boxes.detach(), targets.boxes, own)[2]
        label = self.kernels.focal_loss(
            stages.logits,
            targets.labels,
            own,
            kind=_LABEL_LOSS[config.label],
            alpha=config.alpha,
            gamma=config.power,
            quality=quality,
            normaliser=boxes,
        )
        return {
            config.label: label * config.class_weight,
            "l1": l1 * config.l1_weight,
            "giou": giou * config.giou_weight,
            **self._distributions(stages, targets, joint, shared, iou, sizes),
        }

    def _distributions(
        self, stages: Stages, targets: Targets, joint: Tensor, shared: Tensor, iou: Tensor, sizes: Sizes
    ) -> Sums:
        config, edges, references = self.config, stages.edges, stages.references
        if edges is None or references is None:
            return {}
        layers = len(edges)
        joint = joint.expand(stages.logits.shape[:3])[:layers]
        fgl = self.kernels.fgl_loss(
            edges,
            references,
            targets.boxes,
            joint,
            iou[:layers],
            reg_scale=config.reg_scale,
            up=config.up,
            normaliser=shared,
        )
        found = {"fgl": fgl * config.fgl_weight}
        if layers > 1:
            ddf = self.kernels.ddf_loss(
                edges,
                stages.logits[layers - 1].detach().amax(-1).sigmoid(),
                joint,
                iou[:layers],
                temperature=config.temperature,
                matched=sizes.owned[: layers - 1],
                queries=sizes.queries,
            )
            found["ddf"] = ddf * config.ddf_weight
        return found
