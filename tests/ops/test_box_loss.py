"""The box losses against torchvision's, on hits, and on boxes that are none."""

from __future__ import annotations

import math

import pytest
import torch
from torchvision.ops import complete_box_iou_loss, distance_box_iou_loss, generalized_box_iou_loss

from detrx.boxes import iou_giou, to_corners
from detrx.ops.box_loss import BoxLoss, box_loss
from detrx.ops.loss_reference import box_loss_reference

KINDS = ("iou", "giou", "diou", "ciou")
NOBODY = -1


def boxes(*shape, seed):
    g = torch.Generator().manual_seed(seed)
    return torch.rand(*shape, 4, generator=g) * 0.5 + 0.1


def one_to_one(ours, truths, **settings):
    """Each of N boxes against its own truth, in one image."""
    owners = torch.arange(len(ours), dtype=torch.int32)
    return box_loss(ours[None, None], truths[None], owners[None], **settings)


def gradients(found, leaf):
    return torch.autograd.grad(found, leaf, retain_graph=True)[0]


@pytest.mark.parametrize(
    ("kind", "theirs"),
    [
        ("giou", generalized_box_iou_loss),
        ("diou", distance_box_iou_loss),
        ("ciou", complete_box_iou_loss),
    ],
)
def test_value_and_gradient_equal_torchvision(kind, theirs):
    ours, truths = boxes(500, seed=0).requires_grad_(), boxes(500, seed=1)
    found = one_to_one(ours, truths, kind=kind)
    wanted = theirs(to_corners(ours), to_corners(truths), reduction="sum", eps=0.0)
    torch.testing.assert_close(found.overlap[0], wanted, rtol=2e-6, atol=0)
    close = {"rtol": 1e-4, "atol": 1e-4}  # torchvision's ciou has an epsilon of 1e-7
    torch.testing.assert_close(gradients(found.overlap, ours), gradients(wanted, ours), **close)
    distance = (ours - truths).abs().sum()
    torch.testing.assert_close(found.l1[0], distance, rtol=2e-6, atol=0)
    assert torch.equal(gradients(found.l1, ours), gradients(distance, ours))


def test_iou_is_that_of_the_pairs_and_carries_no_gradient():
    ours, truths = boxes(2, 3, 9, seed=0).requires_grad_(), boxes(3, 4, seed=1)
    owners = torch.full((3, 9), NOBODY)
    owners[0, 2], owners[2, 8] = 3, 0
    found = box_loss(ours, truths, owners)
    assert isinstance(found, BoxLoss)
    assert not found.iou.requires_grad
    wanted = torch.zeros(2, 3, 9)
    for image, query, target in ((0, 2, 3), (2, 8, 0)):
        pair = to_corners(ours[:, image, query].detach()), to_corners(truths[image, target])
        wanted[:, image, query] = iou_giou(*pair)[0]
    torch.testing.assert_close(found.iou, wanted)


@pytest.mark.parametrize("kind", KINDS)
def test_a_hit_costs_nothing_and_edges_that_meet_share_the_gradient(kind):
    truths = boxes(8, seed=0)
    ours = truths.clone()
    ours[4:, 0] += 0.03
    ours[6:, 2] *= 0.5
    ours.requires_grad_()
    found = one_to_one(ours, truths, kind=kind)
    slope = gradients(found.overlap, ours)
    wanted = box_loss_reference(
        ours[None, None], truths[None], torch.arange(8)[None], kind=kind, normaliser=None
    )
    torch.testing.assert_close(slope, gradients(wanted[1], ours), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(
        one_to_one(truths, truths, kind=kind).overlap, torch.zeros(1), atol=1e-5, rtol=0
    )
    if kind == "giou":
        torch.testing.assert_close(slope[:4, :2], torch.zeros(4, 2), atol=1e-4, rtol=0)
    assert gradients(found.l1, ours)[:4].eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.25, 0.5, 2.0])
def test_one_edge_exactly_on_the_truths(kind, share):
    truths = torch.tensor([[0.5, 0.5, 0.25, 0.25]]).repeat(4, 1)
    ours = truths.clone()
    for i, (axis, way) in enumerate([(0, 1), (0, -1), (1, 1), (1, -1)]):
        ours[i, 2 + axis] *= share  # in powers of two, so that the edges meet to the bit
        ours[i, axis] += way * (0.125 - 0.125 * share)
    ours.requires_grad_()
    found = one_to_one(ours, truths, kind=kind)
    wanted = box_loss_reference(ours[None, None], truths[None], torch.arange(4)[None], kind=kind)
    torch.testing.assert_close(
        gradients(found.overlap, ours), gradients(wanted[1], ours), rtol=1e-5, atol=1e-5
    )


NONE = [
    [0.5, 0.5, 0.0, 0.0],
    [0.5, 0.5, 0.2, 0.0],
    [0.5, 0.5, 0.0, 0.2],
    [0.5, 0.5, -0.2, 0.2],
    [0.5, 0.5, -0.2, -0.2],
    [0.5, 0.5, 1e-30, 1e-30],
    [1e20, -1e20, 1.0, 1.0],
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_boxes_without_an_area_give_no_nan(kind, dtype):
    ours = torch.tensor(NONE).repeat_interleave(len(NONE), 0).to(dtype).requires_grad_()
    truths = torch.tensor(NONE).repeat(len(NONE), 1)
    fine = (ours.abs() < 1e10).all(-1) & (truths.abs() < 1e10).all(-1)
    found = one_to_one(ours[fine], truths[fine], kind=kind)
    assert found.overlap.isfinite().all()
    assert gradients(found.overlap, ours).isfinite().all()
    same = (ours[fine] == truths[fine].to(dtype)).all(-1)
    nothing = ours[fine].detach()[same][:1]
    leaf = nothing.clone().requires_grad_()
    assert gradients(one_to_one(leaf, nothing.float(), kind=kind).overlap, leaf).eq(0).all()


@pytest.mark.parametrize("kind", KINDS)
def test_a_flat_box_is_drawn_to_its_truth(kind):
    ours = torch.tensor([[0.45, 0.5, 1e-5, 0.3]]).requires_grad_()
    truth = torch.tensor([[0.5, 0.5, 0.2, 0.2]])
    found = gradients(one_to_one(ours, truth, kind=kind).overlap, ours)
    wanted = box_loss_reference(ours[None, None], truth[None], torch.zeros(1, 1), kind=kind)[1]
    torch.testing.assert_close(found, gradients(wanted, ours), rtol=1e-4, atol=1e-4)


def test_truths_of_padding_are_not_read():
    ours, truths = boxes(1, 1, 5, seed=0), boxes(1, 4, seed=1)
    owners = torch.tensor([[0, -1, 1, -1, -1]])
    wanted = box_loss(ours, truths, owners)
    truths[:, 2:] = math.nan
    assert all(torch.equal(a, b) for a, b in zip(box_loss(ours, truths, owners), wanted))


def test_an_unknown_kind_is_refused():
    with pytest.raises(ValueError, match=r"\[box_loss\] kind must be one of iou, giou, diou, ciou, got 'l2'"):
        box_loss(boxes(1, 1, 2, seed=0), boxes(1, 1, seed=1), torch.zeros(1, 2), kind="l2")
