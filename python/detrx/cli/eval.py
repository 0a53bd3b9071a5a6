"""``detrx eval``: the COCO numbers of a model on a data set, of masks too where it has them."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import tyro
from rich.console import Console
from rich.table import Table

from detrx.evaluation.coco import Metrics
from detrx.evaluation.config import EvalConfig


def run(args: Sequence[str]) -> int:
    config = tyro.cli(EvalConfig, args=list(args), prog="detrx eval")
    from detrx.evaluation.run import evaluate

    metrics = evaluate(
        config.model,
        data=config.data,
        split=config.split,
        device=config.device,
        threads=config.threads,
        batch=config.batch,
        limit=config.limit,
        out=config.out,
        progress=config.progress,
    )
    show(metrics, title=f"{Path(config.model).name} on {config.data} ({config.split})")
    if config.out is not None:
        print(f"look at {Path(config.out) / 'index.html'}")
    return 0


def show(metrics: Metrics, *, title: str) -> None:
    """Print AP by class, then the sizes and recalls on two lines."""
    table = Table(title=title)
    masks = ("mask AP", "mask AP50") if metrics.masks else ()
    for heading in ("class", "AP", "AP50", *masks):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    of_masks = (metrics.masks["ap"], metrics.masks["ap50"]) if masks else ()
    table.add_row("all", *map(_number, (metrics.ap, metrics.ap50, *of_masks)), end_section=True)
    for name, pair in metrics.per_class.items():
        table.add_row(name, *map(_number, (*pair, *metrics.masks_per_class.get(name, ()))))
    Console(highlight=False).print(table)
    sizes = ((n, getattr(metrics, f"ap_{n}")) for n in ("small", "medium", "large"))
    print(f"AP75 {_number(metrics.ap75)}  " + "  ".join(f"{n} {_number(v)}" for n, v in sizes))
    recalls = ((n, getattr(metrics, f"ar_{n}")) for n in ("1", "10", "100"))
    print("recall with the best " + "  ".join(f"{n}: {_number(v)}" for n, v in recalls))
    print(f"{metrics.counts['images']} images, {metrics.counts['truths']} objects")


def _number(value: float) -> str:
    return "-" if value < 0 else f"{value:.4f}"
