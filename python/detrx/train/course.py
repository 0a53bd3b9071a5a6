"""The part of a run that every process takes, from the plan that the first one made to the result."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from detrx.data.coco import Dataset
from detrx.errors import ConfigError
from detrx.evaluation.coco import Metrics, Prediction, score
from detrx.evaluation.panoptic import PanopticScore, division_of
from detrx.evaluation.panoptic_run import divisions
from detrx.evaluation.run import Answer, ModelBackend, predict_dataset
from detrx.models.zoo import Model, ModelConfig, build
from detrx.train.config import TrainConfig
from detrx.train.config_file import plain
from detrx.train.curves import draw_curves, draw_scores
from detrx.train.distributed import Team
from detrx.train.fit import Fit, Kept
from detrx.train.folder import BEST, RunFolder
from detrx.train.loop import Trainer
from detrx.train.report import Report
from detrx.train.schedule import Clock
from detrx.train.setup import (
    Data,
    criterion_for,
    loss_for,
    make_loader,
    open_data,
    seed_everything,
    truth_of,
)
from detrx.train.signals import Stop
from detrx.train.state import Position, share_state
from detrx.types import ModelInfo

if TYPE_CHECKING:
    from detrx.data.transforms import ExtraTransform


SURE = 0.5
"""The score from which a query takes part in a picture's division while a model learns: that it is more sure than not.
The published 0.85 is of finished models, and young ones would all be worth nothing."""


@dataclass(frozen=True)
class RunResult:
    """What a finished run leaves behind."""

    folder: Path
    """Holds config.yaml, log.csv, log.jsonl, results.png, best and last weights."""
    best: Path
    """The best averaged weights."""
    metrics: Metrics
    """The last evaluation's; the best score of all is ``best_map``."""
    best_map: float
    """``Metrics.main``: PQ of a panoptic model, else mAP, of masks where the model has them."""
    steps: int
    seconds: float
    """Wall clock of all processes of the run, evaluations included."""
    pictures_per_second: float
    """Of training alone."""
    page: Path | None = None
    """Shows the last evaluation: curves, confusions, the worst pictures, which lie beside it as PNG."""


@dataclass(frozen=True)
class Plan:
    """What the first process decides for all."""

    asked: TrainConfig
    """The settings as the user gave them."""
    config: TrainConfig
    """The same with nothing left open."""
    shape: ModelConfig
    info: ModelInfo
    folder: Path
    """The run folder, in which the first process alone writes."""


def agree(team: Team, plan: Plan | None, *, asked: TrainConfig | None = None) -> tuple[Plan, Data]:
    """Hear the plan of the first process and open the data; refuse to begin unless all were given the same.

    Args:
        plan: the first process's own; None in the others.
        asked: the settings that this process was given; None: none of its own.

    Raises:
        ConfigError: in all processes; it names what differs.
        DataError: the data cannot be read.
    """
    plan = team.tell(plan)
    if plan is None:
        raise ConfigError("[train] the first process must have a plan, found none")
    team.check_same("settings", plain(asked or plan.asked))
    data = open_data(plan.config, truth=truth_of(plan.info))
    team.check_same("data", {"train": _outline(data.train), "val": _outline(data.val)})
    return plan, data


def _outline(dataset: Dataset) -> str:
    boxes = sum(len(image.labels) for image in dataset.images)
    return f"{len(dataset)} pictures, {boxes} boxes of {', '.join(dataset.names)}"


def make_trainer(plan: Plan, model: Model, *, classes: int, device: torch.device, team: Team) -> Trainer:
    loss = loss_for(plan.config.loss, plan.shape)
    return Trainer(
        model,
        plan.config,
        loss=loss,
        classes=classes,
        queries=model.queries_for(plan.config.canvas),
        device=device,
        criterion=criterion_for(loss, plan.shape, classes=classes, total=team.total),
        team=team,
    )


def follow(
    team: Team,
    device: torch.device,
    *,
    asked: TrainConfig | None = None,
    extra_transform: ExtraTransform | None = None,
) -> RunResult:
    """Train beside the first process, as it says.

    Args:
        asked: the settings that this process was given; None: none of its own.

    Raises:
        DetrxError: as train does; also where another process is gone.
    """
    plan, data = agree(team, None, asked=asked)
    seed_everything(plan.config.seed)
    model = build(plan.shape, classes=len(data.train.names))
    trainer = make_trainer(plan, model, classes=len(data.train.names), device=device, team=team)
    return take_part(
        plan,
        trainer,
        Position(),
        data,
        RunFolder(plan.folder),
        Report(quiet=True),
        extra_transform=extra_transform,
    )


def take_part(
    plan: Plan,
    trainer: Trainer,
    position: Position,
    data: Data,
    folder: RunFolder,
    report: Report,
    *,
    extra_transform: ExtraTransform | None = None,
) -> RunResult:
    """Train from where the first process stands to the end; see train."""
    team, config = trainer.team, plan.config
    share_state(team, trainer)
    position = team.tell(position)
    loader = make_loader(config, data.train, plan.info, extra=extra_transform, team=team)
    clock = Clock(
        steps=config.epochs * len(loader) if config.epochs else None,
        budget=config.minutes * 60 if config.minutes else None,
        step=position.step,
        before=position.seconds,
    )
    backend = ModelBackend(trainer.ema.model, plan.info)
    latest: list[Prediction] = []

    def evaluate() -> Metrics:
        metrics, latest[:] = _evaluate(team, backend, data.val)
        return metrics

    fit = Fit(
        trainer,
        loader,
        clock=clock,
        position=position,
        evaluate=evaluate,
        folder=folder,
        kept=Kept(plan.info, plan.shape, config),
        report=report,
    )
    with Stop() as stop:
        stop.number = fit.run(stop)
    if stop.number is not None:
        report.say(f"stopped at step {clock.step}, saved in {folder.path}; go on with --resume {folder.path}")
        stop.raise_asked()
    return _result(plan, position, clock, data.val, latest, folder if team.is_first else None)


def _evaluate(team: Team, backend: ModelBackend, val: Dataset) -> tuple[Metrics, list[Prediction]]:
    """Each process looks at its share of the pictures; the first one scores them all, each once."""
    rows = team.share(len(val.images))
    mine = dataclasses.replace(val, images=val.images[rows.start : rows.stop])
    divided = PanopticScore(len(val.names))

    def divide(answer: Answer) -> None:
        truth, found = divisions(answer, val, info=backend.info, threshold=SURE)
        divided.add(truth, division_of(found))

    predictions = predict_dataset(backend, mine, also=divide if backend.info.things else None)
    shares = team.gather((predictions, divided))
    found = [one for share, _ in shares for one in share]
    metrics = team.tell(_score(val, found, [one for _, one in shares]) if team.is_first else None)
    if metrics is None:
        raise ConfigError("[train] the first process must have a score, found none")
    return metrics, found


def _score(val: Dataset, found: list[Prediction], divided: list[PanopticScore]) -> Metrics:
    """The COCO numbers of all pictures, and panoptic quality where they were divided."""
    metrics, first = score(val, found), divided[0]
    for other in divided[1:]:
        first.merge(other)
    if not first.images:
        return metrics
    quality = first.metrics(names=val.names, things=val.things)
    return dataclasses.replace(metrics, panoptic=quality.numbers())


def _result(
    plan: Plan,
    position: Position,
    clock: Clock,
    val: Dataset,
    latest: list[Prediction],
    folder: RunFolder | None,
) -> RunResult:
    """What the run leaves behind; curves and pictures are drawn where there is a folder to write to."""
    metrics, page, seconds = Metrics(**position.metrics), None, clock.seconds
    if folder is not None:
        draw_curves(folder)
        title = f"{plan.config.model} after {clock.step} steps on {plan.config.data} ({val.split})"
        page = draw_scores(folder, metrics, latest, val, title=title) if latest else None
    return RunResult(
        folder=plan.folder,
        best=plan.folder / BEST,
        metrics=metrics,
        best_map=position.best,
        steps=clock.step,
        seconds=seconds,
        pictures_per_second=position.pictures / max(position.training_seconds, 1e-9),
        page=page,
    )
