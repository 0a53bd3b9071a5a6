"""The detr family learns, goes on, and is tuned, by the same command as the rt family."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
import torch

from detrx.errors import CheckpointError, ConfigError
from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.losses.detr import DetrCriterion
from detrx.models import zoo
from detrx.models.checkpoint import load_model, save_checkpoint
from detrx.models.detr import Detr
from detrx.ops.match_weights import MatchWeights
from detrx.train.config import TrainConfig
from detrx.train.run import train
from detrx.train.setup import criterion_for, loss_for, model_config
from detrx.types import ModelInfo

TINY = zoo.DetrConfig(
    name="tiny-detr",
    backbone="mobilenetv3_small_050",
    hidden=32,
    heads=4,
    encoder_layers=1,
    decoder_layers=2,
    feedforward=32,
    queries=12,
)


@pytest.fixture
def settings(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setitem(zoo.MODELS, "tiny-detr", TINY)
    return dataclasses.replace(quick, model="tiny-detr", levels=None)


def test_a_run_and_its_resumption(settings: TrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    result = train(settings)
    model, info = load_model(result.best)
    assert isinstance(model, Detr)
    assert (model.config.no_object, model.config.masked, info.marked) == (True, False, False)
    logged = (result.folder / "log.jsonl").read_text()
    assert all(f'"{term}"' in logged for term in ("ce", "l1", "giou", "ce_aux0"))
    longer = dataclasses.replace(settings, epochs=(settings.epochs or 1) + 1, resume=str(result.folder))
    assert train(longer, quiet=True).steps > result.steps
    with pytest.raises(CheckpointError, match="same model"):
        train(dataclasses.replace(longer, model="tiny"), quiet=True)


def test_a_sigmoid_head_learns_as_the_other_family(settings: TrainConfig) -> None:
    result = train(dataclasses.replace(settings, no_object=False), quiet=True)
    model, _ = load_model(result.best)
    assert isinstance(model, Detr)
    assert not model.config.no_object
    assert model.class_embed.weight.shape[0] == model.classes


def test_published_weights_are_tuned(
    settings: TrainConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """COCO's head with its columns and its mask becomes a head of the data set's classes; the rest is taken."""
    torch.manual_seed(0)
    learnt = zoo.build(dataclasses.replace(TINY, masked=True, head_classes=5, columns=(1, 3, 4)), classes=3)
    info = ModelInfo("detr", ("green", "cow", "dog"), (1, 3, 4), (64, 64), marked=True, sides=(64, 96))
    tensors = {f"model.{key}": tensor for key, tensor in learnt.state_dict().items()}
    save_checkpoint(tmp_path / "coco.safetensors", tensors, info=info, config=learnt.config)
    result = train(dataclasses.replace(settings, weights=str(tmp_path / "coco.safetensors")))
    model, now = load_model(result.best)
    assert isinstance(model, Detr)
    assert (model.config.columns, model.config.masked, now.marked, now.sides) == ((), False, False, ())
    said = capfd.readouterr().err
    assert "in part, 0 start afresh" in said
    untaken = (result.folder / "untaken.txt").read_text()
    assert "class_embed.weight" in untaken
    assert "2 of 3 rows" in untaken


def test_settings_of_the_other_family(settings: TrainConfig) -> None:
    with pytest.raises(ConfigError, match="levels is for the rt family"):
        model_config(dataclasses.replace(settings, levels=(16, 32)))
    with pytest.raises(ConfigError, match="no_object is for the detr family"):
        model_config(TrainConfig(model="rt-n", no_object=True))
    changed = model_config(dataclasses.replace(settings, hidden=64, queries=7, decoder_layers=1))
    assert isinstance(changed, zoo.DetrConfig)
    assert (changed.hidden, changed.feedforward, changed.queries) == (64, 64, 7)


def test_the_losses_that_go_with_a_head() -> None:
    loss = loss_for(LossConfig(), TINY)
    assert loss.denoise == 0
    own = criterion_for(loss, TINY, classes=3)
    assert isinstance(own, DetrCriterion)
    assert (own.match.class_cost, own.match.class_) == ("softmax", 1.0)
    changed = criterion_for(dataclasses.replace(loss, match=MatchWeights(class_=3.0)), TINY, classes=3)
    assert isinstance(changed, DetrCriterion)
    assert changed.match.class_ == 3.0
    assert isinstance(criterion_for(loss, dataclasses.replace(TINY, no_object=False), classes=3), Criterion)


def test_weights_say_which_model_they_are(
    settings: TrainConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Without --model the run takes name, family and learning rate from the checkpoint."""
    path = learnt(tmp_path)
    bare = dataclasses.replace(settings, model="", weights=str(path), lr=None, epochs=1)
    result = train(bare)
    assert "chosen for 4 pictures and tiny-detr: lr 0.0001" in capfd.readouterr().err
    assert load_model(result.best)[1].model == "tiny-detr"
    longer = dataclasses.replace(bare, epochs=2, resume=str(result.folder))
    assert train(longer, quiet=True).steps > result.steps
    with pytest.raises(ConfigError, match="are of tiny-detr, found model rt-n"):
        train(dataclasses.replace(bare, model="rt-n", out=str(tmp_path / "other")), quiet=True)


def learnt(folder: Path) -> Path:
    torch.manual_seed(0)
    model = zoo.build(TINY, classes=2)
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    info = ModelInfo("tiny-detr", ("red", "green"), (1, 2), (64, 64))
    save_checkpoint(folder / "learnt.safetensors", tensors, info=info, config=TINY)
    return folder / "learnt.safetensors"


def test_a_part_learns_on_frozen_weights(settings: TrainConfig, tmp_path: Path) -> None:
    """The second stage of the mask models; here the box head, on a frozen detector."""
    path = learnt(tmp_path)
    before, _ = load_model(path)
    frozen = dataclasses.replace(settings, weights=str(path), learn=("bbox_embed",), ema_decay=0.0)
    after, _ = load_model(train(frozen, quiet=True).best)
    moved = {
        key for key, tensor in after.state_dict().items() if not torch.equal(tensor, before.state_dict()[key])
    }
    assert moved == {key for key in before.state_dict() if key.startswith("bbox_embed.")}
    with pytest.raises(ConfigError, match="found 'mask_head'; this model's are backbone, bbox_embed"):
        train(dataclasses.replace(frozen, learn=("mask_head",), out=str(tmp_path / "other")), quiet=True)


def test_what_helps_in_training_leaves_the_answers_alone(settings: TrainConfig) -> None:
    helped = dataclasses.replace(settings, no_object=False, groups=3, encoder_head=True)
    result = train(helped, quiet=True)
    logged = (result.folder / "log.jsonl").read_text()
    assert all(f'"{term}"' in logged for term in ("mal", "mal_aux0", "mal_groups", "mal_encoder"))
    model, _ = load_model(result.best)
    assert isinstance(model, Detr)
    plain = zoo.build(dataclasses.replace(model.config, groups=1, encoder_head=False), classes=2).eval()
    plain.load_state_dict({k: t for k, t in model.state_dict().items() if not k.startswith("aids.")})
    pixels = torch.randn(2, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model(pixels).logits, plain(pixels).logits)
