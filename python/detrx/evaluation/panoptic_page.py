"""What an evaluation of a panoptic model leaves behind: numbers, answers in COCO's format, and a page to look at."""

from __future__ import annotations

import heapq
from html import escape
from pathlib import Path
from typing import Iterable, List, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.data.coco import Dataset, ImageRecord
from detrx.draw import draw_panoptic, mosaic
from detrx.evaluation.page import STYLE, image_tag
from detrx.evaluation.panoptic import Division, PanopticMetrics, PanopticScore, Quality, division_of
from detrx.images import read_image
from detrx.live.panoptic_sink import PanopticFiles
from detrx.live.sink import write_picture
from detrx.types import Panoptic, Segment

WORST = 6
CELL = (420, 560)
"""Height and width in pixels of a picture of the page."""


class PanopticReport:
    """Fills a folder: metrics.json, panoptic.json with its PNGs, worst.png and index.html.

    Args:
        out: the folder.
        dataset: whose pictures are added.
        title: the page's headline.
    """

    def __init__(self, out: Path, dataset: Dataset, *, title: str) -> None:
        self._out, self._dataset, self._title = out, dataset, title
        self._files = PanopticFiles(
            out / "panoptic.json",
            names=dataset.names,
            category_ids=dataset.category_ids,
            things=dataset.things,
        )
        self._worst: List[Tuple[int, int, ImageRecord, Panoptic, Panoptic]] = []
        self._count = 0

    def add(self, record: ImageRecord, truth: Division, found: Panoptic) -> None:
        """Take one picture, whose labels are the data set's."""
        self._files.add(found, image_id=record.id, file_name=record.path.name, stem=record.path.stem)
        errors = _errors(truth, found, len(self._dataset.names))
        self._count += 1
        row = (errors, -self._count, record, _as_panoptic(truth, self._dataset), found)
        (heapq.heappush if len(self._worst) < WORST else heapq.heappushpop)(self._worst, row)

    def close(self, metrics: PanopticMetrics) -> Path:
        """Write the files; answers with the page's path."""
        self._files.close()
        (self._out / "metrics.json").write_text(metrics.to_json(), encoding="utf-8")
        write_picture(self._out / "worst.png", self._draw_worst())
        path = self._out / "index.html"
        path.write_text(self._page(metrics), encoding="utf-8")
        return path

    def _draw_worst(self) -> NDArray[np.uint8]:
        """Truth beside what was found, the pictures with the most errors first."""
        pictures = []
        for _, _, record, truth, found in sorted(self._worst, key=lambda row: row[:2], reverse=True):
            image = read_image(record.path)
            pictures += [draw_panoptic(image, truth), draw_panoptic(image, found)]
        return mosaic(pictures, columns=2, cell=CELL)

    def _page(self, metrics: PanopticMetrics) -> str:
        counts, title = metrics.counts, escape(self._title)
        tiles = (
            ("PQ", metrics.all.pq),
            ("PQ of things", metrics.things.pq),
            ("PQ of stuff", metrics.stuff.pq),
        )
        big = "".join(f"<div><b>{value:.3f}</b>{name}</div>" for name, value in tiles)
        groups = (("all", metrics.all), ("things", metrics.things), ("stuff", metrics.stuff))
        return f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{title}</title><style>{STYLE}</style></head><body>
<h1>{title}</h1>
<p>{counts["images"]} images, {counts["truths"]} true segments, {counts["found"]} found, {counts["matched"]} matched</p>
<div class="big">{big}</div>
<h2>Panoptic, segmentation and recognition quality</h2>{_table(groups, classes=True)}
<h2>Classes</h2>{_table(metrics.per_class.items())}
<h2>The images with the most errors</h2><p>Truth on the left, what was found on the right.</p>
{image_tag(self._out / "worst.png")}
</body></html>
"""


def _errors(truth: Division, found: Panoptic, classes: int) -> int:
    """Segments of one picture that were missed or wrongly found."""
    score = PanopticScore(classes)
    score.add(truth, division_of(found))
    return int((score.missed + score.wrong).sum())


def _as_panoptic(truth: Division, dataset: Dataset) -> Panoptic:
    """To draw it."""
    areas = dict(zip(*(values.tolist() for values in np.unique(truth.ids, return_counts=True))))
    segments = tuple(
        Segment(number, label, dataset.category_ids[label], dataset.things[label], areas[number], 1.0)
        for number, label in truth.classes.items()
    )
    return Panoptic(truth.ids, segments, dataset.names)


def _table(rows: Iterable[Tuple[str, Quality]], *, classes: bool = False) -> str:
    """One row each; with ``classes`` also how many the means are over."""
    heads = ("", "PQ", "SQ", "RQ", *(("classes",) if classes else ()))
    text = f"<tr>{''.join(f'<th>{head}</th>' for head in heads)}</tr>"
    for name, one in rows:
        cells = [escape(name), *(f"{value:.3f}" for value in (one.pq, one.sq, one.rq))]
        cells += [str(one.classes)] if classes else []
        text += f"<tr>{''.join(f'<td>{cell}</td>' for cell in cells)}</tr>"
    return f"<table>{text}</table>"
