"""The two ONNX graphs, pixels in, the best boxes out: in operators that every runtime knows, or with nodes of ours."""

from __future__ import annotations

import copy
import io
import json
import logging
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from detrx.errors import ExportError, MissingBackendError, pip_install
from detrx.export.plugin_graph import decode_node, use_plugins
from detrx.export.plugin_nodes import DECODE, DOMAIN, DOMAIN_VERSION
from detrx.export.plugin_types import with_types
from detrx.models.head import answers, decode_outputs
from detrx.types import ModelInfo

log = logging.getLogger(__name__)

INPUT = "pixels"
OUTPUTS = ("scores", "labels", "boxes", "masks", "queries")
"""The last two only of models with masks, the very last only where these are merged in the order of the queries."""
OPSET = 17
"""The first with LayerNormalization; later ones have a GridSample that some TensorRT run as nearest."""
MOST = 300
"""The most detections of an image unless asked for more; TensorRT's TopK ends at 3840."""
FORBIDDEN = frozenset({"GridSample", "Loop", "If", "Scan", "NonZero", "NonMaxSuppression", "Einsum"})
"""Operators that a runtime among those we serve runs wrongly, slowly or not at all."""


class _BoxGraph(nn.Module):
    """The model with its decoding, so that the graph ends in boxes."""

    def __init__(self, model: nn.Module, top: int, *, plugin: bool) -> None:
        super().__init__()
        self.model = model
        self.top = top
        self.plugin = plugin

    def forward(self, pixels: Tensor) -> tuple[Tensor, ...]:
        decode = decode_node if self.plugin else decode_outputs
        return decode(self.model(pixels), top=self.top)


def write_onnx(
    model: nn.Module,
    info: ModelInfo,
    path: Path,
    *,
    batch: int | None = 1,
    top: int | None = None,
    opset: int = OPSET,
    nodes: frozenset[str] = frozenset(),
) -> Path:
    """Write a model as one ONNX file that carries its own description.

    The graph takes "pixels" (B, 3, h, w) float32 and gives "scores" (B, K), "labels" (B, K) int64 and "boxes"
    (B, K, 4), corners in [0, 1] of the canvas, best first, and of a model with masks "masks" (B, K, h', w'), logits
    that cover the canvas; of a DETR with masks also "queries" (B, K) int64. The model is not changed.

    Args:
        model: in eval mode it answers (B, 3, h, w) with Outputs; its ``fuse()``, where there is one, is used.
        info: goes into the metadata; its canvas is the size of the input.
        path: the file to write; one there is replaced.
        batch: images to one call, or None for any number.
        top: K, detections of an image; None for one a query, at most 300.
        opset: 16 or 17.
        nodes: the kinds of our own nodes to use, of export.plugin_nodes; none for the pure graph.

    Raises:
        ExportError: the model cannot be traced, or the graph holds what the pure graph must not.
        MissingBackendError: onnx is not installed.
    """
    if opset not in (16, 17):
        raise ExportError(
            f"[write_onnx] opset must be 16 or 17, got {opset}; later ones change what operators mean"
        )
    onnx = _onnx()
    ready = _prepare(model)
    pixels = torch.zeros(batch or 2, 3, *info.canvas)
    wanted = _top(ready, pixels[:1], top)
    graph = _BoxGraph(use_plugins(ready, nodes), wanted, plugin=DECODE.name in nodes)
    traced = _trace(graph, pixels, dynamic=batch is None, opset=opset, ours=bool(nodes))
    tidy = _simplify(onnx.load_from_string(traced))
    _describe(tidy, info, batch=batch, top=graph.top)
    _refuse_impure(tidy, nodes)
    if nodes:
        tidy = with_types(tidy)
    check_graph(tidy, info)
    Path(path).write_bytes(tidy.SerializeToString())
    return Path(path)


def check_graph(model: Any, info: ModelInfo) -> None:
    """Raise ExportError unless a graph is valid ONNX, types and shapes included."""
    try:
        _onnx().checker.check_model(model, full_check=True)
    except Exception as error:  # the checker's and the shape inference's errors share no base class
        raise ExportError(f"[write_onnx] the graph of {info.model} is not valid ONNX: {error}") from error


def _onnx() -> Any:
    try:
        import onnx
    except ImportError as error:
        raise MissingBackendError("onnx", f"Export needs it. Type: {pip_install('train')}") from error
    return onnx


def _prepare(model: nn.Module) -> nn.Module:
    """A copy on the CPU, in float32 and eval mode, with branches and norms folded into convolutions."""
    ready = copy.deepcopy(model).to("cpu", torch.float32).eval()
    fuse = getattr(ready, "fuse", None)
    if callable(fuse):
        with torch.no_grad():
            fused = fuse()
        ready = fused if isinstance(fused, nn.Module) else ready
    return ready.requires_grad_(False)


def _top(model: nn.Module, pixels: Tensor, wanted: int | None) -> int:
    """K: one a query and at most MOST, or what is wanted as far as there are pairs of query and class."""
    with torch.inference_mode():
        found = model(pixels)
    return min(MOST, found.logits.shape[-2]) if wanted is None else min(wanted, answers(found))


def _trace(graph: nn.Module, pixels: Tensor, *, dynamic: bool, opset: int, ours: bool) -> bytes:
    with torch.inference_mode():
        names = OUTPUTS[: len(graph(pixels[:1]))]
    axes = {name: {0: "batch"} for name in (INPUT, *names)} if dynamic else None
    out = io.BytesIO()
    try:
        with warnings.catch_warnings(), torch.no_grad():
            # The tracing exporter is announced as deprecated, but needs no further package and writes opset
            # 17 itself. It warns of every size that becomes a constant, which is what a fixed canvas means.
            warnings.simplefilter("ignore")
            torch.onnx.export(
                graph,
                (pixels,),
                out,  # type: ignore[arg-type]  # the tracing exporter takes a file object
                input_names=[INPUT],
                output_names=list(names),
                dynamic_axes=axes,
                opset_version=opset,
                custom_opsets={DOMAIN: DOMAIN_VERSION} if ours else None,
                dynamo=False,
            )
    except (RuntimeError, torch.onnx.errors.OnnxExporterError) as error:
        raise ExportError(f"[write_onnx] the model cannot be traced: {error}") from error
    return out.getvalue()


def _simplify(model: Any) -> Any:
    try:
        import onnxslim
    except ImportError:
        log.warning("onnxslim is not installed: the graph keeps constants unfolded (pip install onnxslim)")
        return model
    return onnxslim.slim(model)


def _describe(model: Any, info: ModelInfo, *, batch: int | None, top: int) -> None:
    """Write the metadata and the shapes of the input and the outputs."""
    onnx = _onnx()
    del model.metadata_props[:]
    plain = {
        "detrx": info.to_json(),
        "names": json.dumps(list(info.names)),
        "ids": json.dumps(list(info.category_ids)),
        "canvas": json.dumps(list(info.canvas)),
        "mean": json.dumps(list(info.mean)),
        "std": json.dumps(list(info.std)),
    }
    onnx.helper.set_model_props(model, plain)
    model.producer_name, model.graph.name, model.doc_string = "detrx", info.model, ""
    first = "batch" if batch is None else batch
    for output in model.graph.output:
        kind = output.type.tensor_type.elem_type
        sides = [side.dim_value for side in output.type.tensor_type.shape.dim[2:]]
        output.CopyFrom(onnx.helper.make_tensor_value_info(output.name, kind, [first, top, *sides]))


def _refuse_impure(model: Any, nodes: frozenset[str]) -> None:
    """Raise for operators that the graph must not hold, and for weights outside the file."""
    bad = sorted({n.op_type for n in model.graph.node if n.op_type in FORBIDDEN or not _known(n, nodes)})
    if bad:
        raise ExportError(
            f"[write_onnx] the {'plugin' if nodes else 'pure'} graph must not hold {', '.join(bad)}; "
            "write that part of the model in plain tensor operators"
        )
    outside = [t.name for t in model.graph.initializer if t.data_location == _onnx().TensorProto.EXTERNAL]
    if outside:
        raise ExportError(
            f"[write_onnx] weights must lie in the file, found outside: {', '.join(outside[:5])}"
        )


def _known(node: Any, nodes: frozenset[str]) -> bool:
    return node.domain in ("", "ai.onnx") or (node.domain == DOMAIN and node.op_type in nodes)
