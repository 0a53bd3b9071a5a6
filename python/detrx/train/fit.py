"""The run from the first epoch to the last: steps, evaluations, saves, and stopping in between."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from detrx.models.checkpoint import read_checkpoint
from detrx.models.zoo import ModelConfig
from detrx.tensors import Batch
from detrx.train.config import TrainConfig
from detrx.train.folder import BEST, STATE, RunFolder
from detrx.train.log import Log
from detrx.train.loop import BAD_IN_A_ROW, Step, Trainer
from detrx.train.report import Means, Pace, Report, memory_mb
from detrx.train.schedule import Clock, is_strong
from detrx.train.signals import Stop
from detrx.train.state import Position, save_best, save_state
from detrx.types import ModelInfo

if TYPE_CHECKING:
    from detrx.data.loader import TrainLoader
    from detrx.evaluation.coco import Metrics

EVALUATIONS = 10
"""How many a run has unless told otherwise."""
LOG_SECONDS = 5.0


@dataclass(frozen=True)
class Kept:
    """What every checkpoint of the run says of itself."""

    info: ModelInfo
    model: ModelConfig
    config: TrainConfig


class Fit:
    """One process's share of a run."""

    def __init__(
        self,
        trainer: Trainer,
        loader: TrainLoader,
        *,
        clock: Clock,
        position: Position,
        evaluate: Callable[[], Metrics],
        folder: RunFolder,
        kept: Kept,
        report: Report,
    ) -> None:
        self._team = trainer.team
        self._asked: int | None = None
        self._must_log = self._must_save = False
        self.trainer, self.loader, self.clock, self.position = trainer, loader, clock, position
        # A run that was made longer is no longer where its last evaluation was.
        position.evaluated = min(position.evaluated, clock.progress)
        self._evaluate, self._folder, self._kept, self._report = evaluate, folder, kept, report
        self._log = Log(folder, rows=position.log_rows, resumes=position.resumes)
        self._means = Means()
        self._saved = self._logged = time.monotonic()
        self._rate = 0.0

    def run(self, stop: Stop) -> int | None:
        """Train to the end, or until ``stop`` was asked in any process; the state is saved either way.

        Returns:
            The signal that asked, or None at the end.

        Raises:
            CheckpointError: the state cannot be written.
            TrainingError: the numbers stay NaN or infinite.
        """
        self._listen(stop)
        while not self._is_done() and self._asked is None:
            self._epoch(stop)
            if self._asked is None and self._evaluation_is_due():
                self._score()
                self._listen(stop)
            self._save_if_due()
        if self._asked is None and self.position.evaluated_step != self.clock.step:
            self._score()
        if self._means.count:
            self._write_log()
        self._save()
        return self._asked

    def _listen(self, stop: Stop) -> None:
        """Let time pass: the first process's clock counts, and a signal to any process."""
        now = time.monotonic()
        its = (
            self.clock.seconds,
            float(now - self._logged >= LOG_SECONDS),
            float(now - self._saved >= self._kept.config.save_every),
        )
        number, seconds, must_log, must_save = self._team.most(
            float(stop.number or 0), *(its if self._team.is_first else (0.0,) * len(its))
        )
        self.clock.tick(seconds)
        self._asked, self._must_log, self._must_save = int(number) or None, bool(must_log), bool(must_save)

    # --- steps

    def _epoch(self, stop: Stop) -> None:
        place = self.position
        started = time.monotonic()
        for batch in self._batches():
            self._step(batch)
            place.training_seconds += time.monotonic() - started
            self._listen(stop)
            if self._must_log:
                self._write_log()
            if self._asked is not None or self._is_over():
                break
            if place.batch < len(self.loader):
                self._save_if_due()
            started = time.monotonic()
        if place.batch >= len(self.loader) or self._is_over():
            place.epoch, place.batch = place.epoch + 1, 0

    def _batches(self) -> Iterator[Batch]:
        place = self.position
        first = self.clock.step - place.batch

        def strong(number: int) -> bool:
            return is_strong(self.clock.progress_at(first + number), until=self._kept.config.strong_until)

        return self.loader.epoch(place.epoch, strong=strong, start=place.batch)

    def _step(self, batch: Batch) -> None:
        done: Step = self.trainer.step(batch, self.clock.progress)
        place = self.position
        place.batch += 1
        self.clock.step += 1
        place.pictures += self.loader.batch
        self._rate = done.rate
        if done.terms is not None:
            self._means.add(done.terms, kept=done.kept)
        if self.trainer.health.in_row >= BAD_IN_A_ROW:
            self._recover()

    def _recover(self) -> None:
        best = self._folder.path / BEST
        weights = None
        if self._team.is_first and best.is_file():
            weights = read_checkpoint(best).part("model.")
        weights = self._team.tell(weights)
        self.trainer.recover(weights)
        origin = "the best" if weights else "the averaged"
        self._report.say(f"{BAD_IN_A_ROW} steps in a row were not finite: back to {origin} weights")
        self._write("recovery", self._numbers())

    # --- when

    def _is_over(self) -> bool:
        return self.clock.progress >= 1

    def _is_done(self) -> bool:
        patience = self._kept.config.patience
        return self._is_over() or bool(patience and self.position.since_best >= patience)

    def _evaluation_is_due(self) -> bool:
        if self._is_over():
            return True
        every = self._kept.config.eval_every
        if every:
            return self.position.epoch - self.position.evaluated_epoch >= every
        return int(self.clock.progress * EVALUATIONS) > int(self.position.evaluated * EVALUATIONS)

    # --- scores and files

    def _score(self) -> None:
        if self._means.count:
            self._write_log()
        place = self.position
        metrics = self._evaluate()
        is_better = metrics.main > place.best or place.best_epoch < 0
        is_best = (
            is_better or metrics.main == place.best
        )  # at first all are worth nothing: the latest knows most
        place.evaluated, place.evaluated_step = self.clock.progress, self.clock.step
        place.evaluated_epoch = place.epoch
        place.metrics = dataclasses.asdict(metrics)
        place.since_best = 0 if is_better else place.since_best + 1
        if is_best:
            place.best, place.best_epoch = metrics.main, place.epoch
            self._save_best(place.metrics)
        self._report.evaluation(place.epoch, metrics, is_best=is_best)
        self._write("evaluation", {**self._numbers(), "map": metrics.ap, **place.metrics})

    def _save_best(self, metrics: dict[str, Any]) -> None:
        if not self._team.is_first:
            return
        extra = {"epoch": self.position.epoch, "step": self.clock.step, "metrics": metrics}
        save_best(
            self._folder.file(BEST),
            self.trainer,
            info=self._kept.info,
            model_config=self._kept.model,
            extra=extra,
        )

    def _save_if_due(self) -> None:
        if self._must_save:
            self._save()

    def _save(self) -> None:
        self.trainer.read_health()
        if not self._team.is_first:
            return
        place = self.position
        place.step, place.seconds, place.log_rows = self.clock.step, self.clock.seconds, self._log.rows
        kept = self._kept
        save_state(
            self._folder.file(STATE),
            self.trainer,
            place,
            info=kept.info,
            model_config=kept.model,
            config=kept.config,
        )
        self._saved = time.monotonic()

    # --- words

    def _numbers(self) -> dict[str, Any]:
        place = self.position
        return {
            "seconds": round(self.clock.seconds, 3),
            "epoch": place.epoch,
            "step": self.clock.step,
            "progress": round(self.clock.progress, 6),
            "lr": self._rate,
            "pictures_per_second": round(place.pictures / max(place.training_seconds, 1e-9), 2),
            "memory_mb": round(memory_mb(self.trainer.device), 1),
            "skipped": self.trainer.health.skipped,
        }

    def _write(self, event: str, values: dict[str, Any]) -> None:
        if self._team.is_first:
            self._log.write(event, values)

    def _write_log(self) -> None:
        self.trainer.read_health()
        self._logged = time.monotonic()
        losses = self._means.take()
        numbers = self._numbers()
        self._write("step", {**numbers, **losses})
        self._report.step(
            Pace(
                epoch=numbers["epoch"],
                step=numbers["step"],
                progress=numbers["progress"],
                left=self.clock.left,
                rate=self._rate,
                pictures_per_second=numbers["pictures_per_second"],
                memory_mb=numbers["memory_mb"],
                skipped=numbers["skipped"],
                losses=losses,
            )
        )
