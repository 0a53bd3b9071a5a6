"""Draw how long matching takes against images, queries and targets, from the JSON of one or more benchmark runs.

python benchmarks/draw_sweep.py benchmarks/results/*-cpu.json --to docs/guides/match-sweep.png
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import NullFormatter

COLOURS = {"detrx": "#1b7837", "detrx softmax": "#7fbf7b", "rf-detr": "#2166ac", "facebook": "#b2182b"}

Cell = dict[str, Any]


def cells(paths: list[Path]) -> list[Cell]:
    """What each benchmark of bench_match.py noted, with the name of its function."""
    runs = (run for path in paths for run in json.loads(path.read_text(encoding="utf-8"))["benchmarks"])
    return [
        {**run["extra_info"], "name": run["name"].split("[")[0]}
        for run in runs
        if "ms" in run["extra_info"] and "images" in run["extra_info"]
    ]


def line(found: list[Cell], by: str, contender: str) -> tuple[list[float], list[float]]:
    """The places along the axis, and the milliseconds there."""
    points = sorted(
        (cell[by] / (cell["images"] if by == "targets" else 1), cell["ms"][contender])
        for cell in found
        if contender in cell["ms"]
    )
    return [point[0] for point in points], [point[1] for point in points]


def draw(found: list[Cell], to: Path) -> None:
    grid = [cell for cell in found if cell["name"] == "test_match"]
    panels = [
        (
            "images, 300 queries, like COCO",
            [c for c in grid if c["queries"] == 300 and "coco" in c["title"]],
            "images",
        ),
        (
            "images, 300 queries, crowds",
            [c for c in grid if c["queries"] == 300 and "crowd" in c["title"]],
            "images",
        ),
        (
            "queries, 16 images, like COCO",
            [c for c in grid if c["images"] == 16 and "coco" in c["title"]],
            "queries",
        ),
        (
            "targets an image, 8 images, 300 queries",
            [c for c in found if c["name"] == "test_match_by_targets"],
            "targets",
        ),
    ]
    figure, axes = plt.subplots(1, len(panels), figsize=(16, 4.2), sharey=True, layout="constrained")
    for axis, (title, some, by) in zip(axes, panels):
        for contender, colour in COLOURS.items():
            along, ms = line(some, by, contender)
            axis.loglog(along, ms, "o-", color=colour, label=contender, markersize=4)
            axis.set_xticks(along, [f"{at:g}" for at in along], minor=False)
        axis.xaxis.set_minor_formatter(NullFormatter())
        axis.set_xlabel(title)
        axis.grid(visible=True, which="both", alpha=0.25)
    axes[0].set_ylabel("ms for six decoder layers")
    axes[0].legend()
    figure.savefig(to, dpi=110)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("results", nargs="+", type=Path, help="JSON files that pytest-benchmark wrote")
    parser.add_argument("--to", type=Path, default=Path("docs/guides/match-sweep.png"))
    arguments = parser.parse_args()
    draw(cells(arguments.results), arguments.to)
    print(f"wrote {arguments.to}")


if __name__ == "__main__":
    main()
