"""results.png: how losses, rate and scores went."""

from __future__ import annotations

import io
from collections.abc import Sequence
from typing import Any

from detrx.train.folder import RunFolder
from detrx.train.log import read_rows

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
