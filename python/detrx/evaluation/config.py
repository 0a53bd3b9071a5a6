"""What an evaluation is told; the command line is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional

from tyro.conf import Positional


@dataclass(frozen=True)
class EvalConfig:
    """Score a model on a data set: the COCO numbers, curves, confusions and the worst pictures. A panoptic model on a
    panoptic data set gets panoptic quality."""

    model: Positional[str]
    """Weights or an exported file."""
    data: str
    """The data set's folder."""
    split: str = "test"
    """Which part of it."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Optional[int] = None
    """CPU threads for the model; None leaves it to the library."""
    batch: int = 1
    """Images to one call, where the model leaves it open."""
    limit: Optional[int] = None
    """Only the first so many images."""
    out: Optional[str] = None
    """A folder for metrics.json, predictions.json (COCO results) or panoptic.json with PNGs, plots and index.html."""
    panoptic_threshold: float = 0.85
    """Of panoptic models: the score that a segment must be above, in [0, 1]."""
    progress: Optional[bool] = None
    """Show a bar; None shows one where the output is a terminal."""
