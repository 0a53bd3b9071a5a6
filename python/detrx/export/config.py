"""What an export is told; the command line is made from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Optional, Tuple

from tyro.conf import Positional


@dataclass(frozen=True)
class ExportConfig:
    """Write a model for a runtime; a file that does not answer as the model does is rejected."""

    model: Positional[str]
    """The weights: .safetensors, .pth, .pt."""
    to: str = "onnx"
    """The format; this version writes onnx."""
    out: Optional[str] = None
    """The file to write; None puts it beside the weights."""
    precision: str = "fp32"
    """The precision of the numbers; this version writes fp32."""
    batch: Optional[int] = 1
    """Images to one call; None for any number."""
    top: Optional[int] = None
    """Detections of an image; None for one a query, at most 300."""
    canvas: Optional[Tuple[int, int]] = None
    """Height and width, multiples of 32; None for the size that the model was trained at."""
    images: Tuple[str, ...] = ()
    """Pictures, or folders of them, to compare on."""
    data: Optional[str] = None
    """A data set to compare on; with neither, generated scenes."""
