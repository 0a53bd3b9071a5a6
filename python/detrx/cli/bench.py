"""``detrx bench``: a table of milliseconds."""

from __future__ import annotations

from typing import Sequence

import tyro
from rich.console import Console
from rich.table import Table

from detrx.bench import BenchConfig, BenchReport, bench


def run(args: Sequence[str]) -> int:
    config = tyro.cli(BenchConfig, args=args, prog="detrx bench")
    report = bench(config)
    show(report)
    if config.out is not None:
        print(f"wrote {config.out}")
    return 0


def show(report: BenchReport) -> None:
    """Print the table, and under it what the numbers are of."""
    height, width = report.canvas
    table = Table(title=f"{report.model} at {height} x {width}, milliseconds over {report.frames} frames")
    table.add_column("stage")
    for name in ("p50", "p95", "p99"):
        table.add_column(name, justify="right")
    for stage, row in report.stages.items():
        table.add_row(
            stage, *(f"{row[name]:.2f}" for name in ("p50", "p95", "p99")), end_section=stage == "write"
        )
    Console().print(table)
    print(
        '"frame" is letterbox + infer + finish: uint8 picture in, boxes out. "all" adds source, drawing, writing.'
    )
    print(f"{report.fps:.1f} frames/s, {report.memory_mb:.0f} MiB resident, {report.backend}")
    print(f"{report.machine}; source {report.source}")
