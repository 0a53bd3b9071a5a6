"""``detrx bench``: a table of milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import tyro
from rich.console import Console
from rich.table import Column, Table

from detrx.bench import BenchConfig, BenchReport, ModelBench, bench, title


def run(args: Sequence[str]) -> int:
    config = tyro.cli(BenchConfig, args=args, prog="detrx bench")
    report = bench(config)
    show(report)
    for path in (config.out, config.picture):
        if path is not None:
            print(f"wrote {path}")
    return 0


def show(report: BenchReport) -> None:
    """Print a table for each model, one that compares them, and under them what the numbers are of."""
    for one in report.models:
        _table(one)
    if len(report.models) > 1:
        _comparison(report)
    print('"frame" is letterbox + infer + finish: uint8 picture in, boxes out; "all" adds the source.')
    if len(report.models) > 1:
        print(
            "p50, p99 and cpu are milliseconds of a frame, the last on all cores together; frames/s as many at once."
        )
    clocks = ", ".join(f"{name} {value:g} MHz" for name, value in report.clocks.items())
    print("; ".join(filter(None, (report.machine, report.power, clocks))))
    print(f"source {report.source}; {report.memory_mb:.0f} MiB resident")


def _table(one: ModelBench) -> None:
    print(f"{title(one)}, {one.backend}, milliseconds over {one.frames} frames")
    table = Table()
    table.add_column("stage")
    for name in ("p50", "p95", "p99"):
        table.add_column(name, justify="right")
    for stage, row in one.stages.items():
        table.add_row(
            stage, *(f"{row[name]:.2f}" for name in ("p50", "p95", "p99")), end_section=stage == "finish"
        )
    Console().print(table)
    beside = f", {one.throughput:.1f}/s side by side" if one.throughput else ""
    lost = f", {one.dropped} dropped" if one.dropped else ""
    print(
        f"{one.fps:.1f} frames/s one at a time{beside}{lost}, {one.cpu:.2f} cores busy, {one.memory_mb:.0f} MiB more\n"
    )


def _comparison(report: BenchReport) -> None:
    """A row a model: what a frame takes against the first of them, and what it costs."""
    first = report.models[0]
    heads = ("p50", "p99", "x first", "cpu", "frames/s", "file MiB")
    longest = max(len(Path(one.path).name) for one in report.models)
    table = Table(
        Column("model", min_width=min(longest, 28)), *(Column(head, justify="right") for head in heads)
    )
    for one in report.models:
        row = one.stages["frame"]
        table.add_row(
            Path(one.path).name,
            f"{row['p50']:.2f}",
            f"{row['p99']:.2f}",
            f"{row['p50'] / first.stages['frame']['p50']:.2f}",
            f"{1000 * one.cpu / one.fps:.2f}",
            f"{one.throughput or one.fps:.1f}",
            f"{one.file_mb:.1f}",
        )
    Console().print(table)
