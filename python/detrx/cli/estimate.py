"""``detrx estimate``: a table of what a model would take on a device that is not here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional, Sequence, Tuple

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from detrx.estimate.roofline import EXPECTED, GOOD, PRECISIONS, LayerTime
from detrx.estimate.run import Estimate, estimate


@dataclass(frozen=True)
class EstimateConfig:
    """Say what a model would take on a device that is not here: its work counted, laid under the device's limits."""

    model: Positional[str]
    """An .onnx file, or the name of a model (rt-n, detr-r18, ...), which is built with random weights."""
    device: str = "xavier-nx"
    """xavier-nx, orin-nano, orin-nx, agx-orin, t4, h200 or rtx-4090."""
    precision: Tuple[str, ...] = PRECISIONS
    """One or several of fp32, fp16, int8-conv (8 bits in convolutions alone) and int8."""
    batch: int = 1
    """Images of one call."""
    canvas: Optional[Tuple[int, int]] = None
    """Height and width where the file leaves them open, or of a name; none: 640 640 for rt, 480 640 for detr."""
    layers: int = 0
    """Also print so many of the slowest layers, at the first precision."""
    out: Optional[Path] = None
    """Write all of it, each layer too, here as JSON."""


def run(args: Sequence[str]) -> int:
    config = tyro.cli(EstimateConfig, args=list(args), prog="detrx estimate")
    found = estimate(
        config.model,
        device=config.device,
        precisions=config.precision,
        batch=config.batch,
        canvas=config.canvas,
    )
    show(found)
    if config.layers > 0:
        _show_layers(found, config.layers)
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(found.to_json() + "\n", encoding="utf-8")
        print(f"wrote {config.out}")
    return 0


def show(found: Estimate) -> None:
    """Print a row for each precision, and under it what the numbers assume."""
    size = " x ".join(map(str, found.canvas)) or "its own size"
    table = Table(title=f"{found.model} at {size}, batch {found.batch}, on {found.device.name}")
    table.add_column("precision", no_wrap=True)
    headings = (
        "ideal\nms",
        "good\nms",
        "expected\nms",
        "traffic\nMB",
        "weights\nMB",
        "tensors\nMB",
        "memory\nbound",
    )
    for heading in headings:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in found.latencies:
        times = (f"{ms:.2f}" for ms in (row.ideal_ms, row.good_ms, row.expected_ms))
        sizes = (f"{mb:.1f}" for mb in (row.traffic_mb, row.weights_mb, row.activations_mb))
        table.add_row(row.precision, *times, *sizes, f"{row.memory_share:.0%}")
    Console().print(table)
    print(
        f"{found.gflop:.2f} GFLOP (a multiply-add is two), "
        f"{found.parameters_m:.2f} M parameters, {found.kernels} kernels"
    )
    _show_assumptions(found)


def _show_assumptions(found: Estimate) -> None:
    device = found.device
    if found.unknown:
        named = ", ".join(f"{many} {name}" for name, many in sorted(found.unknown.items()))
        print(f"arithmetic not counted: {named}")
    print("An estimate, nothing was run: without reading the picture, resizing it and drawing.")
    print(
        f"{device.name}: {device.fp16:g} TFLOP/s fp16, {device.int8:g} TOP/s int8, {device.fp32:g} TFLOP/s fp32, "
        f"{device.bandwidth:g} GB/s ({device.source})"
    )
    print(
        f"good: {GOOD.matrix:.0%} of the matrix peak, {GOOD.bandwidth:.0%} of the bandwidth; expected: "
        f"{EXPECTED.matrix:.0%}, {EXPECTED.bandwidth:.0%} and {device.launch_us:g} us between kernels (assumed)"
    )


def _show_layers(found: Estimate, many: int) -> None:
    first = found.latencies[0]
    table = Table(title=f"the slowest layers, {first.precision}")
    for name in ("layer", "operators"):
        table.add_column(name, overflow="fold")
    for name in ("GFLOP", "MB", "ideal ms", "expected ms", "waits for"):
        table.add_column(name, justify="right")
    slowest = sorted(first.layers, key=_expected, reverse=True)
    for layer in slowest[:many]:
        numbers = (
            f"{layer.gflop:.3f}",
            f"{layer.mb:.2f}",
            f"{layer.ideal_ms:.3f}",
            f"{layer.expected_ms:.3f}",
        )
        table.add_row(escape(layer.name[-30:]), " ".join(layer.operators), *numbers, layer.bound)
    Console().print(table)


def _expected(layer: LayerTime) -> float:
    return layer.expected_ms
