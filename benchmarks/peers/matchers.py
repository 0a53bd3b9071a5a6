"""The matchers that others use, each as one call for all decoder layers."""

from __future__ import annotations

import importlib
import importlib.util
import sys
import types
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from scipy.optimize import linear_sum_assignment
from torch import Tensor
from torchvision.ops import box_convert, generalized_box_iou

from detrx.tensors import Targets

Pairs = list[list[tuple[Tensor, Tensor]]]
"""Of each layer and image, the queries and the targets that belong together."""


def facebook(logits: Tensor, boxes: Tensor, targets: Targets) -> Pairs:
    """The algorithm of facebookresearch/detr: layer by layer, one matrix of all queries of the batch by all targets
    of the batch, of which the blocks on the diagonal are used, and scipy for each.
    """
    counts = targets.counts.tolist()
    labels = torch.cat([row[:count] for row, count in zip(targets.labels, counts)])
    truths = torch.cat([row[:count] for row, count in zip(targets.boxes, counts)])
    corners = box_convert(truths, "cxcywh", "xyxy")
    found = []
    for layer, around in zip(logits, boxes):
        ours = around.flatten(0, 1)
        cost = -layer.flatten(0, 1).softmax(-1)[:, labels]
        cost = cost + 5 * torch.cdist(ours, truths, p=1)
        cost = cost - 2 * generalized_box_iou(box_convert(ours, "cxcywh", "xyxy"), corners)
        blocks = cost.view(*around.shape[:2], -1).split(counts, -1)
        pairs = [linear_sum_assignment(block[image]) for image, block in enumerate(blocks)]
        found.append([(torch.as_tensor(query), torch.as_tensor(target)) for query, target in pairs])
    return found


def rfdetr() -> Callable[[Tensor, Tensor, Targets], Pairs] | None:
    """The matcher of rfdetr (pip install --no-deps rfdetr==1.11.2), all layers in one call; None where it is not
    installed. Its package imports far more than that, so the folders stand in for the packages.
    """
    spec = importlib.util.find_spec("rfdetr") if "rfdetr" not in sys.modules else None
    if spec is not None and spec.origin:
        for name in ("rfdetr", "rfdetr.models", "rfdetr.models.heads", "rfdetr.utilities"):
            folder = types.ModuleType(name)
            folder.__path__ = [str(Path(spec.origin).parent.joinpath(*name.split(".")[1:]))]
            sys.modules[name] = folder
    if "rfdetr" not in sys.modules:
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = importlib.import_module("rfdetr.models.matcher")
    matcher = module.HungarianMatcher(cost_class=2, cost_bbox=5, cost_giou=2, focal_alpha=0.25)

    def run(logits: Tensor, boxes: Tensor, targets: Targets) -> Pairs:
        outputs = [{"pred_logits": a, "pred_boxes": b} for a, b in zip(logits, boxes)]
        found: Any = matcher._match_many(outputs, _listed(targets))
        if found is None:  # its own training loop does the same
            found = [matcher(layer, _listed(targets)) for layer in outputs]
        return found

    return torch.no_grad()(run)


def _listed(targets: Targets) -> list[dict[str, Tensor]]:
    return [
        {"boxes": boxes[:count], "labels": labels[:count]}
        for boxes, labels, count in zip(targets.boxes, targets.labels, targets.counts.tolist())
    ]
