"""The training loss of a real-time DETR: all layers at once, one matching call."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from detrx.boxes import iou_giou, to_corners
from detrx.errors import ConfigError
from detrx.losses.config import LossConfig
from detrx.losses.distributions import distillation_loss, edge_targets, localisation_loss
from detrx.losses.labels import label_loss
from detrx.losses.pairs import Pairs, pair, pair_denoise, pair_union
from detrx.ops.match import match
from detrx.tensors import DenoiseQueries, Outputs, Targets


@dataclass(frozen=True)
class Losses:
    """What a batch cost."""

    total: Tensor
    """The weighted sum of all terms, to differentiate."""
    terms: dict[str, Tensor]
    """Each weighted term, detached: ``vfl``, ``l1``, ... of the last layer, ``vfl_aux0``, ``vfl_first``,
    ``vfl_encoder``, ``vfl_denoise0`` ... of the others."""


@dataclass(frozen=True)
class _Stages:
    """The predictions of one kind of query in all the places that take losses: layers, first head, encoder."""

    logits: Tensor
    """(N, B * Q, C) float32."""
    boxes: Tensor
    """(N, B * Q, 4) float32 centres in [0, 1]."""
    distributions: Tensor | None
    """(L, B * Q, 4, R + 1) float32 of the first L stages, the layers."""
    references: Tensor | None
    """(L, B * Q, 4) float32 centres."""


class Criterion(nn.Module):
    """Class, box and distribution losses of matched queries, normalised by the number of boxes, in float32.

    The class loss is taken on each layer's own matches. Boxes and distributions are taught, for D-FINE, on the union
    of the matches of all layers. A target that no query is left for counts in the normaliser all the same.
    """

    def __init__(self, config: LossConfig, classes: int) -> None:
        super().__init__()
        self.config = config
        self.classes = classes

    def forward(self, outputs: Outputs, targets: Targets, denoise: DenoiseQueries | None = None) -> Losses:
        """Add up all losses of a batch.

        Raises:
            ConfigError: the outputs do not have ``classes`` classes or ``bins`` + 1 bins.
            TrainingError: a matching cost is NaN or infinite; it names the layer and the image.
        """
        self._check(outputs)
        with torch.autocast(outputs.logits.device.type, enabled=False):
            sums = self._learned(outputs, targets)
            if denoise is not None and outputs.denoise is not None:
                sums.update(self._denoised(outputs.denoise, targets, denoise))
            total = torch.cat([values for values, _ in sums.values()]).sum()
        terms = {
            name: value
            for values, names in sums.values()
            for name, value in zip(names, values.detach().unbind())
        }
        return Losses(total, terms)

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

    def _learned(self, outputs: Outputs, targets: Targets) -> dict[str, tuple[Tensor, list[str]]]:
        names = _stage_names(outputs, prefix="")
        stages = _stack([outputs, outputs.first, outputs.encoder])
        batch, queries = outputs.logits.shape[1:3]
        by_image = (len(names), batch, queries, -1)
        found = match(
            stages.logits.detach().reshape(by_image),
            stages.boxes.detach().reshape(by_image),
            targets,
            weights=self.config.match,
            names=[name.strip("_") or "the last layer" for name in names],
        )
        found = found.cpu().reshape(len(names), batch, -1).long()
        device = outputs.logits.device
        own = joint = pair(found, queries).to(device)
        boxes = shared = targets.counts.sum().clamp(min=1)
        if self.config.union and outputs.distributions is not None:
            union = pair_union(found, queries)
            shared = torch.tensor(max(union.rows.shape[1], 1), device=device)
            joint = union.to(device).repeat(len(names))
        return self._sum(stages, targets, own, joint, boxes, shared, names)

    def _denoised(
        self, outputs: Outputs, targets: Targets, denoise: DenoiseQueries
    ) -> dict[str, tuple[Tensor, list[str]]]:
        names = _stage_names(outputs, prefix="_denoise")
        stages = _stack([outputs, outputs.first])
        pairs = pair_denoise(denoise.match, outputs.logits.shape[2]).repeat(len(names))
        boxes = targets.counts.sum().clamp(min=1) * denoise.groups
        found = self._sum(stages, targets, pairs, pairs, boxes, boxes, names)
        return {f"{kind}_denoise": value for kind, value in found.items()}

    def _sum(
        self,
        stages: _Stages,
        targets: Targets,
        own: Pairs,
        joint: Pairs,
        boxes: Tensor,
        shared: Tensor,
        names: list[str],
    ) -> dict[str, tuple[Tensor, list[str]]]:
        """Every kind of loss of every stage: class losses over own pairs and boxes, the rest over joint and shared."""
        config = self.config
        found: dict[str, tuple[Tensor, list[str]]] = {}
        pairs_of_boxes = _BoxPairs(stages, targets, joint)
        overlaps = pairs_of_boxes.overlaps if own is joint else _BoxPairs(stages, targets, own).overlaps
        cells = own.rows * self.classes + targets.labels.reshape(-1)[own.truths]
        label = label_loss(stages.logits, cells, overlaps, config=config) * config.class_weight / boxes
        found[config.label] = label, [config.label + name for name in names]
        found["l1"] = pairs_of_boxes.l1() * config.l1_weight / shared, ["l1" + name for name in names]
        found["giou"] = pairs_of_boxes.giou() * config.giou_weight / shared, ["giou" + name for name in names]
        if stages.distributions is not None:
            found.update(self._distributions(stages, pairs_of_boxes, shared, names))
        return found

    def _distributions(
        self, stages: _Stages, pairs: _BoxPairs, shared: Tensor, names: list[str]
    ) -> dict[str, tuple[Tensor, list[str]]]:
        edges, references = stages.distributions, stages.references
        if edges is None or references is None:
            return {}
        layers, height = edges.shape[:2]
        joint = pairs.pairs.first(layers)
        where, shape = joint.flat(height), joint.rows.shape
        from_boxes = references.reshape(-1, 4).index_select(0, where).reshape(*shape, 4).detach()
        left, share = edge_targets(from_boxes, pairs.truths[:layers], config=self.config)
        picked = edges.flatten(0, 1).index_select(0, where).reshape(*shape, *edges.shape[2:])
        overlaps = pairs.overlaps[:layers]
        fgl = localisation_loss(picked, left, share, overlaps) * self.config.fgl_weight / shared
        found = {"fgl": (fgl, ["fgl" + name for name in names[:layers]])}
        if layers > 1:
            ddf = distillation_loss(
                edges[:-1],
                edges[-1].detach(),
                stages.logits[layers - 1].detach().amax(-1).sigmoid(),
                joint.rows[:-1],
                overlaps[:-1],
                temperature=self.config.temperature,
            )
            found["ddf"] = ddf * self.config.ddf_weight, ["ddf" + name for name in names[: layers - 1]]
        return found


class _BoxPairs:
    """The boxes of the pairs and their truths, gathered once."""

    def __init__(self, stages: _Stages, targets: Targets, pairs: Pairs) -> None:
        self.pairs = pairs
        height = stages.boxes.shape[1]
        picked = stages.boxes.reshape(-1, 4).index_select(0, pairs.flat(height))
        self.boxes = picked.reshape(*pairs.rows.shape, 4)
        self.truths = targets.boxes.reshape(-1, 4).float()[pairs.truths]
        overlaps, self._giou = iou_giou(to_corners(self.boxes), to_corners(self.truths))
        self.overlaps = overlaps.detach()
        """(N, P) IoU without gradient."""

    def l1(self) -> Tensor:
        """(N,) sums of the L1 distance."""
        return (self.boxes - self.truths).abs().sum((-1, -2))

    def giou(self) -> Tensor:
        """(N,) sums of 1 - GIoU."""
        return (1 - self._giou).sum(-1)


def _stage_names(outputs: Outputs, *, prefix: str) -> list[str]:
    """What each stage adds to the name of its terms, in the order in which _stack lays them."""
    layers = outputs.logits.shape[0]
    if prefix:
        names = [f"{prefix}{i}" for i in range(layers)]
    else:
        names = [f"_aux{i}" for i in range(layers - 1)] + [""]
    if outputs.first is not None:
        names.append(f"{prefix}_first")
    if outputs.encoder is not None and not prefix:
        names.append("_encoder")
    return names


def _stack(places: Sequence[Outputs | None]) -> _Stages:
    """Lay the predictions of all places after one another, the layers first."""
    present = [place for place in places if place is not None]
    logits = torch.cat([place.logits for place in present]).float().flatten(1, 2)
    boxes = torch.cat([place.boxes for place in present]).float().flatten(1, 2).clamp(0, 1)
    edges, references = present[0].distributions, present[0].references
    if edges is not None:
        edges = edges.float().flatten(1, 2).unflatten(-1, (4, -1))
    return _Stages(logits, boxes, edges, None if references is None else references.float().flatten(1, 2))
