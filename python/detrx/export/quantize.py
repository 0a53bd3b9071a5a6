"""8-bit integers as Q/DQ nodes, and 4-bit weights, written into the float32 graph.

Level A puts the convolutions of backbone and encoder into 8 bits: weights for each output channel, activations for
each tensor, both symmetric, as TensorRT wants it. Level B adds the linear layers that see one token at a time, with
their inputs smoothed (arXiv 2211.10438). What chooses, places or sums is left alone: heads, sampling offsets and
weights, products of attention, sampled values, decoding, and the first convolution.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ExportError
from detrx.export.calibrate import METHODS, Progress, Range, ranges
from detrx.export.plugin_types import with_types
from detrx.export.precision import at_opset, lift_constants
from detrx.export.qdq import Quantized, Writer, lifted_copy

CONVOLUTIONS = re.compile(r"^/model/(backbone|encoder|input_proj)")
TOKENWISE = re.compile(r"/(linear[12]|gate|in_proj|out_proj)/(MatMul|Gemm)|self_attn/(MatMul|Gemm)(_\d+)?$")
NARROW = 16
"""A convolution with fewer input channels is quicker as it is, the first among them."""
SMOOTHING = 0.5
BLOCK = 32
"""Weights that share a scale in 4 bits."""
INT4_OPSET = 21
"""The first with 4-bit integers and blocks."""


def quantize_int8(
    model: Any,
    pictures: Iterable[NDArray[np.float32]],
    *,
    total: int,
    level: str = "a",
    method: str = "percentile",
    progress: Progress | None = None,
) -> Quantized:
    """A copy of a float32 graph with Q/DQ nodes.

    Args:
        model: as ``write_onnx`` makes it, without nodes of ours.
        pictures: (B, 3, h, w) pixels to calibrate on.
        total: how many come.
        level: "a" or "b".
        method: how activations are bounded: "percentile", "entropy" or "largest".
        progress: called with the pictures done and in all.

    Raises:
        ExportError: an unknown level or method, or a graph without layers to quantise.
        DataError: there is no picture.
    """
    if level not in ("a", "b") or method not in METHODS:
        raise ExportError(
            f"[quantize_int8] level must be a or b and method one of {', '.join(METHODS)}, got {level!r}, {method!r}"
        )
    copy = lifted_copy(model)
    constants = {t.name: t for t in copy.graph.initializer}
    kept = {
        n.name: _why_not(n, constants, level)
        for n in copy.graph.node
        if n.op_type in ("Conv", "MatMul", "Gemm")
    }
    chosen = [node for node in copy.graph.node if kept.get(node.name) == ""]
    if not chosen:
        raise ExportError("[quantize_int8] the graph has no layer that may be quantised; export it as fp16")
    seen = ranges(
        copy, list(dict.fromkeys(n.input[0] for n in chosen)), pictures, total=total, progress=progress
    )
    _LayerWriter(copy, seen, method).run({node.name for node in chosen})
    return Quantized(with_types(copy), tuple(n.name for n in chosen), {k: v for k, v in kept.items() if v})


def _why_not(node: Any, constants: Mapping[str, Any], level: str) -> str:
    """Why a layer stays as it is; empty for one that is quantised."""
    if node.input[1] not in constants:
        return "product of two activations"
    if node.op_type == "Conv":
        if not CONVOLUTIONS.search(node.name):
            return "outside backbone and encoder"
        group = next((a.i for a in node.attribute if a.name == "group"), 1)
        if node.input[0] == "pixels" or (group == 1 and constants[node.input[1]].dims[1] < NARROW):
            return "first or narrow convolution"
        return ""
    if not TOKENWISE.search(node.name):
        return "head, sampling or selection"
    return "" if level == "b" else "linear layer: level B"


class _LayerWriter(Writer):
    """Puts Q/DQ before the chosen layers of a graph, in place."""

    def __init__(self, model: Any, seen: Mapping[str, Range], method: str) -> None:
        super().__init__(model)
        self.seen, self.method = seen, method

    def run(self, chosen: set[str]) -> None:
        for node in list(self.graph.node):
            if node.name in chosen:
                if node.op_type == "Conv":
                    self._plain(node)
                else:
                    self._smoothed(node)
            self.nodes.append(node)
        self.finish()

    def _plain(self, node: Any) -> None:
        bound = self.seen[node.input[0]].bound(self.method)
        weight = self.values(node.input[1])
        node.input[0] = self._activation(node.input[0], bound)
        node.input[1] = self._weight(f"{node.input[1]}:int8", weight, axis=0)

    def _smoothed(self, node: Any) -> None:
        """Divide the input's loud channels and multiply their weights by the same."""
        name, seen = node.input[0], self.seen[node.input[0]]
        weight = self.values(node.input[1])
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        weight = weight.T if turned else weight  # (inputs, outputs)
        loud = np.maximum(seen.channels, 1e-5) ** SMOOTHING
        factor = (loud / np.maximum(np.abs(weight).max(1), 1e-5) ** (1 - SMOOTHING)).clip(1e-3, 1e3)
        smooth = self.constant(f"{node.name}:smooth", (1 / factor).astype(np.float32))
        quiet = f"{node.name}:quiet"
        self.add("Mul", [name, smooth], quiet)
        bound = float((seen.channels / factor).max()) or 1e-6
        node.input[0] = self._activation(quiet, bound)
        weight = (weight * factor[:, None]).astype(np.float32)
        weight = np.ascontiguousarray(weight.T) if turned else weight
        node.input[1] = self._weight(f"{node.name}:int8", weight, axis=0 if turned else weight.ndim - 1)

    def _activation(self, name: str, bound: float) -> str:
        return self.pair(name, np.float32(bound / 127), np.int8(0))

    def _weight(self, name: str, weight: NDArray[np.float32], *, axis: int) -> str:
        others = tuple(i for i in range(weight.ndim) if i != axis)
        steps = np.maximum(np.abs(weight).max(others), 1e-8) / 127
        return self.weight(name, weight, steps.astype(np.float32), axis=axis)


def quantize_int4(model: Any, *, block: int = BLOCK) -> Quantized:
    """A copy of a float32 graph whose linear layers hold 4-bit weights, a scale for every ``block`` inputs.

    It makes the file smaller; no runtime that detrx serves computes faster with it. It has ONNX opset 21.

    Raises:
        ExportError: no layer has weights that blocks divide.
    """
    copy = at_opset(lifted_copy(model), INT4_OPSET)
    lift_constants(copy)
    constants = {t.name: t for t in copy.graph.initializer}
    writer, changed, kept = Writer(copy), [], {}
    for node in copy.graph.node:
        if node.op_type in ("MatMul", "Gemm"):
            why = _why_not_int4(node, constants, block)
            if why:
                kept[node.name] = why
            else:
                node.input[1] = _int4_weight(writer, node, block)
                changed.append(node.name)
        writer.nodes.append(node)
    if not changed:
        raise ExportError(
            "[quantize_int4] the graph has no linear layer whose inputs blocks divide; use int8 or fp16"
        )
    writer.finish()
    return Quantized(with_types(copy), tuple(changed), kept)


def _why_not_int4(node: Any, constants: Mapping[str, Any], block: int) -> str:
    if node.input[1] not in constants:
        return "product of two activations"
    weight = constants[node.input[1]]
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    if len(weight.dims) != 2 or weight.dims[1 if turned else 0] % block:
        return f"inputs are no multiple of {block}"
    if re.search(r"(score_head|bbox_head|class_embed|bbox_embed|lqe_layers|sampling_offsets)", node.name):
        return "head or sampling"
    return ""


def _int4_weight(writer: Writer, node: Any, block: int) -> str:
    import ml_dtypes
    from onnx import helper

    name = f"{node.input[1]}:int4"
    out = f"{name}:dequantized"
    if out in writer.made:
        return out
    writer.made.add(out)
    turned = any(a.name == "transB" and a.i for a in node.attribute)
    weight = writer.values(node.input[1])
    weight = weight.T if turned else weight
    blocks = weight.reshape(-1, block, weight.shape[1])
    scale = np.maximum(np.abs(blocks).max(1), 1e-8) / 7
    whole = np.rint(blocks / scale[:, None]).clip(-7, 7).reshape(weight.shape)
    if turned:
        whole, scale = whole.T, scale.T
    packed = np.ascontiguousarray(whole).astype(ml_dtypes.int4)
    from onnx import numpy_helper

    writer.graph.initializer.append(numpy_helper.from_array(packed, name))
    scale_name = writer.constant(f"{name}:scale", np.ascontiguousarray(scale, dtype=np.float32))
    writer.nodes.append(
        helper.make_node(
            "DequantizeLinear", [name, scale_name], [out], name=out, axis=1 if turned else 0, block_size=block
        )
    )
    return out
