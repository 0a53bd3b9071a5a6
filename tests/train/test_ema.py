from __future__ import annotations

import torch
from torch import nn

from detrx.train.ema import Ema


def _model() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))


def test_the_average_is_the_weighted_sum() -> None:
    model = _model()
    ema = Ema(model)
    before = model[0].weight.detach().clone()
    with torch.no_grad():
        model[0].weight += 1
        model[1].running_mean += 4
        model[1].num_batches_tracked += 7
    ema.update(model, 0.75)
    torch.testing.assert_close(ema.model[0].weight, before + 0.25)
    torch.testing.assert_close(ema.model[1].running_mean, torch.ones(3))
    assert ema.model[1].num_batches_tracked == 7


def test_without_decay_it_is_the_model() -> None:
    model = _model()
    ema = Ema(model)
    with torch.no_grad():
        model[0].weight += 1
    ema.update(model, 0.0)
    assert torch.equal(ema.model[0].weight, model[0].weight)


def test_weights_that_modules_share_move_once() -> None:
    class Shared(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 2)
            self.two = self.one

    model = Shared()
    ema = Ema(model)
    before = model.one.weight.detach().clone()
    with torch.no_grad():
        model.one.weight += 1
    ema.update(model, 0.5)
    torch.testing.assert_close(ema.model.two.weight, before + 0.5)


def test_it_does_not_learn_and_does_not_count() -> None:
    ema = Ema(_model())
    assert not ema.model.training
    assert not any(p.requires_grad for p in ema.model.parameters())


def test_spoilt_statistics_are_healed() -> None:
    model = _model()
    ema = Ema(model)
    model(torch.full((4, 3), float("nan")))
    assert not model[1].running_mean.isfinite().all()
    with torch.no_grad():
        model[1].running_var.fill_(2.0)
    ema.heal(model)
    assert torch.equal(model[1].running_mean, torch.zeros(3))
    assert torch.equal(model[1].running_var, torch.full((3,), 2.0))  # what is finite stays
