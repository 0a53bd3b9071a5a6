"""8-bit integers as ONNX Runtime's CPU computes them: Q/DQ pairs around whole stretches of the graph.

ONNX Runtime makes an integer kernel of a node all of whose inputs and outputs are in 8 bits, and converts to float32
and back wherever one is not. So what lies between the convolutions (sums, SiLU, concatenations, resizing) is
in 8 bits too, and what is not is float32. Activations are unsigned and have a zero point, so that a ReLU before one is
what the rounding does anyhow; weights are signed. Processors without VNNI would add two products of 8 by 8 bits in 16
bits, which may overflow: 7 bits for the weights, the usual remedy, cost 5 points of AP with a MobileNetV2, so that
runtime/onnx.py asks for exact sums instead.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ExportError
from detrx.export.calibrate import Progress, Range, ranges
from detrx.export.plugin_types import with_types
from detrx.export.qdq import Quantized, Writer, lifted_copy
from detrx.export.quantize import CONVOLUTIONS

BETWEEN = frozenset({"Add", "Mul", "Sigmoid", "Concat", "AveragePool", "GlobalAveragePool"})
"""Nodes that ONNX Runtime computes on 8-bit numbers."""
SAME_SCALE = frozenset({"Resize", "Slice"})
"""Nodes that it moves 8-bit numbers through, if those that come out mean the same as those that go in."""
CLIPPING = frozenset({"Relu", "Clip"})
"""Nodes that go where what comes before them answers in 8 bits: no number lies beyond what they leave."""
MOVING = frozenset({"Reshape"})
LINEAR = re.compile(r"/(linear[12]|in_proj|out_proj|value_proj|proj|gate)/|self_attn/(MatMul|Gemm)")
LARGEST_BIAS = 2.0**30


def quantize_for_cpu(
    model: Any,
    pictures: Iterable[NDArray[np.float32]],
    *,
    total: int,
    method: str = "percentile",
    progress: Progress | None = None,
) -> Quantized:
    """A copy of a float32 graph whose convolutions and linear layers ONNX Runtime computes in 8 bits on a CPU.

    Args:
        model: as ``write_onnx`` makes it, without nodes of ours.
        pictures: (B, 3, h, w) pixels to calibrate on.
        total: how many come.
        method: how activations are bounded: "percentile", "entropy" or "largest".
        progress: called with the pictures done and in all.

    Raises:
        ExportError: a graph without layers to quantise.
        DataError: there is no picture.
    """
    copy = lifted_copy(model)
    stretch = _Stretch(copy)
    if not stretch.nodes:
        raise ExportError(
            "[quantize_for_cpu] the graph has no layer that may be quantised; export it as fp32"
        )
    named = list(dict.fromkeys(stretch.tensors().values()))
    seen = ranges(copy, named, pictures, total=total, progress=progress)
    _CpuWriter(copy, stretch, seen, method).run()
    layers = tuple(n.name for n in copy.graph.node if n.name in stretch.layers)
    return Quantized(with_types(copy), layers, stretch.kept)


class _Stretch:
    """Which nodes compute in 8 bits, and the tensors between them."""

    def __init__(self, model: Any) -> None:
        graph = model.graph
        self.constants = {t.name for t in graph.initializer}
        self.weights = {t.name: t for t in graph.initializer}
        self.answers = {out.name for out in graph.output}
        self.behind = {
            node.output[0]: (node.name, node.input[0])
            for node in graph.node
            if node.op_type in MOVING | CLIPPING
        }
        """Of a tensor that is reshaped or clipped: by which node, from which other."""
        self.moving = {node.name for node in graph.node if node.op_type in MOVING}
        self.readers: dict[str, list[Any]] = {}
        for node in graph.node:
            for name in node.input:
                self.readers.setdefault(name, []).append(node)
        self.nodes: dict[str, Any] = {}
        self.layers: set[str] = set()
        self.kept: dict[str, str] = {}
        self.clips: set[str] = set()
        """Names of the ReLUs that go."""
        self.made: dict[str, str] = {}
        """What nodes answer in 8 bits, and where it is seen how large that gets: behind the ReLU that goes."""
        for node in graph.node:
            self._place(node)
        for node in self.nodes.values():
            if node.op_type == "Gemm":  # answers in float32 but where another layer reads it through a ReLU
                self._end(node, always=False)

    def _place(self, node: Any) -> None:
        layer = node.op_type in ("Conv", "MatMul", "Gemm")
        why = self._why_not(node) if layer else ""
        if why:
            self.kept[node.name] = why
        elif layer or self._between(node):
            self.nodes[node.name] = node
            if layer:
                self.layers.add(node.name)
            if node.op_type not in ("MatMul", "Gemm"):
                self._end(node, always=True)

    def _why_not(self, node: Any) -> str:
        if node.input[1] not in self.constants:
            return "product of two activations"
        if not self.answers.isdisjoint(node.output):
            return "an answer"
        if node.op_type == "Conv":
            if not CONVOLUTIONS.search(node.name):
                return "outside backbone and encoder"
            # A narrow one between two in 8 bits ONNX Runtime would put into 8 bits itself, with one scale for all.
            return "first convolution" if node.input[0] == "pixels" else ""
        return "" if LINEAR.search(node.name) else "head, sampling or selection"

    def _between(self, node: Any) -> bool:
        known = node.op_type in BETWEEN or node.op_type in SAME_SCALE
        reads = {self.source(name) for name in self.activations(node)}
        return known and bool(CONVOLUTIONS.search(node.name)) and not reads.isdisjoint(self.made)

    def _end(self, node: Any, *, always: bool) -> None:
        answer = end = node.output[0]
        following = self._following(end)
        clips = following.op_type in CLIPPING if following is not None else False
        if clips and (always or self._feeds_layer(following.output[0])):
            self.clips.add(following.name)
            end = following.output[0]
        if always or end != answer:
            self.made[answer] = end

    def _following(self, name: str) -> Any:
        """The one node that reads a tensor, reshaped or not; None for several or none."""
        while len(self.readers.get(name, ())) == 1:
            (reader,) = self.readers[name]
            if reader.op_type not in MOVING:
                return reader
            name = reader.output[0]
        return None

    def _feeds_layer(self, name: str) -> bool:
        reader = self._following(name)
        return reader is not None and reader.name in self.layers

    def activations(self, node: Any) -> list[str]:
        """What a node reads that pictures change."""
        return [name for name in node.input if name and name not in self.constants]

    def bias_of(self, layer: Any) -> tuple[Any, int]:
        """The node that adds a layer's bias, which is the layer itself or an Add, and which input it is."""
        if layer.op_type != "MatMul":
            return (layer, 2) if len(layer.input) > 2 else (None, 0)
        following = self.readers.get(layer.output[0], [])
        if len(following) == 1 and following[0].op_type == "Add":
            for at, name in enumerate(following[0].input):
                if name in self.constants and len(self.weights[name].dims) == 1:
                    return following[0], at
        return None, 0

    def source(self, name: str) -> str:
        """The tensor in 8 bits that was clipped and reshaped into this one, else the tensor itself."""
        at = name
        while at not in self.made and at in self.behind:
            maker, before = self.behind[at]
            if maker not in self.moving and maker not in self.clips:
                return name
            at = before
        return at if at in self.made else name

    def tensors(self) -> dict[str, str]:
        """All that passes in 8 bits, and the tensor that it is calibrated by."""
        read = {self.source(name) for node in self.nodes.values() for name in self.activations(node)}
        return {name: self.made.get(name, name) for name in [*self.made, *sorted(read - {*self.made})]}


class _CpuWriter(Writer):
    """Puts Q/DQ between the nodes of a stretch, in place."""

    def __init__(self, model: Any, stretch: _Stretch, seen: Mapping[str, Range], method: str) -> None:
        super().__init__(model)
        self.stretch = stretch
        self.scales: dict[str, tuple[float, int]] = {}
        for name, at in stretch.tensors().items():
            low, high = seen[at].ends(method)
            scale = max(high - low, 1e-6) / 255
            self.scales[name] = (scale, round(-low / scale))
        for node in stretch.nodes.values():
            if node.op_type in SAME_SCALE:
                self.scales[node.output[0]] = self.scales[stretch.source(node.input[0])]
        self.gone: dict[str, str] = {}

    def run(self) -> None:
        for node in list(self.graph.node):
            if node.name in self.stretch.clips:
                self.gone[node.output[0]] = self._read(node.input[0])
                continue
            if node.name in self.stretch.nodes:
                self._lower(node)
            else:
                for i, name in enumerate(node.input):
                    node.input[i] = self._read(name)
            if node.op_type == "MaxPool":
                self._keep_float(node)
            else:
                self.nodes.append(node)
        self.finish()

    def _keep_float(self, pool: Any) -> None:
        """Fence a MaxPool: ONNX Runtime carries 8-bit numbers through it, whose kernel for them takes 10 times as long.

        The fence is a LeakyRelu with slope 1, which changes nothing and is not optimised away.
        """
        (source,), (out,) = pool.input, pool.output
        self.add("LeakyRelu", [source], f"{out}:before", alpha=1.0)
        pool.input[0], pool.output[0] = f"{out}:before", f"{out}:pooled"
        self.nodes.append(pool)
        self.add("LeakyRelu", [f"{out}:pooled"], out, alpha=1.0)

    def _read(self, name: str) -> str:
        """What a node reads in place of a tensor: what integers make comes from them."""
        name = self.gone.get(name, name)
        return self._passed(name) if name in self.stretch.made else name

    def _lower(self, node: Any) -> None:
        source = self.stretch.source(node.input[0])
        for i, name in enumerate(node.input):
            if name in self.constants:
                if node.op_type in BETWEEN:
                    node.input[i] = self._number(name)
            elif name:
                through = self.stretch.source(name) in self.stretch.made
                node.input[i] = self._read(name) if through else self._passed(name)
        if node.name in self.stretch.layers:
            self._layer(node, self.scales[source][0])

    def _passed(self, name: str) -> str:
        scale, zero = self.scales[name]
        return self.pair(name, np.float32(scale), np.uint8(zero))

    def _number(self, name: str) -> str:
        """A constant beside an activation, in 8 bits of its own."""
        values = self.values(name)
        low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
        scale = max(high - low, 1e-6) / 255
        zero = round(-low / scale)
        whole = (np.rint(values / scale) + zero).clip(0, 255).astype(np.uint8)
        return self.dequantized(f"{name}:uint8", whole, np.float32(scale), np.uint8(zero))

    def _layer(self, node: Any, scale: float) -> None:
        weight = self.values(node.input[1])
        turned = any(a.name == "transB" and a.i for a in node.attribute)
        axis = 0 if node.op_type == "Conv" or turned else weight.ndim - 1
        others = tuple(i for i in range(weight.ndim) if i != axis)
        steps = np.maximum(np.abs(weight).max(others), 1e-8) / 127
        adder, at = self.stretch.bias_of(node)
        bias = self.values(adder.input[at]) if adder is not None else np.zeros(1, np.float32)
        # A channel of tiny weights must not make a large integer of its bias.
        steps = np.maximum(steps, np.abs(bias) / (LARGEST_BIAS * scale)).astype(np.float32)
        node.input[1] = self.weight(f"{node.input[1]}:int8", weight, steps, axis=axis)
        if adder is not None:
            fine = (scale * steps).astype(np.float32)
            whole, zeros = np.rint(bias / fine).astype(np.int32), np.zeros(len(fine), np.int32)
            adder.input[at] = self.dequantized(f"{node.name}:bias", whole, fine, zeros, axis=0)
