"""The references of the losses against torch's and torchvision's own, pair by pair, and their gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F
from torchvision.ops import (
    complete_box_iou_loss,
    distance_box_iou_loss,
    generalized_box_iou_loss,
    sigmoid_focal_loss,
)

from detrx.ops.loss_reference import (
    box_loss_reference,
    cross_entropy_reference,
    ddf_loss_reference,
    fgl_loss_reference,
    focal_loss_reference,
)

LAYERS, BATCH, QUERIES, CLASSES, TARGETS = 2, 3, 7, 4, 5
COUNTS = (3, 0, 5)


def scene(*, seed=0, dtype=torch.float64):
    """Boxes, truths, labels and owners in which a target has no, one or two queries."""
    g = torch.Generator().manual_seed(seed)
    boxes = torch.rand(LAYERS, BATCH, QUERIES, 4, generator=g, dtype=dtype) * 0.4 + 0.2
    truths = torch.rand(BATCH, TARGETS, 4, generator=g, dtype=dtype) * 0.4 + 0.2
    labels = torch.randint(CLASSES, (BATCH, TARGETS), generator=g)
    owners = torch.full((LAYERS, BATCH, QUERIES), -1, dtype=torch.int32)
    for image, count in enumerate(COUNTS):
        for layer in range(LAYERS if count else 0):
            places = torch.randperm(QUERIES, generator=g)[:4]
            owners[layer, image, places] = torch.randint(count, (4,), generator=g, dtype=torch.int32)
    return boxes, truths, labels, owners, g


def owned_pairs(layer, boxes, truths, owners):
    image, query = (owners[layer] >= 0).nonzero(as_tuple=True)
    return boxes[layer, image, query], truths[image, owners[layer, image, query].long()]


def corners(box):
    return torch.cat((box[:, :2] - box[:, 2:] / 2, box[:, :2] + box[:, 2:] / 2), -1)


@pytest.mark.parametrize(
    ("kind", "plain"),
    [
        ("giou", generalized_box_iou_loss),
        ("diou", distance_box_iou_loss),
        ("ciou", complete_box_iou_loss),
    ],
)
def test_boxes_against_torchvision(kind, plain):
    boxes, truths, _, owners, _ = scene()
    boxes.requires_grad_()
    l1, overlap, iou = box_loss_reference(boxes, truths, owners, kind=kind)
    for layer in range(LAYERS):
        ours, theirs = owned_pairs(layer, boxes, truths, owners)
        torch.testing.assert_close(l1[layer], (ours - theirs).abs().sum())
        wanted = plain(corners(ours), corners(theirs), reduction="sum", eps=0.0)
        # complete_box_iou_loss keeps an epsilon of 1e-7 whatever it is told.
        close = {"rtol": 1e-5, "atol": 1e-6} if kind == "ciou" else {}
        torch.testing.assert_close(overlap[layer], wanted, **close)
        gradients = [torch.autograd.grad(x, boxes, retain_graph=True)[0] for x in (overlap[layer], wanted)]
        torch.testing.assert_close(*gradients, **close)
    assert not iou.requires_grad
    assert (iou[owners < 0] == 0).all()
    halved = box_loss_reference(boxes, truths, owners, kind=kind, normaliser=torch.tensor(2.0))
    torch.testing.assert_close(halved[1], overlap / 2)


@pytest.mark.parametrize("gamma", [2.0, 1.5])
def test_focal_against_torchvision(gamma):
    boxes, _, labels, owners, g = scene()
    logits = torch.randn(*boxes.shape[:3], CLASSES, generator=g, dtype=torch.float64)
    hot = torch.zeros_like(logits)
    for layer, image, query in (owners >= 0).nonzero().tolist():
        hot[layer, image, query, labels[image, owners[layer, image, query]]] = 1
    wanted = sigmoid_focal_loss(logits, hot, gamma=gamma).sum((1, 2, 3))
    torch.testing.assert_close(focal_loss_reference(logits, labels, owners, gamma=gamma), wanted)


@pytest.mark.parametrize("kind", ["varifocal", "mal"])
def test_quality_losses_against_one_hot_targets(kind):
    boxes, _, labels, owners, g = scene()
    logits = 3 * torch.randn(*boxes.shape[:3], CLASSES, generator=g, dtype=torch.float64)
    logits.requires_grad_()
    quality = torch.rand(owners.shape, generator=g, dtype=torch.float64)
    hot, score = torch.zeros_like(logits), torch.zeros_like(logits)
    for layer, image, query in (owners >= 0).nonzero().tolist():
        cell = layer, image, query, labels[image, owners[layer, image, query]]
        hot[cell], score[cell] = 1, quality[layer, image, query]
    p = logits.detach().sigmoid() ** 1.5
    if kind == "varifocal":
        weight, wanted = 0.75 * p * (1 - hot) + score, score
    else:
        weight, wanted = p * (1 - hot) + hot, score**1.5
    plain = F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="none").sum((1, 2, 3))
    found = focal_loss_reference(logits, labels, owners, kind=kind, alpha=0.75, gamma=1.5, quality=quality)
    torch.testing.assert_close(found, plain)
    torch.testing.assert_close(*(torch.autograd.grad(x.sum(), logits)[0] for x in (found, plain)))
    with pytest.raises(ValueError, match="must have quality"):
        focal_loss_reference(logits, labels, owners, kind=kind)


def test_cross_entropy_against_torch():
    boxes, _, labels, owners, g = scene()
    logits = torch.randn(*boxes.shape[:3], CLASSES + 1, generator=g, dtype=torch.float64)
    weight = torch.ones(CLASSES + 1, dtype=torch.float64)
    weight[-1] = 0.1
    found = cross_entropy_reference(logits, labels, owners)
    for layer in range(LAYERS):
        wanted = torch.full((BATCH, QUERIES), CLASSES)
        for image, query in (owners[layer] >= 0).nonzero().tolist():
            wanted[image, query] = labels[image, owners[layer, image, query]]
        plain = F.cross_entropy(logits[layer].flatten(0, 1), wanted.flatten(), weight)
        torch.testing.assert_close(found[layer], plain)


def test_localisation_teaches_the_two_bins_around_an_edge():
    boxes, truths, _, owners, g = scene()
    edges = torch.randn(*boxes.shape, 33, generator=g, dtype=torch.float64)
    iou = torch.rand(owners.shape, generator=g, dtype=torch.float64)
    found = fgl_loss_reference(edges, boxes, truths, owners, iou, reg_scale=4.0, up=0.5)
    half = torch.tensor([(3.0 ** (2 * i / 30)) - 1 for i in range(1, 16)], dtype=torch.float64)
    offsets = torch.cat(
        [-half.new_tensor([4.0]), -half.flip(0), half.new_zeros(1), half, half.new_tensor([4.0])]
    )
    for layer in range(LAYERS):
        image, query = (owners[layer] >= 0).nonzero(as_tuple=True)
        seen, truth = owned_pairs(layer, boxes, truths, owners)
        inside, outside = corners(truth), corners(seen)
        # How far each true edge lies outside the reference's, in sizes of it over reg_scale.
        moved = (inside - outside) * torch.tensor([-1, -1, 1, 1]) * 4 / seen[:, 2:].repeat(1, 2)
        total = 0.0
        for pair in range(len(image)):
            for edge in range(4):
                where = float(moved[pair, edge].clamp(-4, 4))
                left = min(int((offsets <= where).sum()) - 1, 31)
                share = (where - offsets[left]) / (offsets[left + 1] - offsets[left])
                logs = edges[layer, image[pair], query[pair], edge].log_softmax(-1)
                cost = -(logs[left] * (1 - share) + logs[left + 1] * share)
                total += float(cost * iou[layer, image[pair], query[pair]])
        assert float(found[layer]) == pytest.approx(total, rel=1e-9)


def test_gradients():
    boxes, truths, labels, owners, g = scene()
    quality = torch.rand(owners.shape, generator=g, dtype=torch.float64)
    logits = torch.randn(*boxes.shape[:3], CLASSES + 1, generator=g, dtype=torch.float64)
    edges = torch.randn(*boxes.shape, 9, generator=g, dtype=torch.float64)
    normaliser = torch.tensor(3.0, dtype=torch.float64)
    for kind in ("iou", "giou", "diou"):  # ciou's weight is held fast, which numbers cannot know

        def box(x, kind=kind):
            return box_loss_reference(x, truths, owners, kind=kind, normaliser=normaliser)[:2]

        assert torch.autograd.gradcheck(box, boxes.requires_grad_())
    logits.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: focal_loss_reference(x, labels, owners), logits)
    assert torch.autograd.gradcheck(lambda x: cross_entropy_reference(x, labels, owners), logits)

    def fgl(x):
        return fgl_loss_reference(x, boxes, truths, owners, quality, reg_scale=4.0, up=0.5)

    assert torch.autograd.gradcheck(fgl, edges.requires_grad_())
    confidence, last = quality[0], edges[-1:].detach() + 0.3

    def ddf(x):  # the last layer teaches, and takes no gradient
        three = torch.cat((x, last))
        return ddf_loss_reference(three, confidence, owners[:1], torch.cat((quality, quality[:1])))

    assert torch.autograd.gradcheck(ddf, edges)


@pytest.mark.parametrize("most", [0, 2])
def test_nothing_to_own(most):
    boxes = torch.rand(2, 1, 3, 4, requires_grad=True)
    truths, labels = torch.zeros(1, most, 4), torch.zeros(1, most, dtype=torch.int64)
    owners = torch.full((1, 3), -1, dtype=torch.int32)
    logits, edges = torch.randn(2, 1, 3, 4), torch.randn(2, 1, 3, 4, 9)
    l1, overlap, iou = box_loss_reference(boxes, truths, owners, kind="ciou")
    fgl = fgl_loss_reference(edges, boxes, truths, owners, iou, reg_scale=4.0, up=0.5)
    for zero in (l1, overlap, fgl):
        assert zero.tolist() == [0, 0]
    (l1 + overlap).sum().backward()
    assert boxes.grad.eq(0).all()
    plain = sigmoid_focal_loss(logits, torch.zeros_like(logits)).sum((1, 2, 3))
    torch.testing.assert_close(focal_loss_reference(logits, labels, owners), plain)
    background = -logits.log_softmax(-1)[..., -1].mean((1, 2))
    torch.testing.assert_close(cross_entropy_reference(logits, labels, owners), background)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_sick_query_that_owns_nothing_is_not_read(dtype):
    boxes, truths, _, owners, _ = scene(dtype=torch.float32)
    boxes = boxes.to(dtype)
    boxes[owners < 0] = float("nan")
    boxes.requires_grad_()
    l1, overlap, iou = box_loss_reference(boxes, truths, owners)
    edges = torch.randn(*boxes.shape, 9)
    fgl = fgl_loss_reference(edges, boxes, truths, owners, iou, reg_scale=4.0, up=0.5)
    total = (l1 + overlap + fgl).sum()
    total.backward()
    assert total.dtype == torch.float32
    assert total.isfinite()
    assert boxes.grad.isfinite().all()
    assert (boxes.grad[owners < 0] == 0).all()
