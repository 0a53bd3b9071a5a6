"""What matching and losses take of a training step on a CUDA device: rt-s at 640, batch 16, bfloat16."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.tensors import Outputs, Targets

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from on_device import interleave, record

pytestmark = [pytest.mark.needs("cuda"), pytest.mark.filterwarnings("default")]

IMAGES, SIDE, CLASSES, TARGETS = 16, 640, 80, 20


def some_targets() -> Targets:
    torch.manual_seed(0)
    counts = torch.randint(1, TARGETS + 1, (IMAGES,), dtype=torch.int32)
    counts[0] = TARGETS
    boxes = torch.rand(IMAGES, TARGETS, 4) * 0.4 + 0.2
    return Targets(boxes, torch.randint(0, CLASSES, (IMAGES, TARGETS)), counts).to("cuda")


def some_outputs(device: str = "cuda") -> Outputs:
    """Of the sizes of rt-s, from no network."""
    layers, queries, bins = 3, 300, 32
    boxes = torch.rand(layers, IMAGES, queries, 4, device=device) * 0.4 + 0.2
    logits = torch.randn(layers, IMAGES, queries, CLASSES, device=device)
    edges = torch.randn(layers, IMAGES, queries, 4 * (bins + 1), device=device)
    leaves = (tensor.requires_grad_() for tensor in (logits, boxes.clone(), edges))
    return Outputs(*leaves, boxes)


def test_losses_against_plain_torch(benchmark):
    """Needs torch alone; the share of a step needs timm, too."""
    outputs, targets = some_outputs(), some_targets()
    leaves = (outputs.logits, outputs.boxes, outputs.distributions)

    def run(kernels):
        criterion = Criterion(replace(LossConfig(), kernels=kernels), CLASSES)
        return lambda: torch.autograd.grad(criterion(outputs, targets).total, leaves)

    contenders = {"detrx": run("native"), "plain torch": run("reference")}
    medians = interleave(contenders, title="matching and losses of rt-s, B=16", rounds=10)
    record(benchmark, contenders["detrx"], medians)


@pytest.mark.parametrize("kernels", ["native", "reference"])
def test_share_of_a_step(benchmark, kernels):
    pytest.importorskip("timm")
    from detrx.models.zoo import MODELS, build

    model = build(MODELS["rt-s"], classes=CLASSES).cuda().train()
    criterion, targets = Criterion(replace(LossConfig(), kernels=kernels), CLASSES), some_targets()
    pixels = torch.randn(IMAGES, 3, SIDE, SIDE, device="cuda")

    def network():
        with torch.autocast("cuda", torch.bfloat16):
            return model(pixels)

    def whole():
        criterion(network(), targets).total.backward()
        model.zero_grad()

    outputs = network()
    leaves = [
        tensor for tensor in (outputs.logits, outputs.boxes, outputs.distributions) if tensor is not None
    ]

    def losses():
        return torch.autograd.grad(criterion(outputs, targets).total, leaves, retain_graph=True)

    medians = interleave({"losses": losses, "step": whole}, title=f"rt-s step, {kernels}", rounds=10)
    print(f"  matching and losses are {medians['losses'] / medians['step']:.1%} of the step")
    record(benchmark, losses, medians, kernels=kernels)
