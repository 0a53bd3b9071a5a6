from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch

from detrx.errors import DeviceError, TrainingError
from detrx.losses.stages import Costs, Losses
from detrx.models.backbone import FrozenBatchNorm
from detrx.tensors import Batch, Targets
from detrx.train import loop
from detrx.train.config import TrainConfig
from detrx.train.loop import (
    BAD_IN_A_ROW,
    MOST_RELOADS,
    Trainer,
    choose_amp,
    in_float32,
    parts,
    repeat_targets,
)
from detrx.train.setup import loss_for, make_model, model_config, seed_everything


def make_trainer(config: TrainConfig, *, device: str = "cpu") -> Trainer:
    seed_everything(config.seed)
    shape = model_config(config)
    model, _ = make_model(config, shape, classes=2)
    return Trainer(
        model,
        config,
        loss=loss_for(config.loss, shape),
        classes=2,
        queries=model.queries_for(config.canvas),
        device=torch.device(device),
    )


def make_batch(counts: tuple[int, ...] = (2, 1)) -> Batch:
    generator = torch.Generator().manual_seed(1)
    most = max(1, *counts)
    places = torch.arange(most) < torch.tensor(counts)[:, None]
    boxes = (0.3 + 0.3 * torch.rand(len(counts), most, 4, generator=generator)) * places[..., None]
    labels = torch.randint(2, (len(counts), most), generator=generator) * places
    pixels = torch.randn(len(counts), 3, 64, 64, generator=generator)
    return Batch(pixels, Targets(boxes, labels, torch.tensor(counts, dtype=torch.int32)))


@pytest.mark.parametrize("head", ["dfine", "rtdetrv2"])
def test_four_pictures_are_learnt_by_heart(
    quick: TrainConfig, monkeypatch: pytest.MonkeyPatch, head: str
) -> None:
    from detrx.models import zoo

    monkeypatch.setitem(zoo.MODELS, "tiny", dataclasses.replace(zoo.MODELS["tiny"], head=head))
    trainer = make_trainer(dataclasses.replace(quick, lr=2e-3, clip=0.0, backbone_lr_ratio=1.0))
    batch = make_batch((2, 1, 1, 2))
    losses = [trainer.step(batch, 0.1 + step / 200).terms for step in range(50)]
    assert losses[0] is not None
    assert losses[-1] is not None
    assert float(losses[-1]["l1"] + losses[-1]["giou"]) < 0.4 * float(losses[0]["l1"] + losses[0]["giou"])
    assert trainer.health.skipped == 0


def test_a_batch_without_objects_teaches_too(quick: TrainConfig) -> None:
    trainer = make_trainer(quick)
    before = [p.detach().clone() for p in trainer.model.parameters()]
    done = trainer.step(make_batch((0, 0)), 0.3)
    assert done.terms is not None
    assert torch.isfinite(done.terms["loss"])
    assert any(not torch.equal(a, b) for a, b in zip(before, trainer.model.parameters()))


def test_parts_of_a_batch_give_the_gradient_of_the_whole(
    quick: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part's loss is a mean over its boxes; the parts together must be a mean over all, empty parts or not."""
    batch = make_batch((2, 0, 1, 3))
    gradients = []
    for accumulate in (1, 3, 4):
        trainer = make_trainer(dataclasses.replace(quick, batch=4, accumulate=accumulate))
        weight = trainer.model.backbone.net.conv_stem.weight

        def losses(part: Batch, _: Any, weight: torch.Tensor = weight) -> Losses:
            total = (weight.sum() * part.targets.boxes.sum()) / part.targets.counts.sum().clamp(min=1)
            return Losses(total, {"l1": total.detach()})

        monkeypatch.setattr(trainer, "_losses", losses)
        terms = trainer._backward(batch, batch.targets.counts)
        gradients.append((weight.grad, terms["l1"]))
    expected = batch.targets.boxes.sum() / 6
    for gradient, term in gradients:
        torch.testing.assert_close(gradient, torch.full_like(gradient, float(expected)))
        torch.testing.assert_close(term, gradients[0][1])


def test_parts_are_as_equal_as_can_be() -> None:
    batch = make_batch((1, 2, 0, 1, 1))
    sizes = [len(part.pixels) for part in parts(batch, 3)]
    assert sizes == [2, 2, 1]
    assert [len(part.pixels) for part in parts(batch, 99)] == [1] * 5


def test_repeated_targets_lie_ahead_of_the_padding() -> None:
    targets = make_batch((2, 1)).targets
    found = repeat_targets(targets, 3)
    assert found.counts.tolist() == [6, 3]
    assert found.labels[0].tolist() == [int(v) for v in targets.labels[0] for _ in range(3)]
    assert found.valid[1].tolist() == [True] * 3 + [False] * 3
    assert torch.equal(found.boxes[1, 2], targets.boxes[1, 0])
    assert repeat_targets(targets, 1) is targets


def test_targets_are_never_repeated_beyond_the_queries(quick: TrainConfig) -> None:
    trainer = make_trainer(dataclasses.replace(quick, repeat=50))
    batch = make_batch((3, 1))
    found = trainer._ready(batch, batch.targets.counts, 0.1).targets
    assert int(found.counts.max()) <= trainer.queries
    assert int(found.counts.max()) == 3 * (trainer.queries // 3)
    assert int(trainer._ready(batch, batch.targets.counts, 0.9).targets.counts.max()) == 3


def test_a_spoilt_picture_costs_one_step(quick: TrainConfig) -> None:
    trainer = make_trainer(quick)
    trainer.step(make_batch(), 0.3)
    before = {name: t.detach().clone() for name, t in trainer.model.state_dict().items()}
    batch = make_batch()
    batch.pixels[0, 0, 3, 3] = float("nan")
    with pytest.warns(UserWarning, match="image 0 of the batch"):
        assert trainer.step(batch, 0.3).terms is None
    assert trainer.health.skipped == trainer.health.in_row == 1
    for name, tensor in trainer.model.named_parameters():
        assert torch.equal(before[name], tensor), name
    for name, tensor in trainer.model.state_dict().items():
        assert tensor.isfinite().all(), name
    assert trainer.step(make_batch(), 0.3).terms is not None
    assert trainer.health.in_row == 0
    trainer.health.reloads = MOST_RELOADS
    with pytest.raises(TrainingError, match=r"last reason: .* image 0 of the batch"):
        trainer.recover(None)


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    """All that a step moves."""
    moments = {
        f"{name}.{key}": value
        for name, parameter in trainer.model.named_parameters()
        for key, value in trainer.optimizer.state.get(parameter, {}).items()
    }
    weights = {name: p.detach() for name, p in trainer.model.named_parameters()}
    return {name: value.clone() for name, value in {**weights, **moments}.items()}


def same_state(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_an_infinite_gradient_costs_one_step(quick: TrainConfig) -> None:
    trainer = make_trainer(quick)
    trainer.step(make_batch(), 0.3)
    before = state_of(trainer)
    weight = next(p for p in trainer.model.parameters() if p.requires_grad)
    handle = weight.register_hook(lambda gradient: gradient * float("inf"))
    assert trainer.step(make_batch(), 0.3).terms is None
    assert same_state(before, state_of(trainer))
    handle.remove()
    assert trainer.step(make_batch(), 0.3).terms is not None
    assert not same_state(before, state_of(trainer))


def test_bad_costs_that_nobody_waited_for_cost_one_step(
    quick: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a GPU the criterion does not raise: losses may be finite, and the count of bad costs must do."""
    trainer = make_trainer(quick)
    trainer.step(make_batch(), 0.3)
    before = state_of(trainer)
    losses = trainer._losses
    monkeypatch.setattr(trainer, "device", torch.device("meta"))  # not the CPU, as far as waiting goes

    def spoilt(part: Batch, piece: Any) -> Losses:
        monkeypatch.setattr(trainer, "device", torch.device("cpu"))
        found = losses(part, piece)
        monkeypatch.setattr(trainer, "device", torch.device("meta"))
        return dataclasses.replace(found, costs=Costs(torch.tensor([0, 3], dtype=torch.int32), 2, ["first"]))

    monkeypatch.setattr(trainer, "_losses", spoilt)
    monkeypatch.setattr(trainer, "_ready", lambda batch, *_: batch)
    done = [trainer.step(make_batch(), 0.3) for _ in range(2)]
    assert [bool(one.kept) for one in done] == [False, False]
    assert same_state(before, state_of(trainer))
    assert trainer.health.skipped == 0
    with pytest.warns(UserWarning, match="3 of first, image 1 of the batch"):
        assert trainer.read_health().in_row == 2
    assert trainer.read_health().skipped == 2


def test_a_loss_that_stays_infinite_ends_the_run(quick: TrainConfig) -> None:
    trainer = make_trainer(quick)
    good = {k: v.clone() for k, v in trainer.ema.model.state_dict().items()}
    trainer.health.in_row = BAD_IN_A_ROW
    with torch.no_grad():
        next(iter(trainer.model.parameters())).fill_(float("nan"))
    for _ in range(MOST_RELOADS):
        trainer.recover(good)
        assert all(t.isfinite().all() for t in trainer.model.state_dict().values())
        assert trainer.health.in_row == 0
    with pytest.raises(TrainingError, match="lower --lr"):
        trainer.recover(good)


def test_out_of_memory_halves_the_parts(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(dataclasses.replace(quick, batch=4))
    losses = trainer._losses

    def small_only(part: Batch, piece: Any) -> Any:
        if len(part.pixels) > 1:
            raise torch.OutOfMemoryError("full")
        return losses(part, piece)

    monkeypatch.setattr(trainer, "_losses", small_only)
    with pytest.warns(UserWarning, match="cut into"):
        done = trainer.step(make_batch((1, 1, 2, 0)), 0.3)
    assert done.terms is not None
    assert trainer.accumulate == 4


def test_out_of_memory_for_one_picture_is_an_error(
    quick: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = make_trainer(quick)

    def never(*_: Any) -> Any:
        raise torch.OutOfMemoryError("full")

    monkeypatch.setattr(trainer, "_losses", never)
    with pytest.warns(UserWarning, match="cut into"), pytest.raises(DeviceError, match="smaller --batch"):
        trainer.step(make_batch(), 0.3)


@pytest.mark.parametrize(("able", "chosen"), [(True, torch.bfloat16), (False, None)])
def test_a_cpu_trains_in_bfloat16_where_it_multiplies_it(
    able: bool, chosen: torch.dtype | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "cpu_has_bfloat16", lambda: able)
    assert choose_amp("auto", torch.device("cpu")) is chosen


def test_half_precision_rules() -> None:
    cpu = torch.device("cpu")
    assert choose_amp("off", cpu) is None
    assert choose_amp("bf16", cpu) is torch.bfloat16
    with pytest.raises(DeviceError, match="bf16 or off"):
        choose_amp("fp16", cpu)


def test_losses_see_float32_under_bf16(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    trainer = make_trainer(dataclasses.replace(quick, amp="bf16"))
    seen = []
    criterion = trainer.criterion.forward

    def spy(outputs: Any, *rest: Any) -> Any:
        seen.extend((outputs.logits.dtype, outputs.boxes.dtype))
        return criterion(outputs, *rest)

    monkeypatch.setattr(trainer.criterion, "forward", spy)
    assert trainer.step(make_batch(), 0.3).terms is not None
    assert set(seen) == {torch.float32}


def test_outputs_in_float32_keep_their_parts(quick: TrainConfig) -> None:
    trainer = make_trainer(quick)
    outputs = trainer.model(make_batch().pixels)
    found = in_float32(dataclasses.replace(outputs, logits=outputs.logits.bfloat16()))
    assert found.logits.dtype is torch.float32
    assert (found.encoder is None) == (outputs.encoder is None)


def test_groups_and_frozen_norms(quick: TrainConfig) -> None:
    trainer = make_trainer(dataclasses.replace(quick, freeze_norm=True, freeze_stages=1, lr=1e-3))
    assert any(isinstance(m, FrozenBatchNorm) for m in trainer.model.backbone.modules())
    names = {p: n for n, p in trainer.model.named_parameters()}
    learning = [p for group in trainer.optimizer.param_groups for p in group["params"]]
    assert len(learning) == len(set(learning)) == sum(p.requires_grad for p in names)
    for group in trainer.optimizer.param_groups:
        for parameter in group["params"]:
            is_backbone = names[parameter].startswith("backbone.")
            assert group["peak"] == pytest.approx(1e-4 if is_backbone else 1e-3)
            assert (group["weight_decay"] == 0) == (parameter.ndim <= 1)
    assert not all(p.requires_grad for n, p in trainer.model.named_parameters() if n.startswith("backbone."))
