"""What processes add up after a backward pass: gradients, losses, and what batch norms saw."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import pad as pad_zeros
from torch.nn.modules.batchnorm import _BatchNorm

from detrx.tensors import Targets
from detrx.train.distributed import Team


class Gradients:
    """The gradients of an optimiser's parameters."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self._used: list[bool] | None = None

    def dense(self, team: Team) -> list[Tensor]:
        """The same gradients in every process: zeros where the share at hand gave none.

        A parameter that no process used in the first step is none of them, as it is where there is one process: decay
        would move it.
        """
        if self._used is None:
            used = torch.tensor([float(p.grad is not None) for p in self._parameters])
            self._used = [bool(count) for count in team.total(used)]
        found = []
        for parameter, is_used in zip(self._parameters, self._used):
            if not is_used:
                parameter.grad = None
                continue
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            found.append(parameter.grad)
        return found


def statistics(model: nn.Module) -> list[Tensor]:
    """What the batch norms remember that see batches."""
    norms = [m for m in model.modules() if isinstance(m, _BatchNorm) and m.training]
    return [b for norm in norms for b in (norm.running_mean, norm.running_var) if b is not None]


@torch.no_grad()
def join(team: Team, sums: list[Tensor], means: list[Tensor]) -> None:
    """Replace float32 tensors by their sums, or their means, over all processes, all in one message.

    Tensors are read as they lie in memory, so that none is laid out anew; in every process they lie the same way.
    """
    if team.size == 1 or not (sums or means):
        return
    if means:
        torch._foreach_div_(means, float(team.size))
    flat = [t.as_strided((t.numel(),), (1,)) for t in (*sums, *means)]
    whole = team.total(torch.cat(flat))
    torch._foreach_copy_(flat, list(whole.split([t.numel() for t in flat])))


def pad(targets: Targets, most: int) -> Targets:
    """Room for ``most`` objects in each picture, or as many as there is room for."""
    more = max(most - targets.labels.shape[1], 0)
    masks = None if targets.masks is None else pad_zeros(targets.masks, (0, 0, 0, 0, 0, more))
    boxes, labels = pad_zeros(targets.boxes, (0, 0, 0, more)), pad_zeros(targets.labels, (0, more))
    return Targets(boxes, labels, targets.counts, masks)
