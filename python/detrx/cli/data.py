"""detrx data check: look a data set over before training on it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Sequence

import tyro
from rich.console import Console
from rich.table import Table

from detrx.data.check import CheckResult, check
from detrx.data.check_page import size_bins
from detrx.errors import ConfigError

_USAGE = "usage: detrx data check ROOT [--out FOLDER] [--max-bad SHARE] [--no-decode]"


@dataclass(frozen=True)
class CheckConfig:
    """Check every split of a COCO data set; writes report.html and report.json."""

    root: tyro.conf.Positional[Path]
    """The data set's folder."""
    out: Path = Path("runs/data-check")
    """Folder for the report."""
    max_bad: float = 0.01
    """Largest share, in [0, 1], of skipped boxes and of skipped images."""
    decode: bool = True
    """Decode every picture as well."""


def run(args: Sequence[str]) -> int:
    """Check a data set.

    Returns:
        0 where every split can be trained on, else 2.

    Raises:
        DetrxError: no data set, or an unknown sub-command.
    """
    if not args or args[0] in ("-h", "--help"):
        print(_USAGE)
        return 0 if args else 2
    if args[0] != "check":
        raise ConfigError(f"[data] the command must be check, found {args[0]!r}. Type: detrx data check ROOT")
    config = tyro.cli(CheckConfig, args=list(args[1:]), prog="detrx data check")
    result = check(config.root, out=config.out, max_bad=config.max_bad, decode=config.decode)
    _show(result, config)
    return 0 if result.sound else 2


def _show(result: CheckResult, config: CheckConfig) -> None:
    console = Console(highlight=False)
    table = Table(title=result.root)
    for heading in ("split", "images", "boxes", "without a box", "crowds", "skipped"):
        table.add_column(heading, justify="left" if heading == "split" else "right")
    for s in result.splits:
        if not s.error:
            skipped = sum(s.skipped.values())
            table.add_row(s.split, *(str(n) for n in (s.images, s.boxes, s.negatives, s.crowds, skipped)))
    console.print(table)
    console.print(_class_table(result))
    _say_findings(result)
    print(f"report: {config.out / 'report.html'}")


def _class_table(result: CheckResult) -> Table:
    """Boxes of each class, then of each size."""
    whole = [s for s in result.splits if not s.error]
    table = Table()
    table.add_column("class / size")
    for s in whole:
        table.add_column(s.split, justify="right")
    for name in dict.fromkeys(name for s in whole for name in s.classes):
        table.add_row(name, *(str(s.classes.get(name, 0)) for s in whole))
    table.add_section()
    bins = [size_bins(s.sizes) for s in whole]
    for name in bins[0] if bins else ():
        table.add_row(f"{name} px", *(str(b[name]) for b in bins))
    return table


def _say_findings(result: CheckResult) -> None:
    for s in result.splits:
        if s.error:
            print(f"{s.split}: ERROR {s.error}", file=sys.stderr)
        for reason, count in s.skipped.items():
            print(f"{s.split}: skipped {count} x {reason}, first: {s.examples[reason][0]}")
        for text in s.warnings:
            print(f"{s.split}: warning: {text}")
        for problem in s.broken:
            print(f"{s.split}: ERROR {problem}", file=sys.stderr)
    if result.leaks:
        print(f"warning: leak: {len(result.leaks)} pictures occur twice, first: {result.leaks[0]}")
