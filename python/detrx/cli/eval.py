"""``detrx eval``: the COCO numbers of a model on a data set, of masks too where it has them; or panoptic quality."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Sequence

import tyro
from rich.console import Console
from rich.table import Table

from detrx.evaluation.coco import Metrics
from detrx.evaluation.config import EvalConfig
from detrx.evaluation.panoptic import PanopticMetrics


def run(args: Sequence[str]) -> int:
    config = tyro.cli(EvalConfig, args=list(args), prog="detrx eval")
    title = f"{Path(config.model).name} on {config.data} ({config.split})"
    from detrx.evaluation.panoptic_run import is_panoptic

    if is_panoptic(config.model, data=config.data, device=config.device):
        _run_panoptic(config, title=title)
    else:
        _run(config, title=title)
    if config.out is not None:
        print(f"look at {Path(config.out) / 'index.html'}")
    return 0


def _run(config: EvalConfig, *, title: str) -> None:
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
    show(metrics, title=title)


def _run_panoptic(config: EvalConfig, *, title: str) -> None:
    from detrx.evaluation.panoptic_run import evaluate_panoptic
    from detrx.evaluation.run import bar

    with bar(sys.stderr.isatty() if config.progress is None else config.progress) as progress:
        metrics = evaluate_panoptic(
            config.model,
            data=config.data,
            split=config.split,
            device=config.device,
            threads=config.threads,
            threshold=config.panoptic_threshold,
            limit=config.limit,
            out=config.out,
            progress=progress,
        )
    show_panoptic(metrics, title=title)


def show_panoptic(metrics: PanopticMetrics, *, title: str) -> None:
    """Print panoptic, segmentation and recognition quality of all, things, stuff, and each class."""
    table = Table(title=title)
    for heading in ("class", "PQ", "SQ", "RQ"):
        table.add_column(heading, justify="left" if heading == "class" else "right")
    groups = {"all": metrics.all, "things": metrics.things, "stuff": metrics.stuff}
    for name, one in {**groups, **metrics.per_class}.items():
        table.add_row(name, *map(_number, (one.pq, one.sq, one.rq)), end_section=name == "stuff")
    Console(highlight=False).print(table)
    counts = metrics.counts
    print(
        f"{counts['images']} images, {counts['matched']} of {counts['truths']} segments, {counts['found']} found"
    )


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
