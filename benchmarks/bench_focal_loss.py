"""The class losses of six layers, forward and backward, against torchvision's focal loss and torch's cross-entropy."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import sigmoid_focal_loss

from detrx.ops.cross_entropy import cross_entropy
from detrx.ops.focal_loss import focal_loss

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from loss_problem import make_problem
from peers.set_criterion import class_loss, class_targets
from side_by_side import interleave

CLASSES = 91
SIZES = [(16, 300, "coco"), (64, 300, "coco"), (16, 300, "crowd")]


@pytest.mark.parametrize(("images", "queries", "targets"), SIZES)
def test_focal_loss(benchmark, images, queries, targets):
    p = make_problem(images, queries, targets)
    logits = p.logits(CLASSES).requires_grad_()

    def ours():
        sums = focal_loss(logits, p.labels, p.owners, normaliser=p.normaliser)
        return torch.autograd.grad(sums.sum(), logits)[0]

    def torchvision():
        total = 0.0
        for layer, pairs in zip(logits, p.pairs):
            wanted = class_targets(layer, p.each_label, pairs, none=CLASSES)
            hot = F.one_hot(wanted, CLASSES + 1)[..., :-1].to(layer.dtype)
            total = total + sigmoid_focal_loss(layer, hot, reduction="sum") / p.normaliser
        return torch.autograd.grad(total, logits)[0]

    torch.testing.assert_close(ours(), torchvision(), rtol=1e-3, atol=1e-8)
    title = f"focal_loss B={images} Q={queries} C={CLASSES} {targets}"
    interleave({"detrx": ours, "torchvision": torchvision}, rounds=9, title=title, into=benchmark.extra_info)
    benchmark(ours)


@pytest.mark.parametrize("kind", ["varifocal", "mal"])
def test_soft_targets(benchmark, kind):
    """Varifocal and matching-aware losses, which torchvision does not have; DEIM's power needs an exponential more."""
    p = make_problem(16, 300, "coco")
    logits = p.logits(CLASSES).requires_grad_()
    quality = torch.rand(logits.shape[:3], generator=torch.Generator().manual_seed(2))
    settings = {"kind": kind, "alpha": 0.75, "gamma": 1.5 if kind == "mal" else 2.0}

    def ours():
        sums = focal_loss(logits, p.labels, p.owners, quality=quality, normaliser=p.normaliser, **settings)
        return torch.autograd.grad(sums.sum(), logits)[0]

    benchmark(ours)


@pytest.mark.parametrize(("images", "queries", "targets"), SIZES)
def test_cross_entropy(benchmark, images, queries, targets):
    p = make_problem(images, queries, targets)
    logits = p.logits(CLASSES + 1).requires_grad_()
    class_weight = torch.ones(CLASSES + 1)
    class_weight[-1] = 0.1

    def ours():
        return torch.autograd.grad(cross_entropy(logits, p.labels, p.owners).sum(), logits)[0]

    def eager():
        total = sum(
            class_loss(layer, p.each_label, pairs, class_weight=class_weight)
            for layer, pairs in zip(logits, p.pairs)
        )
        return torch.autograd.grad(total, logits)[0]

    torch.testing.assert_close(ours(), eager(), rtol=1e-3, atol=1e-9)
    title = f"cross_entropy B={images} Q={queries} C={CLASSES} + 1 {targets}"
    interleave({"detrx": ours, "torch": eager}, rounds=9, title=title, into=benchmark.extra_info)
    benchmark(ours)
