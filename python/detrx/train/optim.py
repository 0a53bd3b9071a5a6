"""AdamW with a group for each way in which weights learn, and the parts of the backbone that do not."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from detrx.errors import ConfigError
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


def freeze(model: nn.Module, *, norm: bool, stages: int, learn: Sequence[str] = ()) -> None:
    """Take the backbone's batch norms, its first stages, and all that does not begin with ``learn``, out of learning.

    Args:
        norm: keep gains and statistics of the batch norms as they are.
        stages: how many stages from the picture on, the stem included; 0 leaves all learning.
        learn: how the names of the parameters begin that learn; empty: all.

    Raises:
        ConfigError: no parameter's name begins so.
    """
    backbone = model.get_submodule("backbone")
    if norm:
        freeze_norm(backbone)
    if stages and isinstance(backbone, Backbone):
        backbone.freeze(stages)
    if learn:
        _freeze_rest(model, tuple(learn))


def _freeze_rest(model: nn.Module, learn: tuple[str, ...]) -> None:
    names = [name for name, _ in model.named_parameters()]
    for word in learn:
        if not any(name.startswith(word) for name in names):
            known = ", ".join(sorted({name.split(".")[0] for name in names}))
            raise ConfigError(
                f"[train] learn must be how names of weights begin, found {word!r}; this model's are {known}"
            )
    for name, parameter in model.named_parameters():
        if not name.startswith(learn):
            parameter.requires_grad_(False)


def train_mode(model: nn.Module) -> None:
    """Training mode for all but what is frozen: batch norms must not move their statistics, layers drop nothing."""
    model.train()
    for module in model.modules():
        own = list(module.parameters())
        if (own or isinstance(module, _BatchNorm)) and not any(p.requires_grad for p in own):
            module.eval()
