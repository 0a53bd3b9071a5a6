"""``detrx estimate``: a table of what a model would take on a device that is not here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, Optional, Sequence, Tuple

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from detrx.errors import ConfigError
from detrx.estimate.roofline import EXPECTED, GOOD, LayerTime
from detrx.estimate.run import FAMILIES, Estimate, estimate


@dataclass(frozen=True)
class EstimateConfig:
    """Say what a model would take on a device that is not here: its work counted, laid under the device's limits."""

    model: Positional[Tuple[str, ...]]
    """.onnx files, names of models (rt-n, detr-r18, ...), which are built with random weights, or "rt" or "detr" for
    all sizes of a family. Several are compared in one table."""
    device: str = "xavier-nx"
    """xavier-nx, orin-nano, orin-nx, agx-orin, t4, h200, rtx-4090 or cpu (a laptop of 4 cores)."""
    precision: Optional[Tuple[str, ...]] = None
    """One or several of fp32, fp16, int8-conv (8 bits in convolutions alone), int8; none: all, of a processor fp32."""
    batch: int = 1
    """Images of one call."""
    canvas: Optional[Tuple[int, int]] = None
    """Height and width where the file leaves them open, or of a name; none: 640 640 for rt, 480 640 for detr."""
    layers: int = 0
    """Also print so many of the slowest layers, at the first precision."""
    fused_attention: bool = False
    """Scores of attention stay on the chip, as in TensorRT 10 (JetPack 6) and with our plugin in 8.5."""
    picture: Optional[Path] = None
    """Draw the layers under the device's roofline here: a .png, or a .txt without matplotlib."""
    out: Optional[Path] = None
    """Write all of it, each layer too, here as JSON."""


def run(args: Sequence[str]) -> int:
    config = tyro.cli(EstimateConfig, args=list(args), prog="detrx estimate")
    names = [name for model in config.model for name in FAMILIES.get(model, (model,))]
    if not names or (len(names) > 1 and (config.layers or config.picture)):
        raise ConfigError("[estimate] --layers and --picture are of one model; name one")
    found = [
        estimate(
            name,
            device=config.device,
            precisions=config.precision,
            batch=config.batch,
            canvas=config.canvas,
            fused_attention=config.fused_attention,
        )
        for name in names
    ]
    if len(found) > 1:
        compare(found)
    else:
        show(found[0])
        if config.layers > 0:
            _show_layers(found[0], config.layers)
        if config.picture is not None:
            from detrx.estimate.picture import draw

            draw(found[0], config.picture)
            print(f"wrote {config.picture}")
    if config.out is not None:
        texts = [one.to_json() for one in found]
        config.out.parent.mkdir(parents=True, exist_ok=True)
        whole = texts[0] if len(texts) == 1 else "[" + ",\n".join(texts) + "]"
        config.out.write_text(whole + "\n", encoding="utf-8")
        print(f"wrote {config.out}")
    return 0


def compare(found: Sequence[Estimate]) -> None:
    """Print a row for each model, and under them what the numbers assume."""
    first = found[0]
    print(f"ideal/expected ms of the network on {first.device.name}, batch {first.batch}")
    table = Table(box=None, pad_edge=False)
    table.add_column("model", overflow="fold")
    for name in ("GFLOP", "weights\nM", *(row.precision for row in first.latencies)):
        table.add_column(name, justify="right", no_wrap=True)
    for one in found:
        name = f"{Path(one.model).stem} {'x'.join(map(str, one.canvas))}"
        times = [f"{row.ideal_ms:.1f}/{row.expected_ms:.1f}" for row in one.latencies]
        table.add_row(escape(name), f"{one.gflop:.1f}", f"{one.parameters_m:.1f}", *times)
    Console().print(table)
    _show_assumptions(first, unknown={name: many for one in found for name, many in one.unknown.items()})


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
    _show_assumptions(found, unknown=found.unknown)


def _show_assumptions(found: Estimate, *, unknown: Dict[str, int]) -> None:
    device = found.device
    if unknown:
        named = ", ".join(f"{many} {name}" for name, many in sorted(unknown.items()))
        print(f"arithmetic not counted: {named}")
    print("An estimate, nothing was run: without reading the picture, resizing it and drawing.")
    scores = (
        "stay on the chip" if found.fused_attention else "go through memory (--fused-attention keeps them)"
    )
    print(
        f"attention: scores {scores}; layers join the pointwise operators behind them; dense, at full clocks"
    )
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
