"""Train a detector: the public function behind ``detrx.train`` and ``detrx train``."""

from __future__ import annotations

import dataclasses
import os
import platform
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch

import detrx
from detrx.data.coco import Dataset
from detrx.data.leaks import leaks
from detrx.errors import CheckpointError, ConfigError
from detrx.models import hub
from detrx.models.checkpoint import load_model
from detrx.models.zoo import Model, ModelConfig, build, config_for
from detrx.train.config import USUAL_MODEL, TrainConfig
from detrx.train.config_file import differences, to_yaml, without_length
from detrx.train.course import Plan, RunResult, agree, follow, make_trainer, take_part
from detrx.train.defaults import OPEN, fill, settled
from detrx.train.distributed import Team, is_first, joined, local_rank, world
from detrx.train.folder import BEST, CONFIG, UNTAKEN, RunFolder, choose_folder
from detrx.train.launch import check_shares, count_processes, team_of, threads_each
from detrx.train.loop import Trainer
from detrx.train.recipes import recipe_for
from detrx.train.report import Report
from detrx.train.setup import (
    Data,
    choose_device,
    describe,
    epochs_for,
    make_model,
    model_config,
    open_data,
    seed_everything,
    truth_for,
    tune_model,
)
from detrx.train.state import Position, Saved, read_state, restore
from detrx.types import ModelInfo

if TYPE_CHECKING:
    from detrx.data.transforms import ExtraTransform


def train(
    config: TrainConfig | None = None,
    *,
    recipe: str | None = None,
    data: str | Path | None = None,
    model: str | None = None,
    out: str | Path | None = None,
    epochs: int | None = None,
    minutes: float | None = None,
    batch: int | None = None,
    canvas: tuple[int, int] | None = None,
    weights: str | Path | None = None,
    backbone_weights: str | Path | None = None,
    lr: float | None = None,
    workers: int | None = None,
    seed: int | None = None,
    resume: str | Path | None = None,
    processes: int | Literal["auto"] | None = None,
    extra_transform: ExtraTransform | None = None,
    quiet: bool = False,
) -> RunResult:
    """Train a detector on a COCO data set.

    The keywords are the settings most often given; they win over those in ``config``, which has all of them, or over
    those of ``recipe``.

    Args:
        config: every setting, see TrainConfig.
        recipe: the name of one of train.recipes.RECIPES, in place of ``config``.
        extra_transform: a torchvision.transforms.v2 transform for each training picture and its boxes, after detrx's
            own; see detrx.data.transforms.ExtraTransform. Give it again with ``resume``: no file holds it.
        quiet: say nothing; the log files are written all the same.

    Raises:
        ConfigError: a setting or transform that does not fit, or a run folder that is taken.
        DataError: the data set cannot be read.
        CheckpointError: weights cannot be read, do not fit, or cannot be written.
        TrainingError: losses stay NaN or infinite.
        DeviceError: out of memory, or another process of the run ended.
        KeyboardInterrupt, SystemExit: Ctrl-C, or the system asked the process to stop; the state was saved.
    """
    given: dict[str, Any] = {
        "data": data,
        "model": model,
        "out": out,
        "epochs": epochs,
        "minutes": minutes,
        "batch": batch,
        "canvas": canvas,
        "weights": weights,
        "backbone_weights": backbone_weights,
        "lr": lr,
        "workers": workers,
        "seed": seed,
        "resume": resume,
        "processes": processes,
    }
    with Report(quiet=quiet or not is_first()) as report:
        return run(_settings(config, recipe, given), report, extra_transform=extra_transform)


def _settings(config: TrainConfig | None, recipe: str | None, given: dict[str, Any]) -> TrainConfig:
    """What is given over the settings or the recipe."""
    if config is not None and recipe is not None:
        raise ConfigError(
            "[train] give config or recipe, not both; dataclasses.replace changes a recipe's settings"
        )
    base = config or (recipe_for(recipe) if recipe is not None else TrainConfig())
    changes: dict[str, Any] = {
        k: str(v) if isinstance(v, Path) else v for k, v in given.items() if v is not None
    }
    if recipe is not None and ("epochs" in changes or "minutes" in changes):
        base = without_length(base)
    return dataclasses.replace(base, **changes)


def run(config: TrainConfig, report: Report, *, extra_transform: ExtraTransform | None = None) -> RunResult:
    """Train as ``config`` says and tell ``report``; see train."""
    if extra_transform is not None and not callable(extra_transform):
        raise ConfigError(
            f"[train] extra_transform must be a transform of torchvision.transforms.v2, found {extra_transform!r}"
        )
    if config.threads:
        torch.set_num_threads(config.threads)
    given = world()
    if given is None:
        return _lead(config, choose_device(config.device), report, extra_transform)
    _check_world(config, given[1])
    device = choose_device(config.device, local=local_rank())
    with joined(*given, device=device) as team:
        if team.is_first:
            return _lead(config, device, report, extra_transform, team=team)
        return follow(team, device, asked=config, extra_transform=extra_transform)


def _check_world(config: TrainConfig, size: int) -> None:
    if config.processes not in ("auto", size):
        raise ConfigError(
            f"[train] processes must be auto or as many as WORLD_SIZE says, found {config.processes} and {size}; "
            "leave --processes out where torchrun starts them"
        )


def _lead(
    asked: TrainConfig,
    device: torch.device,
    report: Report,
    extra_transform: ExtraTransform | None,
    *,
    team: Team | None = None,
) -> RunResult:
    """Decide all that is to be decided, gather the other processes (unless ``team`` has them), and train with them."""
    if not asked.weights:
        config_for(asked.model or USUAL_MODEL)  # a name that is wrong must not leave a folder behind
    path, state = choose_folder(asked)
    truth = truth_for(asked, state)
    data = open_data(asked, truth=truth)
    with RunFolder(path) as folder:
        saved = read_state(state) if state else None
        config = dataclasses.replace(_settle(asked, saved), masks=truth != "boxes")
        start = load_model(hub.local(config.weights)) if config.weights and not saved else None
        before = saved.checkpoint.info if saved else start[1] if start else None
        base = _shape_before(config, saved, start)
        config = dataclasses.replace(config, model=base.name if base else config.model or USUAL_MODEL)
        config = _choose(config, base, data.train, report)
        config = _with_processes(config, device, extra_transform, team)
        shape = model_config(config, base)
        info = describe(config, data.train, before=before)
        if extra_transform is not None:
            report.say(f"extra transform: {extra_transform!r}")
        config = _with_length(config, pictures=len(data.train))
        _say_start(report, config, data, device, folder)
        if saved:
            _check_same(saved, config, shape, info, report)
        plan = Plan(asked, config, shape, info, path)
        with nullcontext(team) if team else team_of(config, device, extra=extra_transform) as whole:
            agree(whole, plan)
            trainer = _make_trainer(
                plan, data.train, device, folder, report, saved=saved, start=start, team=whole
            )
            position = _continue(saved, trainer, folder)
            kept = dataclasses.replace(config, out=str(path), resume="")
            folder.write_text(CONFIG, to_yaml(dataclasses.replace(kept, processes="auto") if team else kept))
            return take_part(plan, trainer, position, data, folder, report, extra_transform=extra_transform)


def _shape_before(
    config: TrainConfig, saved: Saved | None, start: tuple[Model, ModelInfo] | None
) -> ModelConfig | None:
    """The shape of the whole detector that the run began with, or None where it began with the zoo's.

    Weights of another model than the one asked for give it all that fits, not their shape.

    Raises:
        ConfigError: the weights are of another family.
    """
    if saved and config.weights:
        return saved.checkpoint.config
    if start is None:
        return None
    theirs = start[0].config
    if config.model in ("", theirs.name):
        return theirs
    if not isinstance(config_for(config.model), type(theirs)):
        raise ConfigError(
            f"[train] the weights {config.weights} are of {theirs.name}, found model {config.model}; leave it out"
        )
    return None


def _settle(config: TrainConfig, saved: Saved | None) -> TrainConfig:
    """Fill in what depends on other settings, and on those of the run that goes on."""
    changes: dict[str, Any] = {}
    if saved:
        before = saved.config
        changes["model"] = config.model or before.model
        if config.epochs is None and config.minutes is None:
            changes.update(epochs=before.epochs, minutes=before.minutes)
        if not (
            config.weights or config.backbone_weights
        ):  # for what the weights say of their origin; they are not read again
            changes.update(weights=before.weights, backbone_weights=before.backbone_weights)
        changes.update({k: getattr(before, k) for k in OPEN if getattr(config, k) is None})
        if config.processes == "auto":
            changes.update(processes=before.processes)
        changes["masks"] = config.masks or before.masks
    return dataclasses.replace(config, **changes)


def _choose(config: TrainConfig, base: ModelConfig | None, train_set: Dataset, report: Report) -> TrainConfig:
    """Fill in the rest from the data and the model, and say so."""
    most = max(len(image.labels) for image in train_set.images)
    shape = base or config_for(config.model)
    chosen = fill(config, shape, pictures=len(train_set), most=most, keep_shape=base is not None)
    changes = {key: new for key, (_, new) in differences(config, chosen).items()}
    if changes:
        words = ", ".join(f"{key} {value}" for key, value in changes.items())
        report.say(f"chosen for {len(train_set)} pictures and {config.model}: {words}")
    return chosen


def _with_processes(
    config: TrainConfig, device: torch.device, extra_transform: ExtraTransform | None, team: Team | None
) -> TrainConfig:
    if team is not None:
        check_shares(config, team.size)
        return dataclasses.replace(config, processes=team.size)
    return dataclasses.replace(config, processes=count_processes(config, device, extra=extra_transform))


def _with_length(config: TrainConfig, *, pictures: int) -> TrainConfig:
    if config.minutes is not None:
        return config
    batches = -(-pictures // settled("batch", config.batch))
    return dataclasses.replace(config, epochs=epochs_for(config, batches=batches))


def _make_trainer(
    plan: Plan,
    train_set: Dataset,
    device: torch.device,
    folder: RunFolder,
    report: Report,
    *,
    saved: Saved | None,
    start: tuple[Model, ModelInfo] | None,
    team: Team,
) -> Trainer:
    config, shape = plan.config, plan.shape
    seed_everything(config.seed)
    classes, moved = len(train_set.names), None
    if saved:
        model, origin = build(shape, classes=classes), "resumed"
    elif start:
        model, moved = tune_model(shape, names=train_set.names, start=start)
        origin = moved.summary(config.weights)
    else:
        model, origin = make_model(config, shape, classes=classes)
    trainable = sum(p.numel() for p in model.parameters())
    report.say(f"{config.model}: {trainable / 1e6:.2f} M parameters, backbone {shape.backbone}, {origin}")
    if moved and moved.table():
        folder.write_text(UNTAKEN, moved.table() + "\n")
        report.say(f"what was not taken whole, and why, is in {folder.file(UNTAKEN)}; it begins with")
        for line in moved.table().splitlines()[:5]:
            report.say(f"  {line}")
    if (config.freeze_stages or config.learn) and not (saved or config.weights or config.backbone_weights):
        report.say("warning: what is frozen keeps random weights; give --weights or --backbone-weights")
    return make_trainer(plan, model, classes=classes, device=device, team=team)


def _continue(saved: Saved | None, trainer: Trainer, folder: RunFolder) -> Position:
    if saved is None:
        return Position()
    restore(saved, trainer)
    position = dataclasses.replace(saved.position, resumes=saved.position.resumes + 1)
    if not (folder.path / BEST).is_file():  # another folder, or deleted: the next score is the best again
        position = dataclasses.replace(position, best=-1.0, best_epoch=-1, since_best=0, evaluated_step=-1)
    return position


def _check_same(
    saved: Saved, config: TrainConfig, shape: ModelConfig, info: ModelInfo, report: Report
) -> None:
    """Refuse to go on with another model or other classes; name every other setting that changed.

    Raises:
        CheckpointError: model or classes differ.
    """
    then, now = saved.checkpoint.info, info
    differing = [
        f"{name} {old!r} -> {new!r}"
        for name, old, new in (
            ("classes", then.names, now.names),
            *(
                (f.name, getattr(saved.checkpoint.config, f.name, None), getattr(shape, f.name))
                for f in dataclasses.fields(shape)
            ),
        )
        if old != new
    ]
    if differing:
        raise CheckpointError(
            f"[train] {saved.path} must be resumed with the same model and classes, "
            f"found {'; '.join(differing)}; "
            f"give the same settings, or start anew with --weights {saved.path}"
        )
    changed = {k: v for k, v in differences(saved.config, config).items() if k not in ("out", "resume")}
    if changed:
        words = "; ".join(f"{key} {old!r} -> {new!r}" for key, (old, new) in changed.items())
        report.say(f"resumed with other settings: {words}")


def _say_start(
    report: Report, config: TrainConfig, data: Data, device: torch.device, folder: RunFolder
) -> None:
    boxes = sum(len(image.labels) for image in data.train.images)
    length = f"{config.minutes:g} minutes" if config.minutes else f"{config.epochs} epochs"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else platform.machine()
    report.say(
        f"detrx {detrx.__version__}, torch {torch.__version__}, {device} ({name}), "
        f"{_hands(config)}; "
        f"{config.model} at {config.canvas[0]}x{config.canvas[1]}, {length}"
    )
    report.say(
        f"{config.data}: {len(data.train)} pictures, {boxes} boxes, {len(data.train.names)} classes "
        f"({', '.join(data.train.names[:8])}{', ...' if len(data.train.names) > 8 else ''}); "
        f"evaluated on {len(data.val)}; run folder {folder.path}"
    )
    for dataset in {id(d): d for d in (data.train, data.val)}.values():
        for line in dataset.report.lines():
            report.say(f"{dataset.annotation_file}: {line}")
    if data.val is data.train:
        report.say(f"warning: there is no split {config.val_split!r}, so scores are of the training pictures")
    else:
        _warn_of_leaks(report, data)


def _hands(config: TrainConfig) -> str:
    size = int(config.processes)
    if size == 1:
        return f"{torch.get_num_threads()} of {os.cpu_count()} threads"
    if world():
        return f"{size} processes"
    return f"{size} processes of {threads_each(config, size)} threads on {os.cpu_count()}"


def _warn_of_leaks(report: Report, data: Data) -> None:
    """Once, before the first step; the run goes on, for a handful of them does little harm."""
    found = leaks(data.train, data.val)
    if found:
        first, again = found[0]
        report.say(
            f"warning: leak: {len(found)} of the {len(data.val)} pictures that the run is scored on are trained on "
            f"too, so scores will be too good; the first: {first} = {again}; `detrx data check` lists them"
        )
