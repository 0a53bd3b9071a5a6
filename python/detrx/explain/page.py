"""The page of an explanation: one HTML file that needs no other and no network."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Sequence
from dataclasses import asdict
from html import escape
from pathlib import Path
from string import Template
from typing import Any

import numpy as np
from numpy.typing import NDArray

import detrx
from detrx.explain.paint import as_jpeg
from detrx.explain.slot_plots import INK, draw_slots, draw_use, slot_meaning
from detrx.explain.slots import SlotUse
from detrx.explain.views import Scene, Subject

PAGE = Path(detrx.__file__).parent / "assets" / "explain.html"


def write_page(
    path: Path, scenes: Sequence[Scene], use: SlotUse | None, *, title: str, model: str, slots: int
) -> None:
    """Write the page with its pictures inside.

    Args:
        scenes: the pictures.
        use: what the queries do over a data set, or None.
        title: the headline.
        model: a line about the model.
        slots: queries in the slot plot.
    """
    # "</" would end the script that holds the data.
    data = json.dumps([_scene(one) for one in scenes]).replace("</", "<\\/")
    text = Template(PAGE.read_text(encoding="utf-8")).substitute(
        title=escape(title),
        model=escape(model),
        slots="" if use is None else _slots(use, slots),
        data=data,
        footer=f"detrx {escape(detrx.__version__)}",
    )
    path.write_text(text, encoding="utf-8")


def _scene(scene: Scene) -> dict[str, Any]:
    return {
        "name": scene.name,
        "note": scene.note,
        "base": _inline(scene.base),
        "subjects": [_subject(one) for one in scene.subjects],
    }


def _subject(subject: Subject) -> dict[str, Any]:
    views = [
        {
            "title": view.title,
            "caption": view.caption,
            "source": _inline(view.picture),
            "bars": [asdict(bar) for bar in view.bars],
        }
        for view in subject.views
    ]
    return {"title": subject.title, "region": subject.region, "views": views}


def _inline(picture: NDArray[np.uint8]) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(as_jpeg(picture)).decode("ascii")


def _slots(use: SlotUse, most: int) -> str:
    total = int(use.counts.sum())
    tiles = [
        (f"{len(use.boxes)}", "pictures"),
        (f"{total / len(use.boxes):.1f}", f"detections a picture, from score {use.threshold:g}"),
        (f"{use.used} of {len(use.counts)}", "queries detect anything"),
        (f"{use.busiest(0.9)}", "queries make 90% of the detections"),
        (f"{use.effective:.1f}", "equally busy queries would be spread as these are"),
    ]
    shown = "".join(f"<div class=tile><b>{value}</b><span>{text}</span></div>" for value, text in tiles)
    one = _figure(
        "Box centres of the most used queries",
        draw_slots(use, most=most),
        draw_slots(use, most=most, dark=True),
    )
    two = _figure("How often each query detects", draw_use(use), draw_use(use, dark=True))
    meaning = escape(slot_meaning(use))
    head = f"<h2>What the queries do</h2><p class=soft>{meaning}</p>"
    return f"<section class=card>{head}<div class=tiles>{shown}</div>{one}{two}</section>"


def _figure(text: str, light: Any, dark: Any) -> str:
    """The one that fits the reader's colours."""
    sources = []
    for figure, (ground, _, _) in ((light, INK[False]), (dark, INK[True])):
        buffer = io.BytesIO()
        figure.savefig(buffer, format="png", dpi=120, facecolor=ground)
        sources.append("data:image/png;base64," + base64.b64encode(buffer.getvalue()).decode("ascii"))
    return (
        f'<figure><picture><source media="(prefers-color-scheme: dark)" srcset="{sources[1]}">'
        f'<img alt="{escape(text)}" src="{sources[0]}"></picture></figure>'
    )
