"""The running average of a model's weights, which is what gets evaluated and kept."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn


def _floats(model: nn.Module) -> list[Tensor]:
    """Parameters and floating buffers, each once even where modules share them."""
    return [t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point()]


def _others(model: nn.Module) -> list[Tensor]:
    return [t for t in model.buffers() if not t.is_floating_point()]


class Ema:
    """A second model in evaluation mode whose tensors follow the trained one slowly."""

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, model: nn.Module, decay: float) -> None:
        """Move by (1 - decay) towards the model; decay in [0, 1)."""
        torch._foreach_lerp_(_floats(self.model), _floats(model), 1 - decay)
        for mine, theirs in zip(_others(self.model), _others(model), strict=True):
            mine.copy_(theirs)

    @torch.no_grad()
    def heal(self, model: nn.Module) -> None:
        """Give the model finite buffers (batch norm statistics) again after a step that was not finite."""
        for theirs, mine in zip(model.buffers(), self.model.buffers(), strict=True):
            theirs.copy_(mine)
