"""detrx train: settings from the command line and files, the table at the end."""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, List, Optional, Sequence

import tyro
from rich.console import Console
from rich.table import Table

from detrx.cli.options import take_option
from detrx.train.config import TrainConfig
from detrx.train.config_file import (
    config_from,
    differences,
    plain,
    read_config,
    read_settings,
    without_length,
)
from detrx.train.folder import CONFIG
from detrx.train.recipes import RECIPES, recipe_for

if TYPE_CHECKING:
    from detrx.train.course import RunResult


def run(args: Sequence[str]) -> int:
    """Train; returns the exit code.

    Raises:
        DetrxError: whatever stops the run.
    """
    config = parse(args)
    from detrx.train.distributed import is_first
    from detrx.train.run import train

    result = train(config)
    if is_first():
        show(result, config)
    return 0


def parse(args: Sequence[str]) -> TrainConfig:
    """Settings from the command line, over those of ``--config FILE`` or of the run that ``--resume`` names, over those
    of ``--recipe NAME``.

    Raises:
        ConfigError: a file that cannot be read, an unknown key, or a value that does not fit.
    """
    rest, file = take_option(args, "--config")
    rest, recipe = take_option(rest, "--recipe")
    path = Path(file) if file else _resumed_config(rest)
    base = recipe_for(recipe) if recipe else TrainConfig()
    if path:
        base = read_config(path, base=base)
    if path and not file:  # the folder may have moved since it was written down
        base = dataclasses.replace(base, out=str(path.parent))
    base = _without_other_length(base, rest)
    found = tyro.cli(
        TrainConfig,
        args=list(rest),
        default=base,
        prog="detrx train",
        description="Train a detector on a COCO data set. --config FILE.yaml reads settings; --recipe NAME begins with "
        f"those of a published or measured way to train DETR: {', '.join(RECIPES)}.",
    )
    if path:
        _say_overrides(path, base, found)
    return config_from(plain(found))  # options are checked as strictly as a file


def _resumed_config(args: Sequence[str]) -> Optional[Path]:
    """The settings of the run that is to go on, so that they need not be typed again."""
    _, resume = take_option(args, "--resume")
    _, out = take_option(args, "--out")
    place = out if resume == "auto" else resume
    if not place:
        return None
    folder = Path(place) if Path(place).is_dir() else Path(place).parent
    path = folder / CONFIG
    return path if path.is_file() else None


def _without_other_length(base: TrainConfig, args: Sequence[str]) -> TrainConfig:
    """A length on the command line replaces the file's or recipe's, be it in epochs or minutes."""
    has = [
        name for name in ("--epochs", "--minutes") if any(a == name or a.startswith(name + "=") for a in args)
    ]
    return without_length(base) if has else base


def _say_overrides(path: Path, base: TrainConfig, found: TrainConfig) -> None:
    asked = read_settings(path)
    for key, (old, new) in differences(base, found).items():
        if key.split(".")[0] in asked:
            print(f"{key}: {new} from the command line, not {old} from {path}", file=sys.stderr)


def show(result: RunResult, config: TrainConfig) -> None:
    """The scores and the next commands to type."""
    metrics = result.metrics
    print(f"{result.folder}: {result.steps} steps, {result.pictures_per_second:.1f} pictures/s")
    table = Table()
    masks = ("mask mAP", "mask AP50") if metrics.masks else ()
    for heading in ("class", "mAP", "AP50", *masks):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    of_masks = (metrics.masks["ap"], metrics.masks["ap50"]) if masks else ()
    table.add_row("all", *map(_share, (metrics.ap, metrics.ap50, *of_masks)))
    for name, pair in metrics.per_class.items():
        table.add_row(name, *map(_share, (*pair, *metrics.masks_per_class.get(name, ()))))
    Console(highlight=False).print(table)
    if metrics.panoptic:
        parts = "  ".join(f"{name.replace('_', ' of ')} {_share(v)}" for name, v in metrics.panoptic.items())
        print(f"divided from score 0.5 on: {parts}")
    kind = "PQ" if metrics.panoptic else "mAP"
    print(f"best {kind} {result.best_map:.3f} in {result.best}, after {result.seconds / 60:.1f} minutes")
    if result.page is not None:
        print(f"look at {result.page}")
    print("next:")
    for command in next_commands(result.best, config.data):
        print(f"  {command}")


def next_commands(best: Path, data: str) -> List[str]:
    return [
        f"detrx eval {best} --data {data} --split test",
        f"detrx export {best} --to onnx",
        f"detrx detect PHOTO_OR_FOLDER --model {best}",
    ]


def _share(value: Any) -> str:
    return "-" if value < 0 else f"{value:.3f}"
