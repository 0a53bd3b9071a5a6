"""The report of a data set as one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import colorsys
from html import escape
from typing import TYPE_CHECKING, Dict, List, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.data.coco import Dataset, ImageRecord
from detrx.errors import DataError
from detrx.images import opencv, read_image

if TYPE_CHECKING:
    from detrx.data.check import CheckResult, SplitCheck

PICTURES = 24
"""Pictures shown of each split, evenly over the file."""
_THUMBNAIL = 240

_STYLE = """
body{font:15px/1.5 system-ui,sans-serif;margin:2em auto;max-width:1100px;padding:0 1em;color:#222}
table{border-collapse:collapse;margin:.5em 0}td,th{padding:.2em .8em;text-align:left;border-bottom:1px solid #ddd}
.bar{background:#4878a8;height:.8em;display:inline-block;min-width:1px}.bad{color:#a00}.grid{display:flex;flex-wrap:wrap;gap:6px}
.grid figure{margin:0;width:240px;font-size:11px;overflow-wrap:anywhere}.grid img{max-width:240px}
"""


def page(result: CheckResult, datasets: List[Dataset]) -> str:
    """The whole report as HTML; pictures are inside as JPEG."""
    by_split = {dataset.split: dataset for dataset in datasets}
    body = [f"<h1>{escape(result.root)}</h1>", _verdict(result)]
    for found in result.splits:
        body.append(_section(found))
        if found.split in by_split:
            body.append(_pictures(by_split[found.split]))
    head = (
        f'<!doctype html><html lang="en"><meta charset="utf-8"><title>detrx data check</title><style>{_STYLE}'
    )
    return head + "</style>" + "\n".join(body) + "</html>"


def _verdict(result: CheckResult) -> str:
    text = (
        "<p>Every split can be trained on.</p>" if result.sound else '<p class="bad">Not usable as it is.</p>'
    )
    if result.leaks:
        text += f"<h2>{len(result.leaks)} pictures occur twice</h2>" + _list(result.leaks[:20])
    return text


def _section(found: SplitCheck) -> str:
    if found.error:
        return f'<h2>{escape(found.split)}</h2><pre class="bad">{escape(found.error)}</pre>'
    facts = (
        f"{found.images} images, {found.boxes} boxes, {found.negatives} without a box, {found.crowds} crowds"
    )
    parts = [f"<h2>{escape(found.split)}</h2><p>{facts}<br>{escape(found.annotation_file)}</p>"]
    for reason, count in found.skipped.items():
        parts.append(
            f'<p class="bad">skipped {count} x {escape(reason)}</p>{_list(found.examples[reason][:5])}'
        )
    parts.append(_list(found.warnings) + _list(found.broken))
    parts.append("<h3>Boxes of each class</h3>" + _bars(found.classes))
    parts.append("<h3>Box sizes (pixels, square root of the area)</h3>" + _bars(size_bins(found.sizes)))
    return "\n".join(parts)


def size_bins(sizes: Tuple[int, ...]) -> Dict[str, int]:
    """The histogram with its bins named."""
    from detrx.data.check import SIZE_EDGES

    names = [f"{low} to {high}" for low, high in zip(SIZE_EDGES, SIZE_EDGES[1:])] + [f"over {SIZE_EDGES[-1]}"]
    return dict(zip(names, sizes))


def _list(items: Tuple[str, ...]) -> str:
    return "<ul>" + "".join(f"<li>{escape(item)}</li>" for item in items) + "</ul>" if items else ""


def _bars(counts: Dict[str, int]) -> str:
    most = max([1, *counts.values()])
    rows = [
        f'<tr><td>{escape(name)}<td>{count}<td><span class="bar" style="width:{400 * count / most:.0f}px"></span>'
        for name, count in counts.items()
    ]
    return "<table>" + "".join(rows) + "</table>"


def _pictures(dataset: Dataset) -> str:
    step = max(1, -(-len(dataset) // PICTURES))
    figures = []
    for record in dataset.images[::step]:
        try:
            data = base64.b64encode(thumbnail(record)).decode("ascii")
        except DataError as error:
            figures.append(f'<figure class="bad">{escape(str(error))}</figure>')
            continue
        name = escape(f"{record.path.name} ({len(record.labels)})")
        figures.append(
            f'<figure><img src="data:image/jpeg;base64,{data}"><figcaption>{name}</figcaption></figure>'
        )
    key = " ".join(f'<b style="color:{_css(at)}">{escape(name)}</b>' for at, name in enumerate(dataset.names))
    return f'<p>{key}</p><div class="grid">{"".join(figures)}</div>'


def thumbnail(record: ImageRecord) -> bytes:
    """A JPEG of at most 240 pixels with the boxes drawn.

    Raises:
        DataError: the picture is broken.
    """
    cv2 = opencv()
    image = read_image(record.path)
    scale = min(1.0, _THUMBNAIL / max(image.shape[:2]))
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    small: NDArray[np.uint8] = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
    for box, label in zip((record.boxes * scale).round().astype(int).tolist(), record.labels.tolist()):
        cv2.rectangle(small, (box[0], box[1]), (box[2] - 1, box[3] - 1), _colour(label), 1)
    encoded = cv2.imencode(".jpg", small[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 80])[1]
    return bytes(encoded.tobytes())


def _colour(label: int) -> Tuple[int, int, int]:
    """RGB, far apart for labels that follow each other."""
    red, green, blue = colorsys.hsv_to_rgb(label * 0.618034 % 1, 0.9, 0.9)
    return int(255 * red), int(255 * green), int(255 * blue)


def _css(label: int) -> str:
    return "#{:02x}{:02x}{:02x}".format(*_colour(label))
