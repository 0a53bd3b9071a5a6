"""The page of an evaluation: one HTML file that needs no other."""

from __future__ import annotations

import base64
from html import escape
from pathlib import Path
from typing import Dict, Sequence

from detrx.evaluation.coco import Metrics
from detrx.evaluation.curves import Curve

STYLE = """
body { font: 16px/1.5 system-ui, sans-serif; color: #1c1f23; max-width: 1100px; margin: 2rem auto; padding: 0 1rem }
h1 { font-size: 1.5rem; margin-bottom: .3rem } h2 { font-size: 1.1rem; margin-top: 2.2rem }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
td, th { padding: .25rem .9rem .25rem 0; text-align: right; border-bottom: 1px solid #e6e8eb }
td:first-child, th:first-child { text-align: left } th { font-weight: 600; color: #5b626b }
.big { display: flex; gap: 2.5rem; margin: 1.2rem 0 } .big b { display: block; font-size: 2rem; line-height: 1.1 }
.grid { display: grid; grid-template-columns: repeat(auto-fit, minmax(420px, 1fr)); gap: 1rem; align-items: start }
img { max-width: 100%; border: 1px solid #e6e8eb; border-radius: 6px } p { color: #5b626b }
"""


def write_page(
    out: Path,
    metrics: Metrics,
    found: Dict[str, Curve],
    *,
    threshold: float,
    title: str,
    pictures: Sequence[Path],
) -> Path:
    """Write index.html with the numbers and the pictures inside it.

    Args:
        out: the folder.
        metrics: the COCO numbers.
        found: the curve of each class.
        threshold: the recommended one.
        title: the headline.
        pictures: PNG files; the last one is shown at full width.
    """
    counts = metrics.counts
    small = "".join(image_tag(p) for p in pictures[:-1])
    text = f"""<!doctype html><html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width"><title>{escape(title)}</title><style>{STYLE}</style></head><body>
<h1>{escape(title)}</h1>
<p>{counts.get("images", 0)} images, {counts.get("truths", 0)} objects, {counts.get("detections", 0)} detections</p>
<div class="big">{_masks(metrics)}<div><b>{_number(metrics.ap)}</b>AP</div><div><b>{_number(metrics.ap50)}</b>AP50</div>
<div><b>{_number(metrics.ap75)}</b>AP75</div><div><b>{threshold:.2f}</b>threshold to use</div></div>
<h2>Classes</h2>{_classes(metrics, found, threshold)}
<h2>Sizes</h2>{_sizes(metrics)}
<h2>Curves</h2><div class="grid">{small}</div>
<h2>The images with the most errors</h2><p>Truth on the left, detections from {threshold:.2f} on the right.</p>
{image_tag(pictures[-1])}
</body></html>
"""
    path = out / "index.html"
    path.write_text(text, encoding="utf-8")
    return path


def _masks(metrics: Metrics) -> str:
    """What the masks score, where there are any."""
    pairs = (("ap", "mask AP"), ("ap50", "mask AP50"), ("ap75", "mask AP75"))
    tiles = [f"<div><b>{_number(metrics.masks[key])}</b>{name}</div>" for key, name in pairs if metrics.masks]
    return "".join(tiles)


def image_tag(path: Path) -> str:
    content = base64.b64encode(path.read_bytes()).decode("ascii")
    return f'<img alt="{escape(path.stem)}" src="data:image/png;base64,{content}">'


def _number(value: float) -> str:
    return "-" if value < 0 else f"{value:.3f}"


def _classes(metrics: Metrics, found: Dict[str, Curve], threshold: float) -> str:
    rows = []
    for name, (ap, ap50) in metrics.per_class.items():
        cells = [_number(ap), _number(ap50)]
        if name in found:
            cells += [str(found[name].truths), *(f"{v:.3f}" for v in found[name].at(threshold))]
        else:
            cells += ["0", "-", "-", "-"]
        rows.append(f"<tr><td>{escape(name)}</td>" + "".join(f"<td>{c}</td>" for c in cells) + "</tr>")
    heads = ("class", "AP", "AP50", "objects", f"precision at {threshold:.2f}", "recall", "F1")
    return f"<table><tr>{''.join(f'<th>{h}</th>' for h in heads)}</tr>{''.join(rows)}</table>"


def _sizes(metrics: Metrics) -> str:
    sizes = (
        ("small, under 32 x 32 px", metrics.ap_small, metrics.ar_small),
        ("medium", metrics.ap_medium, metrics.ar_medium),
        ("large, over 96 x 96 px", metrics.ap_large, metrics.ar_large),
    )
    rows = "".join(f"<tr><td>{n}</td><td>{_number(p)}</td><td>{_number(r)}</td></tr>" for n, p, r in sizes)
    return f"<table><tr><th>size</th><th>AP</th><th>AR</th></tr>{rows}</table>"
