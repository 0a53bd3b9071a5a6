"""Pictures of an evaluation: precision and recall, thresholds, confusions, and the images with the most errors."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx import rle
from detrx.data.segmentation import make_mask
from detrx.errors import MissingBackendError, pip_install
from detrx.evaluation.coco import Metrics
from detrx.evaluation.curves import THRESHOLDS, Curve, Errors, best_threshold, confusion, curves
from detrx.evaluation.page import write_page
from detrx.evaluation.tables import Prediction
from detrx.images import read_image

if TYPE_CHECKING:
    from detrx.data.coco import Dataset, ImageRecord

# Okabe and Ito's colours, which colour-blind readers tell apart; yellow is left out, for it vanishes on white.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7F3C8D", "#555555")
GREY = "#8A8F98"
MOST_CLASSES = 12
"""Curves drawn one by one; more would hide each other."""
WORST = 8


def draw_report(
    out: Path, metrics: Metrics, predictions: Sequence[Prediction], dataset: Dataset, *, title: str
) -> Path:
    """Draw all pictures into a folder, and the page that shows them.

    Args:
        out: pr_curve.png, thresholds.png, confusion.png, worst.png and index.html go here.
        metrics: for the page's table.
        predictions: of all images or of some.
        dataset: the truth.
        title: the page's headline.

    Returns:
        The path of index.html.

    Raises:
        MissingBackendError: matplotlib is not installed.
        DataError: one of the worst images cannot be read.
    """
    out.mkdir(parents=True, exist_ok=True)
    found = curves(dataset, predictions)
    threshold, mean = best_threshold(found)
    table, errors = confusion(dataset, predictions, threshold=threshold)
    drawn = {
        "pr_curve.png": draw_precision_recall(found),
        "thresholds.png": draw_thresholds(found, mean, threshold),
        "confusion.png": draw_confusion(table, dataset.names, threshold),
        "worst.png": draw_worst(dataset, predictions, errors, threshold),
    }
    for name, figure in drawn.items():
        figure.savefig(out / name, dpi=110, facecolor="white")
    return write_page(
        out, metrics, found, threshold=threshold, title=title, pictures=[out / n for n in drawn]
    )


def new_figure(width: float, height: float) -> Any:
    """A figure that no window or global state knows of."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingBackendError("matplotlib", f"Plots need it. Type: {pip_install('eval')}") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _axes(figure: Any, title: str, across: str, up: str) -> Any:
    axes = figure.add_subplot()
    axes.set_title(title, loc="left", fontsize=12, fontweight="bold")
    axes.set_xlabel(across)
    axes.set_ylabel(up)
    axes.set(xlim=(0, 1), ylim=(0, 1.02))
    axes.grid(color="#E6E8EB", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)
    return axes


def draw_precision_recall(found: Dict[str, Curve]) -> Any:
    """One line a class, the most frequent first; precision is the best at that recall or a higher one."""
    figure = new_figure(7.2, 4.8)
    axes = _axes(figure, "Precision and recall at IoU 0.5", "recall", "precision")
    for i, (name, curve) in enumerate(_frequent(found)):
        best = np.maximum.accumulate(curve.precision[::-1])[::-1]
        recall = np.concatenate([[0.0], curve.recall])
        precision = np.concatenate([best[:1] if len(best) else [0.0], best])
        axes.plot(
            recall,
            precision,
            color=COLOURS[i % len(COLOURS)],
            linewidth=1.8,
            label=f"{name} ({curve.truths})",
        )
    _legend(axes, found, "lower left")
    return figure


def _frequent(found: Dict[str, Curve]) -> List[Tuple[str, Curve]]:
    return sorted(found.items(), key=lambda item: -item[1].truths)[:MOST_CLASSES]


def _legend(axes: Any, found: Dict[str, Curve], place: str) -> None:
    if found:
        more = len(found) - MOST_CLASSES
        title = f"{MOST_CLASSES} most frequent of {len(found)} classes" if more > 0 else None
        axes.legend(loc=place, frameon=True, framealpha=0.9, edgecolor="none", fontsize=9, title=title)


def draw_thresholds(found: Dict[str, Curve], mean: NDArray[np.float64], threshold: float) -> Any:
    """F1 over the score threshold, by class and on average, with the best threshold marked."""
    figure = new_figure(7.2, 4.8)
    axes = _axes(figure, "Which threshold to use", "score threshold", "F1 at IoU 0.5")
    for i, (name, curve) in enumerate(_frequent(found)):
        values = [curve.at(t)[2] for t in THRESHOLDS]
        axes.plot(THRESHOLDS, values, color=COLOURS[i % len(COLOURS)], linewidth=1.3, alpha=0.8, label=name)
    axes.plot(THRESHOLDS, mean, color="black", linewidth=2.4, label="mean")
    best = float(mean[np.abs(THRESHOLDS - threshold).argmin()])
    axes.axvline(threshold, color=GREY, linestyle="--", linewidth=1)
    axes.plot([threshold], [best], "o", color="black", markersize=7)
    right = threshold < 0.6
    axes.annotate(
        f"use {threshold:.2f}: F1 {best:.3f}",
        (threshold, best),
        xytext=(12 if right else -12, -30),
        textcoords="offset points",
        ha="left" if right else "right",
        fontweight="bold",
        bbox={"facecolor": "white", "edgecolor": "none", "alpha": 0.85, "pad": 2},
    )
    _legend(axes, found, "lower left")
    return figure


def draw_confusion(table: NDArray[np.int64], names: Sequence[str], threshold: float) -> Any:
    """Rows truth, columns detections, shaded by share of the row."""
    many = len(names)
    side = min(16.0, 3.2 + 0.62 * (many + 1))
    figure = new_figure(side + 0.8, side)
    axes = figure.add_subplot()
    share = table / np.maximum(table.sum(axis=1, keepdims=True), 1)
    axes.imshow(share, cmap="Blues", vmin=0, vmax=1)
    axes.set_title(f"Confusions at score {threshold:.2f}", loc="left", fontsize=12, fontweight="bold")
    axes.set_xticks(range(many + 1), [*names, "missed"], rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(many + 1), [*names, "false alarm"])
    axes.set_xlabel("detected as")
    axes.set_ylabel("truth")
    axes.axhline(many - 0.5, color="white", linewidth=3)
    axes.axvline(many - 0.5, color="white", linewidth=3)
    if many <= 30:
        for (row, column), count in np.ndenumerate(table):
            if count:
                tint = "white" if share[row, column] > 0.55 else "#222222"
                axes.text(column, row, str(count), ha="center", va="center", color=tint, fontsize=9)
    axes.spines[:].set_visible(False)
    axes.tick_params(length=0)
    return figure


def draw_worst(
    dataset: Dataset, predictions: Sequence[Prediction], errors: Sequence[Errors], threshold: float
) -> Any:
    """Truth beside detections, the images with the most errors first."""
    worst = sorted((e for e in errors if e.weight[0]), key=lambda e: e.weight, reverse=True)[:WORST]
    by_id = {one.image_id: one for one in predictions}
    rows = max(1, (len(worst) + 1) // 2)
    figure = new_figure(16, 3.4 * rows + 0.4)
    if not worst:
        figure.text(0.5, 0.5, "No image has an error.", ha="center", va="center", fontsize=14)
        return figure
    cells = figure.subplots(rows, 4, squeeze=False)
    for axes in cells.flat:
        axes.set_axis_off()
    for i, one in enumerate(worst):
        record = dataset.images[one.image]
        left, right = cells[i // 2][2 * (i % 2)], cells[i // 2][2 * (i % 2) + 1]
        image = read_image(record.path)
        _show(left, image, f"truth: {one.truths} objects   {_short(record.path.name)}")
        _draw_truth(left, record, dataset.names)
        _show(right, image, f"found: {one.missed} missed, {one.false} false, {one.confused} confused")
        _draw_found(right, by_id[record.id], threshold, dataset.names)
    return figure


def _short(name: str, limit: int = 28) -> str:
    return name if len(name) <= limit else "..." + name[-limit:]


def _show(axes: Any, image: NDArray[np.uint8], title: str) -> None:
    step = max(1, max(image.shape[:2]) // 640)  # shown small: a whole photo would only cost time
    height, width = image.shape[:2]
    axes.imshow(image[::step, ::step], extent=(0, width, height, 0))
    axes.set_title(title, fontsize=9, loc="left")


def _draw_truth(axes: Any, record: ImageRecord, names: Sequence[str]) -> None:
    if record.masks:
        size = (record.height, record.width)
        _shade(axes, (make_mask(mask, size=size) for mask in record.masks), record.labels.tolist())
    for box, label, crowd in zip(record.boxes, record.labels.tolist(), record.crowd.tolist()):
        draw_box(axes, box, label, f"{names[label]}{' (crowd)' if crowd else ''}", dashed=crowd)


def _draw_found(axes: Any, one: Prediction, threshold: float, names: Sequence[str]) -> None:
    found = one.detections.above(threshold)
    number = {name: k for k, name in enumerate(names)}
    labels = [number.get(name, 0) for name in found.names.tolist()]
    if one.masks:  # the best detections come first, in both
        _shade(axes, (rle.decode(mask) for mask, _ in zip(one.masks, labels)), labels)
    for (box, value, _), name, label in zip(found, found.names.tolist(), labels):
        draw_box(axes, box, label, f"{name} {value:.2f}")


def _shade(axes: Any, masks: Iterable[NDArray[np.bool_]], labels: Sequence[int]) -> None:
    """Masks in the colours of their classes, half transparent."""
    from matplotlib.colors import to_rgba

    layer: Any = None
    for mask, label in zip(masks, labels):
        layer = np.zeros((*mask.shape, 4), np.float32) if layer is None else layer
        layer[mask] = to_rgba(COLOURS[label % len(COLOURS)], 0.5)
    if layer is not None:
        axes.imshow(layer, extent=(0, layer.shape[1], layer.shape[0], 0))


def draw_box(
    axes: Any,
    box: NDArray[np.float32],
    label: int,
    text: str,
    *,
    dashed: bool = False,
    size: float = 5.5,
    inside: bool = False,
) -> None:
    """A box of corners in the axes' units, rimmed in white, its name of ``size`` points above or inside it."""
    from matplotlib.patches import Rectangle

    x0, y0, x1, y1 = (float(v) for v in box)
    colour = COLOURS[label % len(COLOURS)]
    style = "--" if dashed else "-"
    for width, edge in ((2.6, "white"), (1.5, colour)):  # the white rim shows on dark and on busy ground
        axes.add_patch(
            Rectangle(
                (x0, y0), x1 - x0, y1 - y0, fill=False, edgecolor=edge, linewidth=width, linestyle=style
            )
        )
    axes.text(
        x0,
        y0,
        text,
        fontsize=size,
        color="white",
        va="top" if inside else "bottom",
        clip_on=True,
        bbox={"facecolor": colour, "edgecolor": "none", "pad": 0.8, "alpha": 0.85},
    )
