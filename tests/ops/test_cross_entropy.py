"""DETR's class loss against torch's own."""

from __future__ import annotations

import math

import pytest
import torch
from torch.nn import functional as F

from detrx.ops.cross_entropy import cross_entropy


def problem(*, stages=3, images=2, queries=40, classes=91, scale=3.0):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(stages, images, queries, classes + 1, generator=g) * scale
    labels = torch.randint(classes, (images, 7), generator=g)
    owners = torch.full((stages, images, queries), -1, dtype=torch.int32)
    for stage in range(stages):
        for image in range(images):
            owners[stage, image, torch.randperm(queries, generator=g)[:7]] = torch.arange(
                7, dtype=torch.int32
            )
    return logits.requires_grad_(), labels, owners


def by_torch(logits, labels, owners, *, no_object=0.1):
    none = logits.shape[-1] - 1
    image = torch.arange(owners.shape[1])[:, None]
    wanted = torch.where(owners >= 0, labels[image, owners.long().clamp(min=0)], none)
    weight = torch.ones(none + 1)
    weight[-1] = no_object
    return torch.stack(
        [F.cross_entropy(x.flatten(0, 1), y.flatten(), weight) for x, y in zip(logits, wanted)]
    )


@pytest.mark.parametrize("no_object", [0.0, 0.1, 1.0])
@pytest.mark.parametrize("scale", [1.0, 40.0])
def test_value_and_gradient_equal_torch(no_object, scale):
    logits, labels, owners = problem(scale=scale)
    found = cross_entropy(logits, labels, owners, no_object=no_object)
    wanted = by_torch(logits, labels, owners, no_object=no_object)
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=1e-6)
    slopes = [torch.autograd.grad(means.sum(), logits)[0] for means in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-8)


def test_a_stage_that_weighs_nothing_costs_nothing():
    logits, labels, owners = problem()
    owners[1] = -1
    found = cross_entropy(logits, labels, owners, no_object=0.0)
    assert found[1] == 0
    slope = torch.autograd.grad(found.sum(), logits)[0]
    assert slope[1].eq(0).all()
    assert slope[0].ne(0).any()


def test_a_class_that_is_ruled_out_costs_the_others_nothing():
    logits, labels, owners = problem(classes=4)
    with torch.no_grad():
        logits[..., 2] = -math.inf
    labels[labels == 2] = 1
    found, wanted = cross_entropy(logits, labels, owners), by_torch(logits, labels, owners)
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=0)
    slopes = [torch.autograd.grad(means.sum(), logits)[0] for means in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-8)


def test_logits_without_a_class_are_refused():
    with pytest.raises(ValueError, match=r"\[cross_entropy\] logits must have a last class"):
        cross_entropy(torch.empty(1, 1, 2, 0), torch.zeros(1, 0, dtype=torch.long), torch.full((1, 2), -1))
