"""What a run says while it runs: a live display on a terminal, plain lines every few seconds elsewhere."""

from __future__ import annotations

import math
import resource
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn

if TYPE_CHECKING:
    from detrx.evaluation.coco import Metrics

PLAIN_SECONDS = 5.0


@dataclass(frozen=True)
class Pace:
    """Where a run is and how fast."""

    epoch: int
    step: int
    progress: float
    """In [0, 1]."""
    left: float
    """Seconds, infinite while unknown."""
    rate: float
    """Learning rate."""
    pictures_per_second: float
    memory_mb: float
    skipped: int
    losses: Mapping[str, float]
    """Means since the line before."""


def memory_mb(device: torch.device) -> float:
    """The most memory so far: of the device on CUDA, else of the process, in MiB."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / 2**20
    scale = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / scale


class Report:
    """Tells the user; writes to standard error so that standard output stays for results."""

    def __init__(self, *, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet, highlight=False, soft_wrap=True)
        self._bar: Progress | None = None
        self._task = TaskID(0)
        self._last = -math.inf

    def __enter__(self) -> Report:
        if self._console.is_terminal:
            columns = (
                BarColumn(bar_width=24),
                TextColumn("{task.percentage:5.1f}%"),
                TextColumn("{task.description}"),
            )
            self._bar = Progress(*columns, console=self._console)
            self._task = self._bar.add_task("starting", total=1.0)
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar:
            self._bar.stop()

    def say(self, text: str) -> None:
        self._console.print(text, markup=False)

    def step(self, pace: Pace) -> None:
        """Show where the run is."""
        if self._bar:
            self._bar.update(self._task, completed=pace.progress, description=_line(pace))
        elif time.monotonic() - self._last >= PLAIN_SECONDS:
            self._last = time.monotonic()
            self.say(f"{100 * pace.progress:5.1f}% {_line(pace)}")

    def evaluation(self, epoch: int, metrics: Metrics, *, is_best: bool) -> None:
        mark = "  best so far" if is_best else ""
        more = ""
        if metrics.masks:
            more = f"  masks {metrics.masks['ap']:.3f}  AP50 {metrics.masks['ap50']:.3f}"
        if metrics.panoptic:
            more += f"  PQ {metrics.panoptic['pq']:.3f}"
        self.say(f"epoch {epoch}: val mAP {metrics.ap:.3f}  AP50 {metrics.ap50:.3f}{more}{mark}")


def _line(pace: Pace) -> str:
    terms = sorted(
        ((name, value) for name, value in pace.losses.items() if _is_main(name)), key=lambda item: item[0]
    )
    words = [
        f"epoch {pace.epoch}",
        f"step {pace.step}",
        f"left {clock(pace.left)}",
        f"loss {pace.losses.get('loss', math.nan):.3f}",
        "(" + " ".join(f"{name} {value:.3f}" for name, value in terms) + ")",
        f"lr {pace.rate:.1e}",
        f"{pace.pictures_per_second:.1f} pictures/s",
        f"{pace.memory_mb:.0f} MB",
    ]
    return "  ".join(words + ([f"{pace.skipped} steps skipped"] if pace.skipped else []))


def _is_main(name: str) -> bool:
    """The terms of the last layer; those of auxiliary places have a place in their names."""
    return name != "loss" and "_" not in name


def clock(seconds: float) -> str:
    """Seconds as h:mm:ss, or -:-- while unknown."""
    if not math.isfinite(seconds):
        return "-:--"
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"


class Means:
    """Running means of named scalars, kept on the device until they are read."""

    def __init__(self) -> None:
        self._sums: dict[tuple[str, ...], torch.Tensor] = {}
        self.count = 0
        """How many steps were added, those left out included."""

    def add(self, terms: Mapping[str, torch.Tensor], *, kept: torch.Tensor | None = None) -> None:
        """Add a step's scalars; ``kept`` () bool on the device: whether the step counts."""
        self.count += 1
        values = torch.stack([*terms.values(), torch.ones_like(next(iter(terms.values())))])
        values = values if kept is None else torch.where(kept, values, 0)
        names = tuple(terms)
        self._sums[names] = self._sums[names] + values if names in self._sums else values

    def take(self) -> dict[str, float]:
        """The means since the last call; nothing where no step counted."""
        read = {names: values.tolist() for names, values in self._sums.items()}
        self._sums, self.count = {}, 0
        steps = sum(values[-1] for values in read.values())
        found: dict[str, float] = {}
        for names, values in read.items():
            for name, value in zip(names, values):
                found[name] = found.get(name, 0.0) + value / max(steps, 1)
        return found if steps else {}
