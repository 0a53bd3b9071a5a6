"""``detrx tracks``: score tracks against the truth."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Sequence

import tyro
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table
from tyro.conf import Positional

from detrx.evaluation.track_files import films
from detrx.evaluation.tracking import TrackCounts, TrackMetrics, as_row, count

SHARES = {"HOTA": "hota", "DetA": "det_a", "AssA": "ass_a", "IDF1": "idf1", "MOTA": "mota"}
COUNTS = {"IDSW": "switches", "Frag": "fragments", "missed": "missed", "false": "false"}


@dataclass(frozen=True)
class TracksConfig:
    """Score tracks against the truth: HOTA, IDF1, MOTA and what goes into them."""

    truth: Positional[str]
    """MOTChallenge's gt.txt, JSON lines as `detect --track` writes them, test://shapes?seed=1&frames=300 for what is
    truly in the generated scenes, or a folder of NAME/gt/gt.txt."""
    found: Positional[str]
    """The tracks: .jsonl or MOTChallenge's .txt, or a folder of NAME.txt."""
    by_class: bool = False
    """An object that is found in another class is not found. Files of MOTChallenge have one class."""
    out: Optional[Path] = None
    """Write all numbers to this JSON file."""


def run(args: Sequence[str]) -> int:
    config = tyro.cli(TracksConfig, args=list(args), prog="detrx tracks")
    rows: Dict[str, TrackMetrics] = {}
    total = TrackCounts()
    for name, truth, found in films(config.truth, config.found):
        counted = count(truth, found, by_class=config.by_class)
        total += counted
        rows[name] = counted.metrics()
    if len(rows) > 1:
        rows["all"] = total.metrics()
    show(rows)
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps({name: as_row(row) for name, row in rows.items()}, indent=1)
        config.out.write_text(text + "\n", encoding="utf-8")
        print(f"wrote {config.out}")
    return 0


def show(rows: Dict[str, TrackMetrics]) -> None:
    """A line for each film."""
    table = Table(box=SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("film", *SHARES, *COUNTS):
        table.add_column(heading, justify="left" if heading == "film" else "right")
    for name, row in rows.items():
        shares = (f"{getattr(row, key):.4f}" for key in SHARES.values())
        table.add_row(name, *shares, *(str(getattr(row, key)) for key in COUNTS.values()))
    Console(highlight=False).print(table)
    last = list(rows.values())[-1]
    print(f"{last.frames} frames, {last.objects} objects, {last.tracks} tracks")
