"""Bars of milliseconds as a picture, drawn with OpenCV so that the runtime half needs nothing more."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Dict, Sequence, Tuple

import numpy as np

from detrx.draw import colour
from detrx.images import opencv
from detrx.live.sink import write_picture

Bars = Tuple[str, str, Dict[str, Dict[str, float]]]
"""Name, backend, and stage -> p50, p99 in milliseconds."""

WIDTH, LEFT, RIGHT, ROW, HEAD = 1000, 150, 190, 24, 62
INK, GREY = (40, 40, 40), (130, 130, 130)


def write_chart(path: Path, models: Sequence[Bars], *, title: str) -> None:
    """A bar a stage as long as its p50, a thin line on to its p99, the same scale for all models.

    Raises:
        SourceError: it cannot be written.
    """
    longest = max(row["p99"] for _, _, stages in models for row in stages.values())
    height = 50 + sum(HEAD + ROW * len(stages) for _, _, stages in models)
    image = np.full((height, WIDTH, 3), 255, np.uint8)
    _text(image, title, (20, 30), INK, 0.5)
    top = 50
    for name, backend, stages in models:
        _text(image, name, (20, top + 24), INK, 0.6)
        _text(image, backend, (20, top + 44), GREY, 0.42)
        top += HEAD
        for index, (stage, row) in enumerate(stages.items()):
            _bar(image, top, stage, row, colour(index), (WIDTH - LEFT - RIGHT) / max(longest, 1e-9))
            top += ROW
    path.parent.mkdir(parents=True, exist_ok=True)
    write_picture(path, image)


def _bar(image: Any, top: int, stage: str, row: Dict[str, float], shade: Any, scale: float) -> None:
    cv2 = opencv()
    middle = top + ROW // 2
    half, whole = (LEFT + round(row[key] * scale) for key in ("p50", "p99"))
    cv2.rectangle(image, (LEFT, top + 4), (max(half, LEFT + 1), top + ROW - 4), shade, -1)
    cv2.line(image, (half, middle), (whole, middle), INK, 1, cv2.LINE_AA)
    cv2.line(image, (whole, top + 7), (whole, top + ROW - 7), INK, 1, cv2.LINE_AA)
    _text(image, stage, (20, top + 17), INK, 0.46)
    _text(image, f"{row['p50']:.2f}  (p99 {row['p99']:.2f})", (whole + 8, top + 17), GREY, 0.42)


def _text(image: Any, text: str, place: Tuple[int, int], shade: Any, size: float) -> None:
    cv2 = opencv()
    plain = text.encode("ascii", "replace").decode()
    cv2.putText(image, plain, place, cv2.FONT_HERSHEY_SIMPLEX, size, shade, 1, cv2.LINE_AA)
