"""``detrx bench``: a table of milliseconds."""

from __future__ import annotations

from pathlib import Path
from typing import Sequence

import tyro
from rich.console import Console
from rich.table import Table

from detrx.bench import BenchConfig, BenchReport, ModelBench, bench


def run(args: Sequence[str]) -> int:
    config = tyro.cli(BenchConfig, args=args, prog="detrx bench")
    report = bench(config)
    show(report)
    for path in (config.out, config.picture):
        if path is not None:
            print(f"wrote {path}")
    return 0


def show(report: BenchReport) -> None:
    """Print a table for each model, and under them what the numbers are of."""
    for one in report.models:
        _table(one)
    print(
        '"frame" is letterbox + infer + finish: uint8 picture in, boxes out. "all" adds source, drawing, writing.'
    )
    clocks = ", ".join(f"{name} {value:g} MHz" for name, value in report.clocks.items())
    print("; ".join(filter(None, (report.machine, report.power, clocks))))
    print(f"source {report.source}; {report.memory_mb:.0f} MiB resident")
    if len(report.models) > 1:
        first = report.models[0].stages["frame"]["p50"]
        told = (
            f"{Path(one.path).name} {one.stages['frame']['p50'] / first:.2f}" for one in report.models[1:]
        )
        print(f"a frame's p50 against {Path(report.models[0].path).name}: " + ", ".join(told))


def _table(one: ModelBench) -> None:
    height, width = one.canvas
    table = Table(title=f"{one.model} at {height} x {width}, milliseconds over {one.frames} frames")
    table.add_column("stage")
    for name in ("p50", "p95", "p99"):
        table.add_column(name, justify="right")
    for stage, row in one.stages.items():
        table.add_row(
            stage, *(f"{row[name]:.2f}" for name in ("p50", "p95", "p99")), end_section=stage == "write"
        )
    Console().print(table)
    beside = f", {one.throughput:.1f}/s side by side" if one.throughput else ""
    lost = f", {one.dropped} dropped" if one.dropped else ""
    print(
        f"{one.fps:.1f} frames/s one at a time{beside}{lost}, {one.cpu:.2f} cores busy, {one.memory_mb:.0f} MiB more, "
        f"{one.backend}\n"
    )
