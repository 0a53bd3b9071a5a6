"""``estimate``: a model, by file or by name, on devices that need not be here."""

from __future__ import annotations

import json
import tempfile
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, Optional, Sequence, Tuple

from detrx.errors import ConfigError, ExportError, MissingBackendError, pip_install
from detrx.estimate.devices import DEVICES, Device
from detrx.estimate.graph import count, count_nodes, load_onnx
from detrx.estimate.roofline import PRECISIONS, Latency, latency

CLASSES = 80
"""Of the models that are built by name: COCO's."""
FAMILIES = {
    "rt": ("rt-n", "rt-s", "rt-m", "rt-l", "rt-x"),
    "detr": ("detr-r18", "detr-r34", "detr-r50", "detr-r101"),
}
"""The sizes to choose between."""


@dataclass(frozen=True)
class Estimate:
    """What one model asks for, and how long one device takes to give it."""

    model: str
    canvas: Tuple[int, ...]
    """Height, width in pixels."""
    batch: int
    device: Device
    gflop: float
    """A multiply-add is two operations."""
    parameters_m: float
    """Millions of constant floats in the graph."""
    kernels: int
    unknown: Dict[str, int]
    """Operators whose arithmetic is not counted."""
    fused_attention: bool
    """Whether scores of attention were taken to stay on the chip."""
    latencies: Tuple[Latency, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def estimate(
    model: str,
    *,
    device: str = "xavier-nx",
    precisions: Optional[Sequence[str]] = None,
    batch: int = 1,
    canvas: Optional[Tuple[int, int]] = None,
    fused_attention: bool = False,
) -> Estimate:
    """Count a model's work and lay it under a device's roofline.

    Args:
        model: an ``.onnx`` file, or the name of a model, which is then built with random weights.
        device: a name in ``devices.DEVICES``.
        precisions: names in ``roofline.PRECISIONS``; None for all that make the device faster.
        batch: images of one call.
        canvas: height and width; None for the file's, or for a name 640 x 640 (``rt``) or 480 x 640 (``detr``).
        fused_attention: as :func:`detrx.estimate.graph.count` has it.

    Raises:
        ConfigError: no such model, device or precision.
        ExportError: the file is no ONNX graph, or a shape in it cannot be told.
        MissingBackendError: onnx, or for a name PyTorch, is not installed.
    """
    if device not in DEVICES:
        raise ConfigError(f"[estimate] device must be one of {', '.join(DEVICES)}, got {device!r}")
    chosen = tuple(precisions or (PRECISIONS if DEVICES[device].tensor_cores else ("fp32",)))
    if not DEVICES[device].tensor_cores and chosen != ("fp32",):
        raise ConfigError(
            f"[estimate] {device} is estimated in fp32 alone: fewer bits make no processor faster"
        )
    if batch < 1:
        raise ConfigError(f"[estimate] batch must be at least 1, got {batch}")
    graph = graph_of(model, canvas=canvas, batch=batch)
    work = count(graph, batch=batch, canvas=canvas, fused_attention=fused_attention)
    return Estimate(
        model=model,
        canvas=_canvas_of(graph) or canvas or (),
        batch=batch,
        device=DEVICES[device],
        gflop=work.flops / 1e9,
        parameters_m=work.weights / 1e6,
        kernels=len(work.layers),
        unknown=work.unknown,
        fused_attention=fused_attention,
        latencies=tuple(latency(work, DEVICES[device], precision=name) for name in chosen),
    )


def node_operations(model: str, *, batch: int = 1) -> Dict[str, Tuple[int, int]]:
    """The operations of each node of an ``.onnx`` file, of its matrix product and others; raises as estimate."""
    return count_nodes(graph_of(model, canvas=None, batch=batch), batch=batch)


def graph_of(model: str, *, canvas: Optional[Tuple[int, int]], batch: int) -> Any:
    """The ``onnx.ModelProto`` of a file or of a name."""
    onnx = load_onnx()
    if not model.endswith(".onnx"):
        return _built(model, canvas=canvas, batch=batch)
    if not Path(model).is_file():
        raise ConfigError(f"[estimate] model must be an .onnx file or a name, found no file {model}")
    try:
        return onnx.load(model, load_external_data=False)
    except Exception as error:  # protobuf's errors differ between its versions
        raise ExportError(f"[estimate] {model} is no ONNX graph: {error}") from error


def _built(name: str, *, canvas: Optional[Tuple[int, int]], batch: int) -> Any:
    try:
        from detrx.export.onnx import write_onnx
    except ModuleNotFoundError as error:
        remedy = (
            f"A name is built and exported with it; an .onnx file needs no more. Type: {pip_install('train')}"
        )
        raise MissingBackendError(error.name or "torch", remedy) from error
    from detrx.models.config import RtConfig
    from detrx.models.zoo import build, config_for
    from detrx.types import ModelInfo

    config = config_for(name)
    size = canvas or ((640, 640) if isinstance(config, RtConfig) else (480, 640))
    names = tuple(f"class {i}" for i in range(CLASSES))
    info = ModelInfo(model=name, names=names, category_ids=tuple(range(CLASSES)), canvas=size)
    with tempfile.TemporaryDirectory() as folder:
        path = write_onnx(
            build(config, classes=CLASSES).eval(), info, Path(folder) / "model.onnx", batch=batch
        )
        return load_onnx().load(str(path))


def _canvas_of(graph: Any) -> Tuple[int, ...]:
    """Height and width of the first input where they are fixed."""
    sides = graph.graph.input[0].type.tensor_type.shape.dim[2:4] if graph.graph.input else ()
    found = tuple(side.dim_value for side in sides)
    return found if len(found) == 2 and all(found) else ()
