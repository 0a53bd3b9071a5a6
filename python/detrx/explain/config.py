"""What an explanation is told; the command line is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from tyro.conf import Positional


@dataclass(frozen=True)
class ExplainConfig:
    """See what a model looks at: attention and sampling points on pictures, what each query does over a data set."""

    model: Positional[str]
    """Weights, a run folder or a published name; an ONNX file does not hold what is shown here."""
    picture: Positional[Optional[str]] = None
    """A picture, a folder of them, or a pattern as 'photos/*.jpg'."""
    data: Optional[str] = None
    """A data set's folder: where each query answers over all its pictures."""
    split: str = "test"
    """Which part of the data set."""
    out: str = "runs/explain"
    """Folder for index.html, the pictures and the numbers."""
    threshold: float = 0.5
    """The least score of a detection, in [0, 1]; where none has it the best 5 are shown."""
    most: int = 6
    """Detections explained of a picture, the best first."""
    queries: Tuple[int, ...] = ()
    """Explain these queries, whatever their scores."""
    points: Tuple[str, ...] = ()
    """Places x,y in pixels of the picture that the encoder looks from (detr models); none takes the centres of the best
    detections."""
    per_head: bool = False
    """Also show every attention head by itself."""
    slots: int = 20
    """Queries in the plot of a data set, the most used ones."""
    limit: Optional[int] = None
    """Only the first so many pictures; none takes all of a data set and 20 of a folder."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Optional[int] = None
    """CPU threads for the model; none leaves it to the library."""
    progress: Optional[bool] = None
    """Show a bar; none shows one where the output is a terminal."""
