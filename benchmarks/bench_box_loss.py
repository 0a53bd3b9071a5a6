"""The box losses of six layers, forward and backward, against torchvision's and the first DETR's criterion."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import generalized_box_iou_loss

from detrx.ops.box_loss import box_loss

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from loss_problem import make_problem
from peers.set_criterion import box_losses, to_corners, where_of
from side_by_side import interleave

SIZES = [(16, 300, "coco"), (64, 300, "coco"), (16, 300, "crowd"), (64, 300, "crowd")]


@pytest.mark.parametrize(("images", "queries", "targets"), SIZES)
def test_box_loss(benchmark, images, queries, targets):
    p = make_problem(images, queries, targets)
    boxes = p.boxes.requires_grad_()
    truths, count = p.each_truth, float(p.normaliser)

    def ours():
        found = box_loss(boxes, p.truths, p.owners, normaliser=p.normaliser)
        return torch.autograd.grad((found.l1.sum() + found.overlap.sum()), boxes)[0]

    def torchvision():
        total = 0.0
        for layer, pairs in zip(boxes, p.pairs):
            picked = layer[where_of(pairs)]
            wanted = torch.cat([t[target] for t, (_, target) in zip(truths, pairs)])
            giou = generalized_box_iou_loss(to_corners(picked), to_corners(wanted), reduction="sum")
            total = total + (F.l1_loss(picked, wanted, reduction="sum") + giou) / count
        return torch.autograd.grad(total, boxes)[0]

    def detr():
        total = sum(box_losses(layer, truths, pairs, count) for layer, pairs in zip(boxes, p.pairs))
        return torch.autograd.grad(total, boxes)[0]

    torch.testing.assert_close(ours(), torchvision(), rtol=1e-3, atol=1e-4 / count)
    title = f"box_loss B={images} Q={queries} {targets}, {sum(p.counts)} pairs a layer"
    interleave({"detrx": ours, "torchvision": torchvision}, rounds=15, title=title, into=benchmark.extra_info)
    few = 1 if sum(p.counts) > 1000 else 15  # seconds each
    interleave(
        {"detrx": ours, "first DETR's criterion": detr}, rounds=few, title=title, into=benchmark.extra_info
    )
    benchmark(ours)
