"""The sigmoid class losses against torchvision's, at extreme logits, and what they refuse."""

from __future__ import annotations

import pytest
import torch
from torchvision.ops import sigmoid_focal_loss

from detrx.ops.focal_loss import focal_loss
from detrx.ops.loss_reference import focal_loss_reference


def problem(*, stages=2, images=3, queries=50, classes=91):
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(stages, images, queries, classes, generator=g) * 3 - 2
    labels = torch.randint(classes, (images, 6), generator=g)
    owners = torch.full((stages, images, queries), -1, dtype=torch.int32)
    owners[:, :, ::9] = torch.arange(6, dtype=torch.int32)
    return logits.requires_grad_(), labels, owners


@pytest.mark.parametrize("gamma", [0.0, 0.5, 1.0, 2.0, 3.0])
@pytest.mark.parametrize("alpha", [0.0, 0.25, 1.0])
def test_value_and_gradient_equal_torchvision(alpha, gamma):
    logits, labels, owners = problem()
    hot = torch.zeros_like(logits)
    stage, image, query = (owners >= 0).nonzero(as_tuple=True)
    hot[stage, image, query, labels[image, owners[stage, image, query].long()]] = 1
    wanted = sigmoid_focal_loss(logits, hot, alpha=alpha, gamma=gamma).sum((1, 2, 3))
    found = focal_loss(logits, labels, owners, alpha=alpha, gamma=gamma)
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=1e-5)
    slopes = [torch.autograd.grad(sums.sum(), logits)[0] for sums in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("kind", ["focal", "varifocal", "mal"])
@pytest.mark.parametrize("gamma", [0.5, 1.5, 2.0])
def test_extreme_logits_stay_finite(kind, gamma):
    logits = torch.tensor([0.0, 1e-30, 10.0, 30.0, 60.0, 88.0, 90.0, 104.0, 1e4, 1e30])
    logits = torch.cat((logits, -logits)).reshape(1, 1, 20, 1).repeat(1, 1, 1, 20).clone()
    owners = torch.zeros(1, 20)
    owners[:, 1::2] = -1
    logits.requires_grad_()
    settings = {"kind": kind, "gamma": gamma, "quality": torch.full((1, 1, 20), 0.6)}
    labels = torch.tensor([[3]])
    for query in range(20):
        one = logits[:, :, query : query + 1], labels, owners[:, query : query + 1]
        quality = {**settings, "quality": settings["quality"][:, :, :1]}
        found, wanted = focal_loss(*one, **quality), focal_loss_reference(*one, **quality)
        torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-10)
    slope = torch.autograd.grad(focal_loss(logits, labels, owners, **settings).sum(), logits)[0]
    assert slope.isfinite().all()


def test_long_sums_stay_exact():
    logits = torch.full((1, 1, 20000, 91), -2.0)
    found = focal_loss(logits, torch.zeros(1, 1, dtype=torch.long), torch.full((1, 20000), -1))
    one = focal_loss_reference(
        logits[:, :, :1, :1].double(), torch.zeros(1, 1, dtype=torch.long), torch.tensor([[-1]])
    )
    torch.testing.assert_close(found.double(), one * 20000 * 91, rtol=5e-7, atol=0)


def test_quality_is_not_read_where_nothing_is_owned():
    logits, labels, owners = problem()
    quality = torch.rand(owners.shape, generator=torch.Generator().manual_seed(1))
    wanted = focal_loss(logits, labels, owners, kind="mal", quality=quality)
    quality[owners < 0] = torch.nan
    assert torch.equal(focal_loss(logits, labels, owners, kind="mal", quality=quality), wanted)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"kind": "dice"}, "kind must be one of focal, varifocal, mal, got 'dice'"),
        ({"kind": "mal"}, "mal must have quality, got None"),
        ({"alpha": -1.0}, "alpha and gamma must be at least 0, got -1.0 and 2.0"),
        ({"gamma": -0.5}, "alpha and gamma must be at least 0, got 0.25 and -0.5"),
    ],
)
def test_settings_that_make_no_sense_are_refused(settings, message):
    with pytest.raises(ValueError, match=rf"\[focal_loss\] {message}"):
        focal_loss(*problem(), **settings)
