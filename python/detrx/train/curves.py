"""The pictures of a run: results.png, how losses, rate and scores went, and the report of its last evaluation."""

from __future__ import annotations

import io
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from detrx.errors import DataError, MissingBackendError
from detrx.evaluation.run import write_report
from detrx.train.folder import RunFolder
from detrx.train.log import read_rows

if TYPE_CHECKING:
    from detrx.data.coco import Dataset
    from detrx.evaluation.coco import Metrics, Prediction

PICTURE = "results.png"


def draw_curves(folder: RunFolder) -> bool:
    """Draw the log into results.png; False where matplotlib is missing or nothing was logged."""
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        return False
    rows = read_rows(folder)
    if not rows:
        return False
    # A Figure of its own, not pyplot: that would choose a window system and keep the figure for ever.
    figure = Figure(figsize=(12, 4), layout="constrained")
    FigureCanvasAgg(figure)
    places = figure.subplots(1, 3)
    _draw(places[0], [r for r in rows if r["event"] == "step"], ("loss",), "training loss")
    _draw(places[1], [r for r in rows if r["event"] == "evaluation"], ("map", "ap50"), "validation")
    _draw(places[2], [r for r in rows if r["event"] == "step"], ("lr",), "learning rate")
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100)
    folder.file(PICTURE).write_bytes(out.getvalue())
    return True


def draw_scores(
    folder: RunFolder, metrics: Metrics, predictions: Sequence[Prediction], dataset: Dataset, *, title: str
) -> Path | None:
    """Write the curves, the confusions and the worst pictures of an evaluation into <run>/<split>.

    Returns:
        The page that shows them, or None where it cannot be drawn: a run is not lost for want of a picture.
    """
    try:
        return write_report(folder.path / dataset.split, metrics, predictions, dataset, title=title)
    except (DataError, MissingBackendError, OSError) as error:
        warnings.warn(f"[train] the pictures of the evaluation cannot be drawn: {error}", stacklevel=2)
        return None


def _draw(place: Any, rows: Sequence[dict[str, Any]], keys: Sequence[str], title: str) -> None:
    place.set_title(title)
    place.set_xlabel("step")
    place.grid(alpha=0.3)
    for key in keys:
        points = [(row["step"], row[key]) for row in rows if row.get(key) is not None]
        if points:
            place.plot(*zip(*points), marker="." if len(points) < 50 else "", label=key)
    if len(keys) > 1 and rows:
        place.legend()
