"""``detrx inspect``: tables of an engine's layers and of what proves tensor cores."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Dict, List, Optional, Sequence

import tyro
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from tyro.conf import Positional

from detrx.inspect.layers import short
from detrx.inspect.proof import LayerReport
from detrx.inspect.run import Inspection, inspect


@dataclass(frozen=True)
class InspectConfig:
    """Say what is inside an engine: layers, formats, the share of each precision, and whether tensor cores run it."""

    engine: Positional[Path]
    """An .engine of detrx, which is run here; or the .json of `trtexec --exportLayerInfo`, from any machine."""
    profile: Optional[Path] = None
    """The .json of `trtexec --exportProfile`; an .engine is measured here without it."""
    kernels: Optional[Path] = None
    """A trace: SQLite of `nsys export`, CSV or JSON of `nsys stats`, or Chrome's format (Kineto, from CUPTI)."""
    onnx: Optional[Path] = None
    """The file that the engine was built from: it tells the arithmetic of every layer."""
    device: Optional[str] = None
    """Where it was measured: xavier-nx, orin-nano, orin-nx, agx-orin, t4, h200 or rtx-4090; none: this machine."""
    runs: int = 50
    """Runs to measure of an .engine."""
    layers: int = 15
    """So many of the slowest layers are listed."""
    out: Optional[Path] = None
    """Write all of it, each layer too, here as JSON."""
    picture: Optional[Path] = None
    """Draw it here, as PNG."""


def run(args: Sequence[str]) -> int:
    config = tyro.cli(InspectConfig, args=list(args), prog="detrx inspect")
    found = inspect(
        config.engine,
        profile=config.profile,
        kernels=config.kernels,
        onnx=config.onnx,
        device=config.device,
        runs=config.runs,
    )
    show(found, many=config.layers)
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(found.to_json() + "\n", encoding="utf-8")
        print(f"wrote {config.out}")
    if config.picture is not None:
        from detrx.inspect.picture import draw

        draw(found, config.picture)
        print(f"wrote {config.picture}")
    return 0


def show(found: Inspection, *, many: int) -> None:
    """Print the slowest layers, what the whole is made of, and the evidence."""
    if many > 0:
        _show_layers(found, many)
    of = f" on {found.device}" if found.device else ""
    runs = f", of {found.runs} runs" if found.runs else ""
    timed = "no times" if found.ms is None else f"{found.ms:.3f} ms in layers{of}{runs}"
    print(
        f"{found.source} (TensorRT {found.version}): {len(found.layers)} layers, {found.gflop:.2f} GFLOP known, {timed}"
    )
    for name, part in (
        ("time by precision", found.time_by_precision),
        ("work by precision", found.work_by_precision),
        ("time by operation", found.time_by_operation),
    ):
        if part:
            print(f"{name}: {told(part)}")
    _show_kernels(found)
    print("Do tensor cores run it?")
    for level in found.levels:
        lacks = f" (needs {level.need})" if level.need and level.number < found.reached else ""
        print(
            f"  level {level.number} {'yes' if level.reached else ' - '}  {level.name}: {level.found}{lacks}"
        )
    print(f"reached: level {found.reached} of 3. Next: {found.next}")
    for note in found.notes:
        print(f"note: {note}")


def told(part: Dict[str, float]) -> str:
    """Shares in words, as "fp16 71%, int8 22%, fp32 7%"."""
    return ", ".join(f"{name} {share:.0%}" for name, share in part.items())


def _show_layers(found: Inspection, many: int) -> None:
    slowest = sorted(found.layers, key=lambda layer: -(layer.ms or layer.gflop or 0))[:many]
    print(f"the {'slowest' if found.ms is not None else 'largest'} {len(slowest)} layers")
    table = Table(box=None, pad_edge=False)
    for name in ("layer", "kernel", "type, layout"):
        table.add_column(name, no_wrap=True)
    for name in ("ms", "GFLOP", "TFLOP/s"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in slowest:
        table.add_row(*_cells(layer))
    Console().print(table)
    if any(layer.proven for layer in slowest):
        print("* faster than the CUDA cores could be")


def _cells(layer: LayerReport) -> List[str]:
    numbers = (
        f"{one:.{digits}f}" if one is not None else "-"
        for one, digits in ((layer.ms, 3), (layer.gflop, 3), (layer.tflops, 2))
    )
    ms, gflop, rate = numbers
    kernel = layer.instruction or ("CUDA cores" if layer.cores == "cuda" else f"? {layer.kind[:14]}")
    formats = layer.formats.replace(" > ", " >\n")
    return [
        escape(short(layer.name, most=24)),
        kernel,
        formats,
        ms,
        gflop,
        f"{rate} *" if layer.proven else rate,
    ]


def _show_kernels(found: Inspection) -> None:
    time = sum(kernel.ms for kernel in found.kernels)
    slow = [kernel for kernel in found.kernels if kernel.cores.kind != "tensor"][:3]
    if slow:
        names = "; ".join(f"{kernel.ms / time:.0%} {kernel.name[:60]}" for kernel in slow)
        print(f"most time outside tensor cores: {names}")
