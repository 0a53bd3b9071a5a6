"""The losses of DETR's masks: as transformers has them, and a model that learns two pictures by them."""

from __future__ import annotations

import pytest
import torch
from transformers.loss.loss_for_object_detection import dice_loss, sigmoid_focal_loss

from detrx.errors import ConfigError
from detrx.losses.detr import DetrCriterion
from detrx.losses.mask_terms import mask_terms
from detrx.models.config import DetrConfig
from detrx.models.zoo import build
from detrx.tensors import Outputs, Targets


def problem():
    """Two pictures with two and one objects; the second object of the first has no query."""
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(2, 5, 6, 8, generator=g).requires_grad_()
    masks = torch.rand(2, 2, 24, 32, generator=g) > 0.6
    targets = Targets(
        torch.rand(2, 2, 4, generator=g),
        torch.tensor([[0, 1], [1, 0]]),
        torch.tensor([2, 1], dtype=torch.int32),
        masks,
    )
    owners = torch.full((2, 5), -1, dtype=torch.int32)
    owners[0, 3], owners[1, 1] = 0, 0
    return logits, targets, owners


def test_terms_and_gradients_are_those_of_transformers():
    logits, targets, owners = problem()
    found = mask_terms(logits, targets, owners, normaliser=torch.tensor(3.0))
    chosen = torch.stack([logits[0, 3], logits[1, 1]])[:, None]
    scaled = torch.nn.functional.interpolate(chosen, size=(24, 32), mode="bilinear", align_corners=False)
    scaled, truth = scaled[:, 0].flatten(1), targets.masks[:, 0].flatten(1).float()
    expected = {"mask": sigmoid_focal_loss(scaled, truth, 3), "dice": dice_loss(scaled, truth, 3)}
    for name, value in expected.items():
        torch.testing.assert_close(found[name], value)
        ours, theirs = (torch.autograd.grad(v, logits, retain_graph=True)[0] for v in (found[name], value))
        torch.testing.assert_close(ours, theirs)
        assert ours[0, 0].abs().max() == 0


def test_pictures_without_objects_cost_nothing():
    logits, targets, owners = problem()
    found = mask_terms(logits, targets, torch.full_like(owners, -1), normaliser=torch.tensor(1.0))
    (found["mask"] + found["dice"]).backward()
    assert logits.grad is not None
    assert not logits.grad.any()


def test_targets_must_have_masks():
    logits, targets, owners = problem()
    bare = Targets(targets.boxes, targets.labels, targets.counts)
    with pytest.raises(ConfigError, match="targets without"):
        mask_terms(logits, bare, owners, normaliser=torch.tensor(1.0))


def test_the_criterion_adds_them_for_the_last_layer():
    logits, targets, _ = problem()
    g = torch.Generator().manual_seed(1)
    outputs = Outputs(
        torch.randn(3, 2, 5, 3, generator=g), torch.rand(3, 2, 5, 4, generator=g), masks=logits[None]
    )
    plain = DetrCriterion(2)(Outputs(outputs.logits, outputs.boxes), targets)
    found = DetrCriterion(2, mask_weight=2.0, dice_weight=3.0)(outputs, targets)
    assert set(found.terms) - set(plain.terms) == {"mask", "dice"}
    torch.testing.assert_close(found.total, plain.total + found.terms["mask"] + found.terms["dice"])
    once = DetrCriterion(2)(outputs, targets)
    torch.testing.assert_close(found.terms["dice"], 3 * once.terms["dice"])


def test_two_pictures_are_learnt_with_a_frozen_detector():
    """The second stage: the detector stays, its masks come."""
    torch.manual_seed(0)
    config = DetrConfig(
        backbone="resnet18",
        hidden=32,
        heads=8,
        encoder_layers=1,
        decoder_layers=1,
        feedforward=32,
        queries=4,
        dropout=0.0,
        masks=True,
    )
    model = build(config, classes=2)
    pixels = torch.zeros(2, 3, 64, 64)
    masks = torch.zeros(2, 1, 64, 64, dtype=torch.bool)
    masks[0, 0, 8:40, 8:40], masks[1, 0, 24:56, 16:60] = True, True
    pixels[masks.expand(-1, 3, -1, -1)] = 2.0
    boxes = torch.tensor([[[0.375, 0.375, 0.5, 0.5]], [[0.59, 0.625, 0.69, 0.5]]])
    targets = Targets(boxes, torch.zeros(2, 1, dtype=torch.int64), torch.ones(2, dtype=torch.int32), masks)
    model.freeze_detector()
    learning = [p for p in model.parameters() if p.requires_grad]
    before = {k: v.clone() for k, v in model.state_dict().items()}
    optimizer = torch.optim.AdamW(learning, lr=3e-3)
    criterion, costs = DetrCriterion(2), []
    for _ in range(40):
        losses = criterion(model(pixels), targets)
        optimizer.zero_grad()
        losses.total.backward()
        optimizer.step()
        costs.append(float(losses.terms["mask"] + losses.terms["dice"]))
    assert costs[-1] < 0.5 * costs[0]
    changed = {k.split(".")[0] for k, v in model.state_dict().items() if not torch.equal(v, before[k])}
    assert changed == {"mask_head", "bbox_attention"}
