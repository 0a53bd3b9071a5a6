"""Losses on a CUDA device, forward and backward: against the same in plain torch, eager and compiled."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from detrx.ops import loss_reference
from detrx.ops.box_loss import box_loss
from detrx.ops.cross_entropy import cross_entropy
from detrx.ops.ddf_loss import ddf_loss
from detrx.ops.fgl_loss import fgl_loss
from detrx.ops.focal_loss import focal_loss

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from on_device import device_only, interleave, record

pytestmark = [pytest.mark.needs("cuda"), pytest.mark.filterwarnings("default")]

LAYERS, QUERIES, CLASSES = 6, 300, 91


def some(images: int):
    """Truths, labels and owners: 8 of 300 queries own a target."""
    torch.manual_seed(0)
    truths = torch.rand(images, 8, 4, device="cuda") * 0.4 + 0.2
    labels = torch.randint(0, CLASSES - 1, (images, 8), device="cuda")
    owners = torch.full((LAYERS, images, QUERIES), -1, dtype=torch.int32, device="cuda")
    owners[:, :, :8] = torch.arange(8, device="cuda", dtype=torch.int32)
    return truths, labels, owners


def differentiated(loss, leaf):
    def run():
        found = loss(leaf)
        terms = [found] if isinstance(found, torch.Tensor) else list(found[:2])
        return torch.autograd.grad(torch.stack(terms).sum(), leaf)

    return run


def compare(benchmark, ours, plain, leaf, title):
    leaf = leaf.requires_grad_()
    run = differentiated(ours, leaf)
    contenders = {
        "detrx": run,
        "eager": differentiated(plain, leaf),
        "compiled": differentiated(torch.compile(plain), leaf),
        "detrx, device alone": device_only(run),
    }
    record(benchmark, run, interleave(contenders, title=title))


@pytest.mark.parametrize("images", [16, 64])
@pytest.mark.parametrize("kind", ["giou", "ciou"])
def test_box_loss(benchmark, kind, images):
    truths, _, owners = some(images)
    leaf = torch.rand(LAYERS, images, QUERIES, 4, device="cuda") * 0.4 + 0.2
    compare(
        benchmark,
        lambda boxes: box_loss(boxes, truths, owners, kind=kind),
        lambda boxes: loss_reference.box_loss_reference(boxes, truths, owners, kind=kind),
        leaf,
        f"box_loss {kind} B={images}",
    )


@pytest.mark.parametrize("images", [16, 64])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("kind", ["focal", "varifocal"])
def test_focal_loss(benchmark, kind, dtype, images):
    _, labels, owners = some(images)
    quality = None if kind == "focal" else torch.rand(LAYERS, images, QUERIES, device="cuda")
    settings = {"kind": kind, "quality": quality}
    leaf = torch.randn(LAYERS, images, QUERIES, CLASSES, device="cuda").to(dtype)
    compare(
        benchmark,
        lambda logits: focal_loss(logits, labels, owners, **settings),
        lambda logits: loss_reference.focal_loss_reference(logits, labels, owners, **settings),
        leaf,
        f"focal_loss {kind} {dtype} B={images}",
    )


@pytest.mark.parametrize("images", [16, 64])
def test_cross_entropy(benchmark, images):
    _, labels, owners = some(images)
    compare(
        benchmark,
        lambda logits: cross_entropy(logits, labels, owners),
        lambda logits: loss_reference.cross_entropy_reference(logits, labels, owners),
        torch.randn(LAYERS, images, QUERIES, CLASSES + 1, device="cuda"),
        f"cross_entropy B={images}",
    )


@pytest.mark.parametrize("images", [16, 64])
def test_fgl_loss(benchmark, images):
    truths, _, owners = some(images)
    references = torch.rand(LAYERS, images, QUERIES, 4, device="cuda") * 0.4 + 0.2
    iou = torch.rand(LAYERS, images, QUERIES, device="cuda")
    settings = {"reg_scale": 4.0, "up": 0.5}
    compare(
        benchmark,
        lambda edges: fgl_loss(edges, references, truths, owners, iou, **settings),
        lambda edges: loss_reference.fgl_loss_reference(edges, references, truths, owners, iou, **settings),
        torch.randn(LAYERS, images, QUERIES, 4, 33, device="cuda"),
        f"fgl_loss B={images}",
    )


@pytest.mark.parametrize("images", [16, 64])
def test_ddf_loss(benchmark, images):
    _, _, owners = some(images)
    confidence = torch.rand(images, QUERIES, device="cuda")
    iou = torch.rand(LAYERS, images, QUERIES, device="cuda")
    compare(
        benchmark,
        lambda edges: ddf_loss(edges, confidence, owners, iou),
        lambda edges: loss_reference.ddf_loss_reference(edges, confidence, owners, iou),
        torch.randn(LAYERS, images, QUERIES, 4, 33, device="cuda"),
        f"ddf_loss B={images}",
    )
