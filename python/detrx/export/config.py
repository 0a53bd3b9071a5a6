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
    """The format: onnx, or engine for TensorRT."""
    out: Optional[str] = None
    """The file to write; None puts it beside the weights."""
    graph: str = "pure"
    """pure for every runtime, or plugin for TensorRT 8.5 to 11 with our plugins."""
    precision: str = "fp32"
    """fp32, fp16, bf16, int8 (convolutions), int8-b (linear layers too), int8-cpu (for ONNX Runtime on a processor) or
    int4 (weights, for size)."""
    calibrate: Optional[str] = None
    """A folder of pictures that int8 is calibrated on; None takes the training split of the data set."""
    batch: Optional[int] = 1
    """Images to one call; None for any number."""
    top: Optional[int] = None
    """Detections of an image; None for one a query, at most 300."""
    canvas: Optional[Tuple[int, int]] = None
    """Height and width, multiples of 32; None for the size that the model was trained at."""
    images: Tuple[str, ...] = ()
    """Pictures, or folders of them, to compare on."""
    data: Optional[str] = None
    """A data set to compare on, by AP where precision is given away; with neither, generated scenes."""
    tensorrt: str = "auto"
    """The TensorRT that an engine is for: auto (the one here), 8.5, 8.6, 10, 11, or rtx for TensorRT-RTX."""
    batches: Tuple[int, int, int] = (1, 1, 1)
    """Fewest, most likely and most images to one call of an engine; others than 1 1 1 take the place of batch."""
    workspace: int = 1024
    """MiB that a layer of an engine may use while it runs."""
    timing_cache: Optional[str] = None
    """A file for measured times of layers, which makes later builds quicker."""
    plugins: Optional[str] = None
    """The library with our plugins, for an engine of the plugin graph; unset: the one installed with detrx."""
    capabilities: Tuple[str, ...] = ()
    """Of the GPUs that a TensorRT-RTX engine is built for, as 8.6 8.9; none lets every GPU compile it for itself."""
    trtexec: Optional[str] = None
    """The trtexec to build with, where TensorRT has no Python bindings."""
