"""Settings by name: what is given takes their place, wherever it is given."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from detrx.cli.train import parse
from detrx.data.augment import AugmentConfig
from detrx.errors import ConfigError
from detrx.losses.config import LossConfig
from detrx.models.zoo import DetrConfig, build
from detrx.train.config import TrainConfig
from detrx.train.recipes import RECIPES, recipe_for
from detrx.train.run import train
from detrx.train.schedule import rate
from detrx.train.setup import criterion_for, loss_for, model_config


def test_the_paper_s_numbers() -> None:
    """arXiv 2005.12872, appendix A.4, and the defaults of the published code."""
    paper = recipe_for("paper")
    assert (paper.lr, (paper.lr or 0) * paper.backbone_lr_ratio) == (1e-4, pytest.approx(1e-5))
    assert (paper.epochs, paper.weight_decay, paper.clip, paper.ema_decay) == (300, 1e-4, 0.1, 0)

    def at(epoch: int) -> float:
        return rate(epoch / 300, warmup=paper.warmup, flat=paper.flat, final=paper.final_lr, fall=paper.fall)

    assert [at(0), at(199), at(201), at(299)] == [1, 1, pytest.approx(0.1), pytest.approx(0.1)]
    shape = model_config(paper)
    assert isinstance(shape, DetrConfig)
    assert (shape.auxiliary, shape.no_object, shape.dropout, shape.groups) == (True, True, 0.1, 1)
    teacher = criterion_for(loss_for(paper.loss, shape), shape, classes=3)
    assert (teacher.no_object, teacher.l1_weight, teacher.giou_weight, teacher.class_weight) == (0.1, 5, 2, 1)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_a_model_that_can_be_trained(name: str) -> None:
    shape = model_config(recipe_for(name))
    small = dataclasses.replace(shape, hidden=32, feedforward=32, encoder_layers=1, decoder_layers=1)
    model = build(dataclasses.replace(small, backbone="resnet18"), classes=2)
    names = [key for key, _ in model.named_parameters()]
    assert all(any(key.startswith(word) for key in names) for word in recipe_for(name).learn)


def test_a_name_that_is_none() -> None:
    with pytest.raises(ConfigError, match="paper, paper-masks, small-data, found 'papre'"):
        parse(["photos", "--recipe", "papre"])


def test_the_command_line_wins_over_the_file_and_the_file_over_the_recipe(tmp_path: Path) -> None:
    (tmp_path / "my.yaml").write_text("clip: 0.5\nlr: 3e-4\naugment:\n  vflip: 0.5\n")
    found = parse(["photos", "--recipe", "paper", f"--config={tmp_path / 'my.yaml'}", "--lr", "2e-4"])
    assert (found.lr, found.clip, found.fall, found.epochs) == (2e-4, 0.5, "step", 300)
    assert found.augment == dataclasses.replace(recipe_for("paper").augment, vflip=0.5)


def test_another_length_takes_the_place_of_the_recipe_s(tmp_path: Path) -> None:
    found = parse(["photos", "--recipe", "paper", "--minutes", "20"])
    assert (found.epochs, found.minutes) == (None, 20)
    (tmp_path / "my.yaml").write_text("minutes: 3\n")
    found = parse(["photos", "--recipe", "paper", "--config", str(tmp_path / "my.yaml")])
    assert (found.epochs, found.minutes) == (None, 3)


def test_python_takes_a_name_too(scenes: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[TrainConfig] = []
    monkeypatch.setattr("detrx.train.run.run", lambda config, *_, **__: seen.append(config))
    train(recipe="paper", data=scenes, model="detr-r18", minutes=1.0)
    (found,) = seen
    assert (found.model, found.minutes, found.epochs, found.fall) == ("detr-r18", 1.0, None, "step")
    with pytest.raises(ConfigError, match="config or recipe"):
        train(TrainConfig(), recipe="paper")
    assert found.augment != AugmentConfig()
    assert found.loss == LossConfig()
