from __future__ import annotations

import csv
import dataclasses
import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torchvision.transforms import v2

import detrx
from detrx.data.loader import TrainLoader
from detrx.errors import ConfigError, DataError, TrainingError
from detrx.models import zoo
from detrx.models.checkpoint import read_checkpoint, save_checkpoint
from detrx.train.config import TrainConfig
from detrx.train.config_file import read_config
from detrx.train.fit import Fit
from detrx.train.folder import RunFolder
from detrx.train.log import Log, read_rows
from detrx.train.loop import Trainer
from detrx.train.run import train


def test_a_run_leaves_everything_behind(quick: TrainConfig, capfd: pytest.CaptureFixture[str]) -> None:
    result = detrx.train(quick, epochs=3)
    assert result.steps == 6
    assert result.pictures_per_second > 0
    assert {"config.yaml", "log.csv", "log.jsonl", "best.safetensors", "last.safetensors", "results.png"} <= {
        path.name for path in result.folder.iterdir()
    }
    kept = read_config(result.folder / "config.yaml")
    assert (kept.epochs, kept.canvas, kept.freeze_norm) == (3, (64, 64), False)
    assert -1 <= result.metrics.ap <= 1
    assert set(result.metrics.per_class) == {"red", "green"}
    said = capfd.readouterr()
    assert "2 classes (red, green)" in said.err
    assert said.out == ""


def test_a_run_shows_its_last_evaluation(
    quick: TrainConfig, monkeypatch: pytest.MonkeyPatch, draw_scores: Callable[..., Any]
) -> None:
    monkeypatch.setattr("detrx.train.course.draw_scores", draw_scores)
    result = train(quick, quiet=True)
    assert result.page == result.folder / "val" / "index.html"
    drawn = {path.name for path in result.page.parent.iterdir()}
    assert {"pr_curve.png", "confusion.png", "worst.png", "metrics.json"} <= drawn

    def broken(*_: object, **__: object) -> None:
        raise DataError("[read_image] gone")

    monkeypatch.setattr("detrx.train.curves.write_report", broken)
    with pytest.warns(UserWarning, match="cannot be drawn"):
        assert train(dataclasses.replace(quick, epochs=3, resume="auto"), quiet=True).page is None


def test_the_log_counts_on(quick: TrainConfig) -> None:
    result = train(quick, quiet=True)
    train(dataclasses.replace(quick, epochs=4, resume="auto"), quiet=True)
    with (result.folder / "log.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["row"]) for row in rows] == list(range(len(rows)))
    assert {row["resumes"] for row in rows} == {"0", "1"}
    last = json.loads((result.folder / "log.jsonl").read_text().splitlines()[-1])
    assert last["event"] == "evaluation"
    assert last["step"] == 8
    assert "per_class" in last


def test_an_extra_transform_sees_every_training_picture(
    quick: TrainConfig, capfd: pytest.CaptureFixture[str]
) -> None:
    seen: list[tuple[Any, ...]] = []

    class Blacken(v2.Transform):
        def forward(self, image: Any, truth: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
            seen.append((image.dtype, tuple(image.shape), len(truth["boxes"]), len(truth["labels"])))
            return torch.zeros_like(image), truth

    result = detrx.train(quick, epochs=1, extra_transform=v2.Compose([Blacken()]))
    assert seen == [(torch.uint8, (3, 64, 64), 2, 2)] * 4
    assert "extra transform: Compose" in capfd.readouterr().err
    black = read_checkpoint(result.folder / "last.safetensors").tensors
    plain = read_checkpoint(train(quick, epochs=1, out=f"{quick.out}-plain", quiet=True).best).tensors
    weights = next(name for name in plain if name.endswith("conv_stem.weight") and name.startswith("model."))
    assert not torch.equal(black[weights], plain[weights])


def test_an_extra_transform_that_is_none_is_refused_before_a_folder_is_made(quick: TrainConfig) -> None:
    with pytest.raises(
        ConfigError, match=r"extra_transform must be a transform of torchvision\.transforms\.v2"
    ):
        detrx.train(quick, extra_transform="flip")  # type: ignore[arg-type]
    assert not Path(quick.out).exists()


def test_pictures_in_both_splits_are_said_once_before_the_first_step(
    quick: TrainConfig, scenes: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    root = shutil.copytree(scenes, tmp_path / "scenes")
    train(quick, data=root, epochs=1)
    assert "leak" not in capfd.readouterr().err
    for number in (1, 3):
        shutil.copy(root / "train" / "2.png", root / "valid" / f"{number}.png")
    train(quick, data=root, epochs=1, out=tmp_path / "again")
    said = capfd.readouterr().err
    assert said.count("leak") == 1
    assert "leak: 2 of the 4 pictures" in said
    assert "train/2.png = " in said


def test_a_wall_clock_budget_is_kept(quick: TrainConfig) -> None:
    result = train(dataclasses.replace(quick, epochs=None, minutes=0.03), quiet=True)
    assert result.steps >= 1
    rows = [row for row in read_rows(RunFolder(result.folder)) if row["event"] == "step"]
    assert rows[-1]["progress"] > 0.7  # the last evaluation may take the rest of the time
    assert 1.8 <= result.seconds < 8


def test_one_picture_in_a_batch_of_eight(
    quick: TrainConfig, tmp_path: Path, write: Callable[..., Path]
) -> None:
    data = write(tmp_path / "one", pictures=1)
    result = train(dataclasses.replace(quick, data=str(data), batch=8, epochs=1), quiet=True)
    assert result.steps == 1


def test_a_data_set_without_val_says_so(
    quick: TrainConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str], write: Callable[..., Path]
) -> None:
    data = write(tmp_path / "alone", pictures=2)
    shutil.rmtree(data / "valid")
    train(dataclasses.replace(quick, data=str(data), epochs=1))
    assert "scores are of the training pictures" in capfd.readouterr().err


def test_nothing_to_learn_from_is_refused(
    quick: TrainConfig, tmp_path: Path, write: Callable[..., Path]
) -> None:
    data = write(tmp_path / "empty", pictures=2)
    file = data / "train" / "_annotations.coco.json"
    document = json.loads(file.read_text())
    file.write_text(json.dumps({**document, "annotations": []}))
    with pytest.raises(DataError, match="box"):
        train(dataclasses.replace(quick, data=str(data)), quiet=True)
    with pytest.raises(ConfigError, match="detrx train FOLDER"):
        train(dataclasses.replace(quick, data=""), quiet=True)


def test_a_taken_folder_is_refused(quick: TrainConfig) -> None:
    train(dataclasses.replace(quick, epochs=1), quiet=True)
    with pytest.raises(ConfigError, match="--resume auto"):
        train(dataclasses.replace(quick, epochs=1), quiet=True)


def test_two_runs_do_not_share_a_folder(quick: TrainConfig) -> None:
    with RunFolder(Path(quick.out)), pytest.raises(ConfigError, match="another run"):
        train(quick, quiet=True)


def test_a_folder_that_vanishes_is_made_again(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    step = Fit._step

    def deleting(self: Fit, batch: Any) -> None:
        step(self, batch)
        if self.clock.step == 1:
            shutil.rmtree(quick.out)

    monkeypatch.setattr(Fit, "_step", deleting)
    with pytest.warns(UserWarning, match="vanished"):
        result = train(quick, quiet=True)
    assert result.best.is_file()


def test_a_log_that_cannot_be_written_costs_a_warning(
    quick: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Log, "_append", full)
    with pytest.warns(UserWarning, match="log cannot be written") as said:
        result = train(quick, quiet=True)
    assert result.steps == 4
    assert len(said) == 1


def test_bad_steps_go_back_to_good_weights_then_end(
    quick: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    backward = Trainer._backward
    steps = 0

    def spoilt(self: Trainer, *batch: Any) -> Any:
        nonlocal steps
        steps += 1
        return backward(self, *batch) if steps <= 2 else None

    monkeypatch.setattr(Trainer, "_backward", spoilt)
    with pytest.raises(TrainingError, match="20 steps skipped"):
        train(dataclasses.replace(quick, epochs=50, eval_every=1), quiet=True)
    events = [row["event"] for row in read_rows(RunFolder(Path(quick.out)))]
    assert events.count("recovery") == 3


def test_patience_ends_a_run(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    from detrx.evaluation.coco import Metrics

    flat = Metrics(*([0.25] * 12))
    monkeypatch.setattr("detrx.train.course._evaluate", lambda *_: (flat, []))
    result = train(dataclasses.replace(quick, epochs=50, eval_every=1, patience=2), quiet=True)
    assert result.steps == 6
    assert result.best_map == 0.25
    assert read_checkpoint(result.best).extra["epoch"] == 3, (
        "of weights that are worth the same, the latest are kept"
    )


def test_weights_of_a_whole_detector_are_the_start(
    quick: TrainConfig, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    first = train(quick, quiet=True)
    train(dataclasses.replace(quick, weights=str(first.best), out=str(tmp_path / "second"), epochs=1))
    assert f"tensors from {first.best}, 0 start afresh" in capfd.readouterr().err


def test_weights_of_a_sibling_give_what_fits_and_not_their_shape(
    quick: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    sibling = dataclasses.replace(zoo.MODELS["tiny"], name="sibling", neck="light", decoder_layers=1)
    monkeypatch.setitem(zoo.MODELS, "sibling", sibling)
    first = train(dataclasses.replace(quick, epochs=1), quiet=True)
    smaller = dataclasses.replace(
        quick, model="sibling", weights=str(first.best), out=str(tmp_path / "second"), epochs=1
    )
    second = train(smaller)
    assert read_checkpoint(second.best).config.neck == "light"
    assert "have no place" in capfd.readouterr().err
    resumed = train(dataclasses.replace(smaller, weights="", epochs=2, resume="auto"), quiet=True)
    assert read_checkpoint(resumed.best).config.name == "sibling"


def test_weights_of_another_family_are_refused(quick: TrainConfig, tmp_path: Path) -> None:
    first = train(dataclasses.replace(quick, epochs=1), quiet=True)
    wrong = dataclasses.replace(
        quick, model="detr-r18", weights=str(first.best), out=str(tmp_path / "second")
    )
    with pytest.raises(ConfigError, match="are of tiny, found model detr-r18"):
        train(wrong, quiet=True)


def test_weights_keep_the_normalisation_of_their_pixels(quick: TrainConfig, tmp_path: Path) -> None:
    first = read_checkpoint(train(dataclasses.replace(quick, epochs=1), quiet=True).best)
    other = tmp_path / "unit.safetensors"
    info = dataclasses.replace(first.info, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))
    save_checkpoint(other, first.tensors, info=info, config=first.config)
    second = dataclasses.replace(quick, weights=str(other), out=str(tmp_path / "second"), epochs=1)
    train(second, quiet=True)
    again = dataclasses.replace(second, weights="", epochs=2, resume="auto")
    found = read_checkpoint(train(again, quiet=True).folder / "last.safetensors")
    assert (found.info.mean, found.info.std) == ((0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert found.info.licence == "trained by detrx from unit.safetensors"
    assert found.extra["train"]["config"]["freeze_norm"] is True


def test_a_run_that_is_made_longer_is_evaluated_on_the_way(quick: TrainConfig) -> None:
    result = train(dataclasses.replace(quick, epochs=1), quiet=True)
    train(dataclasses.replace(quick, epochs=4, resume="auto"), quiet=True)
    rows = read_rows(RunFolder(result.folder))
    assert [row["step"] for row in rows if row["event"] == "evaluation"] == [2, 4, 6, 8]


def test_a_run_resumed_into_another_folder_has_its_best_weights_there(
    quick: TrainConfig, tmp_path: Path
) -> None:
    first = train(quick, quiet=True)
    other = dataclasses.replace(quick, out=str(tmp_path / "other"), resume=str(first.folder))
    second = train(other, quiet=True)
    assert (second.steps, second.best.is_file()) == (first.steps, True)
    assert second.best_map == pytest.approx(first.metrics.ap)
    with pytest.raises(ConfigError, match="must not hold a run yet"):
        train(other, quiet=True)


def test_the_same_seed_gives_the_same_bits(quick: TrainConfig, tmp_path: Path) -> None:
    one = train(quick, quiet=True)
    two = train(dataclasses.replace(quick, out=str(tmp_path / "again"), workers=2), quiet=True)
    a, b = read_checkpoint(one.best).tensors, read_checkpoint(two.best).tensors
    assert all(torch.equal(a[k], b[k]) for k in a)


def test_no_warning_in_a_plain_run(quick: TrainConfig) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(dataclasses.replace(quick, epochs=1), quiet=True)


def test_strong_changes_end_inside_an_epoch(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    prepare = TrainLoader._prepare

    def spy(loader: TrainLoader, epoch: int, order: Any, place: int, strong: bool) -> Any:
        seen.append((epoch, place, strong))
        return prepare(loader, epoch, order, place, strong)

    monkeypatch.setattr(TrainLoader, "_prepare", spy)
    train(dataclasses.replace(quick, strong_until=0.75), quiet=True)
    assert seen == [(at // 4, at % 4, at < 6) for at in range(8)]
