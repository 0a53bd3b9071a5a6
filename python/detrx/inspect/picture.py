"""An inspected engine as a picture: its slowest layers, what it is made of, and each layer under the device's peaks."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Sequence

from detrx.estimate.devices import DEVICES
from detrx.evaluation.plots import COLOURS, GREY, new_figure
from detrx.inspect.layers import short
from detrx.inspect.proof import LayerReport, cuda_peak, tensor_peak
from detrx.inspect.run import NONE, UNTOLD, Inspection, precision_of

MANY = 18
SHADES = {
    "int8": COLOURS[2],
    "fp16": COLOURS[0],
    "bf16": COLOURS[5],
    "fp8": COLOURS[3],
    "int4": COLOURS[6],
    "fp4": COLOURS[7],
    "tf32": COLOURS[4],
    "fp32": COLOURS[1],
}


def draw(found: Inspection, path: Path) -> None:
    """Write a PNG.

    Raises:
        MissingBackendError: matplotlib is not installed.
    """
    figure = new_figure(13, 7.2)
    whole = figure.add_gridspec(2, 2, height_ratios=(1, 4.2), width_ratios=(1.25, 1))
    figure.suptitle(_title(found), x=0.01, ha="left", fontsize=12, fontweight="bold")
    _draw_shares(figure.add_subplot(whole[0, :]), found)
    _draw_layers(figure.add_subplot(whole[1, 0]), found)
    _draw_rates(figure.add_subplot(whole[1, 1]), found)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110, facecolor="white")


def _title(found: Inspection) -> str:
    time = f"{found.ms:.2f} ms" if found.ms is not None else "not measured"
    where = f" on {found.device}" if found.device else ""
    return f"{Path(found.source).name}: {time}{where}; tensor cores shown by level {found.reached} of 3"


def _shade(precision: str) -> str:
    return SHADES.get(precision, GREY)


def _draw_shares(axes: Any, found: Inspection) -> None:
    bars = [("work", found.work_by_precision), ("time", found.time_by_precision)]
    for row, (_, part) in enumerate(bars):
        _draw_bar(axes, row, part)
    axes.set_yticks(range(len(bars)), [name for name, _ in bars])
    axes.set(xlim=(0, 1), xticks=[])
    axes.spines[:].set_visible(False)
    axes.set_title("share of each precision", loc="left", fontsize=10)


def _draw_bar(axes: Any, row: int, part: Dict[str, float]) -> None:
    left = 0.0
    for name, share in sorted(part.items(), key=lambda item: [*SHADES, UNTOLD, NONE].index(item[0])):
        axes.barh(row, share, left=left, color=_shade(name), edgecolor="white")
        if share > 0.045:
            axes.text(
                left + share / 2,
                row,
                f"{name} {share:.0%}",
                ha="center",
                va="center",
                color="white",
                fontsize=9,
            )
        left += share
    if not part:
        axes.text(0, row, "not known", va="center", color=GREY, fontsize=9)


def _draw_layers(axes: Any, found: Inspection) -> None:
    timed = found.ms is not None
    slowest = sorted(found.layers, key=_amount, reverse=True)[:MANY]
    for row, layer in enumerate(slowest):
        solid = layer.cores == "tensor"
        shade = _shade(layer.precision)
        fill, hatch = (shade, None) if solid else ("white", "//")
        axes.barh(row, _amount(layer), color=fill, edgecolor=shade, hatch=hatch)
        axes.text(_amount(layer), row, f"  {_said(layer)}", va="center", fontsize=7.5, color="#444444")
    axes.set_yticks(range(len(slowest)), [short(layer.name, most=32) for layer in slowest], fontsize=7.5)
    axes.invert_yaxis()
    axes.margins(x=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_title(
        f"the {'slowest' if timed else 'largest'} layers, {'ms' if timed else 'GFLOP'}: "
        "filled where the kernel's name says tensor cores",
        loc="left",
        fontsize=10,
    )


def _amount(layer: LayerReport) -> float:
    """Milliseconds, or where nothing was measured GFLOP."""
    return (layer.gflop if layer.ms is None else layer.ms) or 0.0


def _said(layer: LayerReport) -> str:
    proven = ", proven" if layer.proven else ""
    return f"{layer.instruction or layer.operation}{proven}"


def _draw_rates(axes: Any, found: Inspection) -> None:
    shown = [layer for layer in found.layers if layer.tflops]
    axes.set_title("what each layer reaches, ringed where that proves tensor cores", loc="left", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    if not shown:
        axes.text(0.5, 0.5, "times or work of layers are not known", ha="center", color=GREY)
        axes.set(xticks=[], yticks=[])
        return
    for precision in dict.fromkeys(map(precision_of, shown)):
        _draw_dots(axes, [layer for layer in shown if precision_of(layer) == precision], precision)
    axes.set(xscale="log", yscale="log", xlabel="ms", ylabel="TFLOP/s (TOP/s)")
    axes.grid(color="#E6E8EB", linewidth=0.8)
    axes.set_axisbelow(True)
    if found.device:
        _draw_peaks(axes, found, [layer.precision for layer in shown])
    axes.legend(loc="lower right", fontsize=8, framealpha=0.9, edgecolor="none")


def _draw_dots(axes: Any, layers: Sequence[LayerReport], precision: str) -> None:
    across, up = [layer.ms for layer in layers], [layer.tflops for layer in layers]
    rings = ["black" if layer.proven else "none" for layer in layers]
    axes.scatter(across, up, s=34, color=_shade(precision), edgecolors=rings, linewidths=1.2)
    axes.scatter([], [], s=34, color=_shade(precision), label=precision)


def _draw_peaks(axes: Any, found: Inspection, precisions: Sequence[str]) -> None:
    device = DEVICES[str(found.device)]
    for precision in (name for name in SHADES if name in precisions):
        for peak, style, cores in (
            (cuda_peak(device, precision), "--", "CUDA"),
            (tensor_peak(device, precision), "-", "tensor"),
        ):
            if cores == "tensor" and precision == "fp32":
                continue
            axes.axhline(peak, color=_shade(precision), linestyle=style, linewidth=1)
            axes.text(axes.get_xlim()[0], peak, f" {cores} cores, {precision}", fontsize=7.5, va="bottom")
