"""AdamW with a group for each way in which weights learn, and the parts of the backbone that do not."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrx.models.backbone import Backbone, freeze_norm
from detrx.train.config import TrainConfig
from detrx.train.defaults import settled

_BACKBONE = "backbone."


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.AdamW:
    """Four groups: backbone or not, weights or norms and biases, which do not decay."""
    height = settled("lr", config.lr)
    groups: dict[tuple[bool, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            key = (name.startswith(_BACKBONE), parameter.ndim <= 1)
            groups.setdefault(key, []).append(parameter)
    return torch.optim.AdamW(
        [
            {
                "params": parameters,
                "peak": height * (config.backbone_lr_ratio if in_backbone else 1.0),
                "weight_decay": 0.0 if is_flat else config.weight_decay,
            }
            for (in_backbone, is_flat), parameters in sorted(groups.items())
        ],
        lr=height,
        fused=True,
    )


def set_rate(optimizer: torch.optim.Optimizer, share: float) -> float:
    """Set every group to its share of its own height; returns the highest rate."""
    for group in optimizer.param_groups:
        group["lr"] = group["peak"] * share
    return max(float(group["lr"]) for group in optimizer.param_groups)


def freeze(model: nn.Module, *, norm: bool, stages: int) -> None:
    """Take the backbone's batch norms and its first stages out of learning.

    Args:
        norm: keep gains and statistics of the batch norms as they are.
        stages: how many stages from the picture on, the stem included; 0 leaves all learning.
    """
    backbone = model.get_submodule("backbone")
    if norm:
        freeze_norm(backbone)
    if stages and isinstance(backbone, Backbone):
        backbone.freeze(stages)


def train_mode(model: nn.Module) -> None:
    """Training mode for all but the batch norms of frozen stages, whose statistics must not move either."""
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm) and not any(p.requires_grad for p in module.parameters()):
            module.eval()
