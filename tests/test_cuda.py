"""On a CUDA device the operators and losses answer as on the CPU.

`make gpu` runs these on a machine that has torch, numpy and pytest, and nothing else to import.
"""

from __future__ import annotations

import pytest
import torch

from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.ops.deform_attn import deform_attn
from detrx.ops.match import match
from detrx.tensors import Outputs, Targets

SHAPES = [(12, 9), (6, 5)]


def made_outputs(seed: int) -> tuple[torch.Tensor, torch.Tensor, Targets]:
    """Logits (2, 3, 20, 4), boxes (2, 3, 20, 4) and the truth of 3 images with 3, 0 and 5 objects."""
    random = torch.Generator().manual_seed(seed)
    logits = torch.randn(2, 3, 20, 4, generator=random)
    boxes = torch.rand(2, 3, 20, 4, generator=random) * 0.4 + 0.3
    truth = torch.rand(3, 5, 4, generator=random) * 0.4 + 0.3
    labels = torch.randint(0, 4, (3, 5), generator=random)
    return logits, boxes, Targets(truth, labels, torch.tensor([3, 0, 5], dtype=torch.int32))


def losses_on(device: str, seed: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The total of all losses and its gradient by the boxes, on the CPU."""
    logits, boxes, targets = made_outputs(seed)
    moved = boxes.to(device).requires_grad_()
    total = Criterion(LossConfig(), 4)(Outputs(logits.to(device), moved), targets.to(device)).total
    (gradient,) = torch.autograd.grad(total, moved)
    return total.detach().cpu(), gradient.cpu()


def samples_on(device: str, seed: int) -> list[torch.Tensor]:
    """Deformable attention of two levels and its gradients, on the CPU."""
    random = torch.Generator().manual_seed(seed)
    pixels = sum(height * width for height, width in SHAPES)
    inputs = [
        torch.randn(2, pixels, 3, 8, generator=random),
        torch.rand(2, 7, 3, 6, 2, generator=random) * 1.2 - 0.1,
        torch.rand(2, 7, 3, 6, generator=random),
    ]
    values, locations, weights = (one.to(device).requires_grad_() for one in inputs)
    found = deform_attn(values, SHAPES, locations, weights, [4, 2])
    gradients = torch.autograd.grad(found.square().sum(), [values, locations, weights])
    return [one.detach().cpu() for one in (found, *gradients)]


@pytest.mark.needs("cuda")
@pytest.mark.parametrize("seed", [0, 1])
def test_matching_is_the_same(seed: int) -> None:
    logits, boxes, targets = made_outputs(seed)
    there = match(logits.cuda(), boxes.cuda(), targets.to("cuda"))
    assert torch.equal(there.cpu(), match(logits, boxes, targets))


@pytest.mark.needs("cuda")
@pytest.mark.parametrize("seed", [0, 1])
def test_losses_are_the_same(seed: int) -> None:
    for there, here in zip(losses_on("cuda", seed), losses_on("cpu", seed)):
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-5)


@pytest.mark.needs("cuda")
@pytest.mark.parametrize("seed", [0, 1])
def test_deformable_attention_is_the_same(seed: int) -> None:
    # Float32 sums in another order: a few parts in a million of the largest values.
    for there, here in zip(samples_on("cuda", seed), samples_on("cpu", seed)):
        torch.testing.assert_close(there, here, rtol=1e-4, atol=1e-4)
