"""The running average of a model's weights, which is what gets evaluated and kept."""

from __future__ import annotations

import copy
from itertools import chain

import torch
from torch import Tensor, nn


def _floats(model: nn.Module) -> list[Tensor]:
    """Parameters and floating buffers, each once even where modules share them."""
    return [t for t in chain(model.parameters(), model.buffers()) if t.is_floating_point()]


def _float_buffers(model: nn.Module) -> list[Tensor]:
    return [t for t in model.buffers() if t.is_floating_point()]


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
        if others := _others(self.model):
            torch._foreach_copy_(others, _others(model))

    @torch.no_grad()
    def heal(self, model: nn.Module) -> None:
        """Give back the average's numbers where the model's buffers (batch norm statistics) are not finite.

        Costs a few launches for all buffers together, and does not wait for the device, so that it may follow every
        step, bad or not.
        """
        theirs, mine = _float_buffers(model), _float_buffers(self.model)
        if not theirs:
            return
        flat, good = (torch.cat([t.flatten() for t in buffers]) for buffers in (theirs, mine))
        healed = torch.where(flat.isfinite(), flat, good).split([t.numel() for t in theirs])
        torch._foreach_copy_(theirs, [piece.view_as(t) for piece, t in zip(healed, theirs)])
