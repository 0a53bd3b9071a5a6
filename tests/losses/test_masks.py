"""Mask costs and losses at points: right masks cost nothing, wrong ones do, and nothing else is touched."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor

from detrx.errors import ConfigError
from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.losses.masks import look_up, mask_cost, mask_losses
from detrx.tensors import Outputs, Targets

CONFIG = LossConfig(mask_points=256)
COUNTS = torch.tensor([3, 1], dtype=torch.int32)


def scene() -> Targets:
    """Rectangles on a 64 x 64 canvas, three in the first image and one in the second."""
    corners = torch.tensor(
        [[[4, 4, 20, 24], [30, 8, 60, 28], [10, 36, 40, 60]], [[16, 16, 48, 48], [0] * 4, [0] * 4]]
    )
    masks = torch.zeros(2, 3, 64, 64, dtype=torch.bool)
    for image, many in enumerate(COUNTS.tolist()):
        for at in range(many):
            x0, y0, x1, y1 = corners[image, at].tolist()
            masks[image, at, y0:y1, x0:x1] = True
    unit = corners / 64
    boxes = torch.cat([(unit[..., :2] + unit[..., 2:]) / 2, unit[..., 2:] - unit[..., :2]], -1)
    return Targets(boxes, torch.zeros(2, 3, dtype=torch.int64), COUNTS, masks)


def perfect(targets: Targets, *, layers: int = 2, sure: float = 12.0) -> tuple[Tensor, Tensor]:
    """Embeddings (L, B, Q = 5, E) and pixels (B, E, 16, 16): query q draws the mask of target 3 - q, q = 1, 2, 3."""
    assert targets.masks is not None
    small = targets.masks[..., 2::4, 2::4].float()
    pixels = torch.cat([small * 2 - 1, torch.ones(2, 1, 16, 16)], 1) * sure
    embeddings = torch.zeros(layers, 2, 5, 4)
    embeddings[:, :, [1, 2, 3], [2, 1, 0]] = 1
    embeddings[:, :, [0, 4], 3] = -1  # draw nothing
    return embeddings, pixels


def test_the_right_mask_is_the_cheapest() -> None:
    targets = scene()
    cost = mask_cost(*perfect(targets), targets, config=CONFIG)
    assert cost.shape == (2, 2, 3, 5)
    assert cost[0, 0].argmin(1).tolist() == [3, 2, 1]
    assert int(cost[1, 1, 0].argmin()) == 3
    assert float(cost[0, 0].amin()) < 0.6
    assert float(cost.amin()) >= 0


def test_cost_is_the_loss_written_out() -> None:
    """At the same points, cross-entropy and Dice of each pair."""
    torch.manual_seed(0)
    targets = scene()
    embeddings, pixels = torch.randn(1, 2, 5, 4), torch.randn(2, 4, 1, 1)  # the same logit everywhere
    cost = mask_cost(embeddings, pixels, targets, config=replace(CONFIG, dice_cost=0.0))
    logits = torch.einsum("bqe,be->bq", embeddings[0], pixels[..., 0, 0])
    torch.manual_seed(1)
    again = mask_cost(embeddings, pixels, targets, config=replace(CONFIG, dice_cost=0.0))
    for found in (cost, again):
        # With share s of points in a mask: softplus(x) - s * x, so that costs of two queries give s.
        x = logits[0]
        share = (torch.nn.functional.softplus(x) - found[0, 0, 0] / 5) / x
        assert float(share.max() - share.min()) < 1e-4
        assert 0 < float(share.mean()) < 1


def match_of(targets: Targets, layers: int) -> Tensor:
    found = torch.tensor([[3, 2, 1], [3, -1, -1]], dtype=torch.int32)
    return found.expand(layers, -1, -1)


def test_matched_masks_learn_and_others_do_not() -> None:
    targets = scene()
    embeddings, pixels = perfect(targets)
    embeddings.requires_grad_()
    normaliser = torch.tensor(4.0)
    good = mask_losses(
        embeddings, pixels, targets, match_of(targets, 2), config=CONFIG, normaliser=normaliser
    )
    wrong = match_of(targets, 2).roll(1, 2)
    bad = mask_losses(embeddings, pixels, targets, wrong, config=CONFIG, normaliser=normaliser)
    assert set(good) == {"mask", "dice"}
    for name in good:
        assert good[name].shape == (2,)
        assert float(good[name].detach().max()) < 0.3 * float(bad[name].detach().min())
    (bad["mask"].sum() + bad["dice"].sum()).backward()
    assert embeddings.grad is not None
    unmatched = torch.ones(2, 5, dtype=torch.bool)
    for image in range(2):
        unmatched[image, [q for q in wrong[0, image].tolist() if q >= 0]] = False
    assert not embeddings.grad[:, unmatched].any()
    assert embeddings.grad[:, ~unmatched].abs().sum(-1).amin() > 0


def test_descent_draws_the_masks() -> None:
    torch.manual_seed(0)
    targets = scene()
    assert targets.masks is not None
    embeddings = torch.randn(1, 2, 5, 8).requires_grad_()
    pixels = torch.randn(2, 8, 16, 16).requires_grad_()
    optimiser = torch.optim.Adam([embeddings, pixels], lr=0.2)
    for _ in range(40):
        found = mask_losses(
            embeddings, pixels, targets, match_of(targets, 1), config=CONFIG, normaliser=torch.tensor(4.0)
        )
        optimiser.zero_grad()
        (found["mask"] + found["dice"]).sum().backward()
        optimiser.step()
    drawn = torch.einsum("qe,ehw->qhw", embeddings[0, 0, [3, 2, 1]], pixels[0]) > 0
    truth = targets.masks[0, :, 2::4, 2::4]
    overlap = (drawn & truth).sum((1, 2)) / (drawn | truth).sum((1, 2))
    assert float(overlap.min()) > 0.85


def test_no_objects_at_all_cost_nothing() -> None:
    targets = scene()
    empty = Targets(targets.boxes * 0, targets.labels, COUNTS * 0, torch.zeros_like(targets.masks))
    embeddings, pixels = (t.requires_grad_() for t in perfect(targets))
    none = torch.full((2, 2, 3), -1, dtype=torch.int32)
    found = mask_losses(embeddings, pixels, empty, none, config=CONFIG, normaliser=torch.tensor(1.0))
    total = found["mask"].sum() + found["dice"].sum()
    total.backward()
    assert float(total.detach()) == 0
    assert mask_cost(embeddings, pixels, empty, config=CONFIG).isfinite().all()


def test_points_are_looked_up_where_they_are() -> None:
    masks = torch.zeros(1, 1, 4, 8, dtype=torch.bool)
    masks[0, 0, 1, 6] = True
    points = torch.tensor([[6.5 / 8, 1.5 / 4], [6.99 / 8, 1.99 / 4], [7.01 / 8, 1.5 / 4], [1.0, 1.0]])
    assert look_up(masks, points[None, None])[0, 0].tolist() == [1, 1, 0, 0]


def outputs(targets: Targets, **changes: Any) -> Outputs:
    embeddings, pixels = perfect(targets)
    boxes = targets.boxes[:, [0, 2, 1, 0, 0]].expand(2, -1, -1, -1).clone()
    found = Outputs(torch.zeros(2, 2, 5, 1), boxes + 0.01, embeddings=embeddings, pixels=pixels)
    return replace(found, **changes)


def test_masks_decide_between_equal_boxes() -> None:
    """Queries 0 and 3 have the same box; only 3 draws the mask."""
    targets = scene()
    losses = Criterion(CONFIG, 1)(outputs(targets), targets)
    assert {"mask", "dice", "mask_aux0", "dice_aux0", "mal", "l1", "giou"} <= set(losses.terms)
    swapped = outputs(targets, embeddings=perfect(targets)[0][:, :, [0, 1, 2, 4, 3]])
    worse = Criterion(CONFIG, 1)(swapped, targets)
    assert float(losses.terms["dice"]) < 0.5
    torch.testing.assert_close(worse.terms["dice"], losses.terms["dice"], atol=0.15, rtol=0)


def test_a_model_with_masks_needs_masks() -> None:
    targets = scene()
    with pytest.raises(ConfigError, match="open the data set with masks=True"):
        Criterion(CONFIG, 1)(outputs(targets), replace(targets, masks=None))
    with pytest.raises(ConfigError, match="mask_points"):
        LossConfig(mask_points=3)
