"""D-FINE's localisation loss: where the truth falls among the bins."""

from __future__ import annotations

import math

import pytest
import torch

from detrx.models.distribution import bin_offsets, edges_to_boxes
from detrx.ops.fgl_loss import fgl_loss
from detrx.ops.loss_reference import fgl_loss_reference

BINS = {"reg_scale": 4.0, "up": 0.5}


def one(edges, reference, truth, **bins):
    """One query of one image."""
    return fgl_loss(
        edges[None, None, None],
        torch.tensor(reference)[None, None, None],
        truth[None, None],
        torch.zeros(1, 1),
        torch.ones(1, 1, 1),
        **{**BINS, **bins},
    )


@pytest.mark.parametrize("bins", [4, 8, 32])
def test_an_edge_on_a_bin_is_taught_that_bin(bins):
    offsets = bin_offsets(bins, up=torch.tensor([0.5]), reg_scale=torch.tensor([4.0]))
    reference = torch.tensor([0.5, 0.5, 0.2, 0.1])
    g = torch.Generator().manual_seed(0)
    edges = torch.randn(4, bins + 1, generator=g)
    for bin_ in range(bins + 1):
        truth = edges_to_boxes(reference, offsets[bin_].repeat(4), reg_scale=torch.tensor([4.0]))
        found = one(edges, reference.tolist(), truth)
        wanted = -edges.log_softmax(-1)[:, bin_].sum()
        torch.testing.assert_close(found[0], wanted, rtol=1e-4, atol=1e-4)


def test_a_truth_beyond_the_last_bin_is_taught_the_last():
    edges = torch.randn(4, 9, generator=torch.Generator().manual_seed(0))
    found = one(edges, [0.5, 0.5, 0.01, 0.01], torch.tensor([0.5, 0.5, 0.9, 0.9]))
    torch.testing.assert_close(found[0], -edges.log_softmax(-1)[:, -1].sum())
    found = one(edges, [0.5, 0.5, 0.9, 0.9], torch.tensor([0.5, 0.5, -2.0, -2.0]))
    torch.testing.assert_close(found[0], -edges.log_softmax(-1)[:, 0].sum())


@pytest.mark.parametrize("settings", [{"reg_scale": 8.0}, {"up": 0.25}, {"reg_scale": 2.0, "up": -1.0}])
@pytest.mark.parametrize("bins", [4, 16, 32])
def test_other_bins_equal_the_reference(settings, bins):
    g = torch.Generator().manual_seed(0)
    edges = torch.randn(2, 2, 30, 4, bins + 1, generator=g).requires_grad_()
    references = torch.rand(2, 2, 30, 4, generator=g) * 0.4 + 0.1
    truths = torch.rand(2, 6, 4, generator=g) * 0.4 + 0.1
    owners = torch.arange(30).reshape(1, 30).repeat(2, 1) % 7 - 1
    iou = torch.rand(2, 2, 30, generator=g)
    found, wanted = (
        body(edges, references, truths, owners, iou, **{**BINS, **settings})
        for body in (fgl_loss, fgl_loss_reference)
    )
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=0)
    slopes = [torch.autograd.grad(sums.sum(), edges)[0] for sums in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=2e-6)


@pytest.mark.parametrize("place", range(4))
def test_an_undefined_reference_or_truth_goes_through(place):
    edges, box = torch.zeros(4, 9), [0.5, 0.5, 0.2, 0.2]
    spoiled = [math.nan if i == place else value for i, value in enumerate(box)]
    assert one(edges, spoiled, torch.tensor(box)).isnan()
    assert one(edges, box, torch.tensor(spoiled)).isnan()


@pytest.mark.parametrize("values", [1, 3, 8])
def test_a_number_of_bins_that_is_odd_or_small_is_refused(values):
    with pytest.raises(ValueError, match=rf"R even and >= 4, got {values}"):
        one(torch.zeros(4, values), [0.5] * 4, torch.full((4,), 0.5))
