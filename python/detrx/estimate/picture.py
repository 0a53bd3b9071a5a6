"""A roofline: each layer as a dot, under what the device could do at that many operations a byte."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

from detrx.errors import ConfigError
from detrx.estimate.devices import Device
from detrx.estimate.roofline import EXPECTED, Latency, LayerTime, roofs
from detrx.estimate.run import Estimate
from detrx.evaluation.plots import COLOURS, GREY, new_figure

KINDS: Dict[str, Tuple[str, str]] = {
    "conv": (COLOURS[0], "convolutions"),
    "matmul": (COLOURS[1], "matrix products"),
    "other": (COLOURS[2], "others"),
}
COLUMNS, ROWS = 72, 20
"""Of the picture as text."""


def draw(found: Estimate, path: Path) -> None:
    """Write a PNG with a panel for each precision, or to a ``.txt`` the first precision in letters.

    Raises:
        ConfigError: another suffix.
        MissingBackendError: matplotlib is not installed, for a PNG.
    """
    if path.suffix not in (".png", ".txt"):
        raise ConfigError(f"[estimate] a picture must be a .png, or a .txt without matplotlib, got {path}")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".txt":
        path.write_text(in_letters(found.latencies[0], found.device), encoding="utf-8")
        return
    across = min(2, len(found.latencies))
    down = math.ceil(len(found.latencies) / across)
    figure = new_figure(6.4 * across, 4.6 * down + 0.4)
    size = " x ".join(map(str, found.canvas))
    work = f"{found.gflop:.1f} GFLOP in {found.kernels} kernels"
    title = f"{Path(found.model).name} at {size} on {found.device.name}: {work}"
    figure.suptitle(title, x=0.01, ha="left", fontsize=12, fontweight="bold")
    panels = figure.subplots(down, across, sharex=True, sharey=True, squeeze=False).flatten()
    for axes, row in zip(panels, found.latencies):
        _draw_panel(axes, row, found.device)
    for axes in panels[len(found.latencies) :]:
        axes.set_axis_off()
    panels[0].legend(loc="upper left", fontsize=8, framealpha=0.9, edgecolor="none")
    figure.savefig(path, dpi=110, facecolor="white")


def _draw_panel(axes: Any, row: Latency, device: Device) -> None:
    shown = [layer for layer in row.layers if layer.gflop > 0 and layer.mb > 0]
    left = sum(layer.expected_ms for layer in row.layers if layer.gflop == 0)
    aside = f", {left:.2f} of them in kernels without arithmetic" if left >= 0.005 else ""
    axes.set_title(
        f"{row.precision}: expected {row.expected_ms:.1f} ms{aside}; ideal {row.ideal_ms:.1f}",
        loc="left",
        fontsize=9,
    )
    axes.set(xscale="log", yscale="log", xlabel="operations a byte", ylabel="tera operations a second")
    axes.grid(color="#E6E8EB", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    for kind, (colour, name) in KINDS.items():
        dots = [_place(layer) for layer in shown if layer.kind == kind]
        sizes = [6 + 900 * layer.expected_ms / row.expected_ms for layer in shown if layer.kind == kind]
        axes.scatter(
            *zip(*dots) if dots else ([], []), s=sizes, color=colour, alpha=0.55, linewidths=0, label=name
        )
    peaks = roofs(device, row.precision)
    knees = [1e3 * peak / device.bandwidth for _, peak in peaks]
    end = 4 * max([*knees, *(_place(layer)[0] for layer in shown)])
    for (name, peak), knee in zip(peaks, knees):
        _draw_roof(axes, knee, end, peak, name)


def _place(layer: LayerTime) -> Tuple[float, float]:
    """Operations a byte, and tera operations a second as expected."""
    return 1e3 * layer.gflop / layer.mb, layer.gflop / layer.expected_ms


def _draw_roof(axes: Any, knee: float, end: float, peak: float, name: str) -> None:
    style = "--" if name.endswith("fp32") else "-"
    axes.plot([knee / 1e3, knee, end], [peak / 1e3, peak, peak], color=GREY, linewidth=1.1, linestyle=style)
    axes.text(end, peak, f"{name} {peak:g}", ha="right", va="bottom", fontsize=7.5, color="#444444")


def in_letters(row: Latency, device: Device) -> str:
    """The same of one precision in letters: c convolutions, m matrix products, o others, and the roof over them."""
    shown = [layer for layer in row.layers if layer.gflop > 0 and layer.mb > 0]
    peak = max(peak for _, peak in roofs(device, row.precision))
    places = [(math.log10(x), math.log10(y)) for x, y in map(_place, shown)]
    low, high = _span([x for x, _ in places])
    bottom, top = _span([y for _, y in places] + [math.log10(peak)])
    grid = [[" "] * COLUMNS for _ in range(ROWS)]
    for layer, (x, y) in zip(shown, places):
        grid[_cell(top - y, top - bottom, ROWS)][_cell(x - low, high - low, COLUMNS)] = layer.kind[0]
    for column in range(COLUMNS):
        intensity = low + (high - low) * (column + 0.5) / COLUMNS
        roof = min(math.log10(peak), intensity + math.log10(device.bandwidth / 1e3))
        if bottom <= roof <= top:
            grid[_cell(top - roof, top - bottom, ROWS)][column] = "-" if roof == math.log10(peak) else "/"
    lines = [f"|{''.join(cells)}".rstrip() for cells in grid]
    ends = f"{10**low:.2g}".ljust(COLUMNS - 6) + f"{10**high:.2g}".rjust(6)
    heading = (
        f"{row.precision} on {device.name}: tera operations a second, {10**bottom:.2g} to {10**top:.2g}; expected "
        f"({EXPECTED.matrix:.0%} of the peak, {EXPECTED.bandwidth:.0%} of the bandwidth), roof {peak:g}"
    )
    foot = "operations a byte; c convolutions, m matrix products, o others"
    return "\n".join([heading, *lines, f"+{'-' * COLUMNS}", f" {ends}", f" {foot}", ""])


def _span(values: Sequence[float]) -> Tuple[float, float]:
    """From and to, in decades, with a little room; a decade where there is nothing."""
    low, high = min(values, default=0.0), max(values, default=0.0)
    return low - 0.1, max(high + 0.1, low + 0.9)


def _cell(offset: float, span: float, many: int) -> int:
    return min(many - 1, max(0, int(many * offset / span)))
