"""Figures of what queries do over a data set; the slots after figure 7 of the DETR paper (arXiv 2005.12872)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from detrx.evaluation.plots import new_figure
from detrx.explain.slots import KINDS, SMALL, SlotUse

KIND_COLOURS = ("#009E73", "#D55E00", "#0072B2")
"""Okabe and Ito's green, red and blue: the paper's three, told apart by colour-blind readers too."""
MOST_DOTS = 3000
"""To a panel; more only darken it."""
INK = {False: ("#FFFFFF", "#14171C", "#C9CED6"), True: ("#191E25", "#ECEFF3", "#3A4350")}
"""Ground, text and lines, for light and for dark."""


def slot_meaning(use: SlotUse) -> str:
    """What a slot is, for the family at hand."""
    if use.learned:
        return "A slot is one of the learnt queries: the same vector in every picture."
    return (
        "This model learns no queries: slot k is the cell that its encoder ranked k-th in each picture, so slots "
        "differ in certainty and not in what they look for. Only with learnt queries is this the paper's figure."
    )


def draw_slots(use: SlotUse, *, most: int, dark: bool = False) -> Any:
    """Box centres of each of the most used queries over all pictures, by size and orientation."""
    chosen, kinds = use.most_used(most), use.kinds()
    columns = min(5, len(chosen))
    rows = -(-len(chosen) // columns)
    figure = new_figure(max(2.1 * columns, 6.0), 2.35 * rows + 1.3)
    cells = figure.subplots(rows, columns, squeeze=False)
    rank = np.random.default_rng(0).permutation(len(use.boxes))[:MOST_DOTS]
    for axes in cells.flat[len(chosen) :]:
        axes.set_axis_off()
    word = "slot" if use.learned else "rank"
    for axes, slot in zip(cells.flat, chosen.tolist()):
        sure = use.scores[rank, slot] >= use.threshold
        for opaque, rows_of in ((0.25, rank[~sure]), (0.9, rank[sure])):
            colours = np.array(KIND_COLOURS)[kinds[rows_of, slot]]
            at = use.boxes[rows_of, slot]
            axes.scatter(at[:, 0], at[:, 1], s=9, c=colours, alpha=opaque, linewidths=0)
        axes.set(xlim=(0, 1), ylim=(1, 0), xticks=[], yticks=[])
        axes.set_title(f"{word} {slot}: in {use.counts[slot]} of {len(use.boxes)}", fontsize=8, loc="left")
    from matplotlib.lines import Line2D

    marks = [
        Line2D([], [], marker="o", linestyle="", color=colour, label=kind)
        for kind, colour in zip(KINDS, KIND_COLOURS)
    ]
    legend = figure.legend(handles=marks, loc="outside lower center", ncols=3, fontsize=9, frameon=False)
    legend.set_title(
        f"small: under {SMALL:.0%} of the picture; faint: score under {use.threshold:g}", prop={"size": 8}
    )
    title = "the learnt queries" if use.learned else "the encoder's ranks (not learnt queries)"
    figure.suptitle(
        f"Box centres of {title}, {len(use.boxes)} pictures",
        x=0.01,
        ha="left",
        fontsize=12,
        fontweight="bold",
    )
    return _inked(figure, dark)


def draw_use(use: SlotUse, *, dark: bool = False) -> Any:
    """How often each query is used, and how few of them make how much of the detections."""
    figure = new_figure(9.6, 3.8)
    left, right = figure.subplots(1, 2, width_ratios=(2, 1))
    counts, pictures = use.counts, len(use.boxes)
    left.bar(np.arange(len(counts)), counts / pictures, width=1.0, color=KIND_COLOURS[2])
    left.set_title("Share of pictures in which a query detects", loc="left", fontsize=11, fontweight="bold")
    left.set(
        xlabel="query" if use.learned else "rank of the encoder",
        xlim=(-0.5, len(counts) - 0.5),
        ylim=(0, None),
    )
    falling = np.sort(counts)[::-1].cumsum() / max(int(counts.sum()), 1)
    right.plot(
        np.arange(len(counts) + 1), np.concatenate([[0.0], falling]), color=KIND_COLOURS[1], linewidth=2
    )
    right.set_title("Detections of the busiest", loc="left", fontsize=11, fontweight="bold")
    right.set(xlabel="queries", ylim=(0, 1.02), xlim=(0, len(counts)))
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
        axes.grid(axis="y", linewidth=0.6)
        axes.set_axisbelow(True)
    return _inked(figure, dark)


def _inked(figure: Any, dark: bool) -> Any:
    """Ground, text and lines in the colours of the page."""
    ground, ink, line = INK[dark]
    figure.set_facecolor(ground)
    texts = [*figure.texts, *([figure._suptitle] if figure._suptitle else [])]
    for legend in figure.legends:
        texts += [*legend.get_texts(), legend.get_title()]
    for axes in figure.axes:
        axes.set_facecolor(ground)
        axes.tick_params(colors=ink)
        texts += [axes.title, axes._left_title, axes.xaxis.label, axes.yaxis.label]
        for spine in axes.spines.values():
            spine.set_edgecolor(line)
        for grid in axes.get_ygridlines():
            grid.set_color(line)
    for text in texts:
        text.set_color(ink)
    return figure


def write_figures(use: SlotUse, out: Path, *, most: int) -> list[Path]:
    """slots.png and use.png, on white."""
    written = []
    for name, figure in (("slots.png", draw_slots(use, most=most)), ("use.png", draw_use(use))):
        figure.savefig(out / name, dpi=110)
        written.append(out / name)
    return written
