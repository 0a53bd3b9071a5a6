"""Half precision written into the graph: halved weights and casts, with float32 kept where it matters.

The input stays float32 pixels and the outputs float32. TensorRT 11 and TensorRT-RTX have no other way to a lower
precision, and ONNX Runtime runs the same file.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ExportError
from detrx.export.plugin_nodes import ATTENTION, DECODE, DEFORM_ATTN, LAYER_NORM
from detrx.export.plugin_types import with_types

FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16
LOW = {"fp16": FLOAT16, "bf16": BFLOAT16}
BF16_OPSET = 22
"""The first whose convolutions take bfloat16."""
LARGEST = {"fp16": 65504.0, "bf16": 3.38e38}
ROOM = 2.0
"""A layer stays float32 if on the pictures its numbers come nearer than this factor to the largest that fits."""

MOVES = frozenset(
    {"Concat", "Split", "Slice", "Reshape", "Transpose", "Flatten", "Squeeze", "Unsqueeze", "Expand"}
    | {"Gather", "GatherElements", "Identity", "Tile", "Pad"}
)
"""Nodes that only move numbers: in the precision in which these come."""
HALVED = frozenset(
    {"Conv", "ConvTranspose", "MatMul", "Gemm", "Resize", "MaxPool", "AveragePool", "GlobalAveragePool"}
    | {
        "Add",
        "Sub",
        "Mul",
        "Div",
        "Neg",
        "Relu",
        "LeakyRelu",
        "Sigmoid",
        "HardSigmoid",
        "HardSwish",
        "Tanh",
        "Erf",
        "Clip",
    }
    | {DEFORM_ATTN.name, LAYER_NORM.name, ATTENTION.name}
)
"""Nodes that may compute in half precision. TensorRT sums products in float32 all the same."""
EXACT_INPUTS = {
    "Resize": (1, 2),
    DEFORM_ATTN.name: (1,),
    LAYER_NORM.name: (1, 2),
    ATTENTION.name: (3,),
}
"""Inputs that are float32 whatever the rest is."""

PLACES = (
    (r"^/[^/]*$", "decoding"),
    (r"^/model/[^/]+$", "boxes and padding"),
    (r"^/model/decoder/[^/]+$", "boxes and distributions"),
    (r"/cross_attn/[^/]+$", "sampling locations and sums"),
    (r"(score_head|bbox_head|class_embed|bbox_embed|lqe_layers|query_pos_head)", "heads"),
    (r"/mask", "masks"),
)
"""Parts of a model, by the names of its nodes, whose arithmetic stays float32, and why."""


@dataclass(frozen=True)
class Kept:
    """One node that stays in a higher precision."""

    node: str
    why: str


@dataclass(frozen=True)
class PrecisionReport:
    """What became of the nodes of a graph."""

    precision: str
    lowered: int
    """Nodes that compute in the low precision."""
    kept: tuple[Kept, ...]

    def table(self) -> str:
        """Reasons, how many nodes each kept in float32, and one of them."""
        rows: dict[str, list[str]] = {}
        for one in self.kept:
            rows.setdefault(one.why, []).append(one.node)
        lines = [f"{'kept in float32 because of':<32} {'nodes':>5}  for example"]
        lines += [f"{why[:32]:<32} {len(names):5d}  {names[0][-60:]}" for why, names in sorted(rows.items())]
        lines.append(f"{'in ' + self.precision:<32} {self.lowered:5d}")
        return "\n".join(lines)


def lower(
    model: Any, *, precision: str, keep: Mapping[str, str] | None = None, emulate: bool = False
) -> tuple[Any, PrecisionReport]:
    """A copy of a float32 graph in half precision.

    Args:
        model: an onnx.ModelProto as ``write_onnx`` makes them, with or without Q/DQ nodes.
        precision: "fp16" or "bf16".
        keep: names of further nodes to leave in float32, and why.
        emulate: compute in float32 and round every number that would be a half; for runtimes without bfloat16.

    Raises:
        ExportError: an unknown precision.
    """
    if precision not in LOW:
        raise ExportError(f"[lower] precision must be one of {', '.join(LOW)}, got {precision!r}")
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    lift_constants(copy)
    copy = with_types(copy)
    plan = _Plan(copy, precision, dict(keep or {}))
    rewritten = _Rewrite(copy, plan, LOW[precision], emulate).run()
    kept = tuple(Kept(node.name, plan.why[node.name]) for node in copy.graph.node if node.name in plan.why)
    return rewritten, PrecisionReport(precision, len(plan.low), kept)


def at_opset(model: Any, version: int) -> Any:
    """A copy of a graph of standard operators, in a later version of ONNX's operators."""
    import onnx

    converted = onnx.version_converter.convert_version(model, version)
    del converted.metadata_props[:]
    converted.metadata_props.extend(model.metadata_props)
    converted.producer_name, converted.graph.name = model.producer_name, model.graph.name
    return converted


def lift_constants(model: Any) -> None:
    """Make initializers of Constant nodes, and give every node a name of its own, in place."""
    graph = model.graph
    plain = []
    for node in graph.node:
        value = next((a.t for a in node.attribute if a.name == "value"), None)
        if node.op_type == "Constant" and value is not None:
            value.name = node.output[0]
            graph.initializer.append(value)
        else:
            plain.append(node)
    seen: set[str] = set()
    for node in plain:
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}:{node.output[0]}"
        seen.add(node.name)
    del graph.node[:]
    graph.node.extend(plain)


class _Plan:
    """Which nodes compute in the low precision, and why the others do not."""

    def __init__(self, model: Any, precision: str, keep: dict[str, str]) -> None:
        graph = model.graph
        ports = [*graph.input, *graph.output, *graph.value_info]
        self.types = {port.name: port.type.tensor_type.elem_type for port in ports}
        self.types.update({t.name: t.data_type for t in graph.initializer})
        self.constants = {t.name: t for t in graph.initializer}
        self.answers = {out.name for out in graph.output}
        self.largest = LARGEST[precision]
        self.keep = keep
        self.low: set[str] = set()
        self.low_tensors: set[str] = set()
        self.why: dict[str, str] = {}
        for node in graph.node:
            self._place(node)

    def is_float(self, name: str) -> bool:
        return self.types.get(name) == FLOAT

    def _place(self, node: Any) -> None:
        if not any(self.is_float(name) for name in node.output):
            return
        inputs = [n for n in node.input if self.is_float(n) and n not in self.constants]
        if node.op_type in MOVES:
            low = bool(inputs) and all(name in self.low_tensors for name in inputs)
            low = low and not self.answers & set(node.output)
        else:
            why = self.reason(node)
            low = not why
            if why:
                self.why[node.name] = why
        if low:
            self.low.add(node.name)
            self.low_tensors.update(name for name in node.output if self.is_float(name))

    def reason(self, node: Any) -> str:
        """Why a node stays in float32; empty for one that does not."""
        if node.name in self.keep:
            return self.keep[node.name]
        if self.answers & set(node.output):
            return "an answer"
        if node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            return "int8"
        if node.op_type == DECODE.name:
            return "decoding"
        if node.op_type in ("Softmax", "LayerNormalization") or node.op_type.startswith("Reduce"):
            return f"{node.op_type}: sums"
        if node.op_type not in HALVED:
            return f"{node.op_type}: arithmetic"
        ours = node.op_type in (DEFORM_ATTN.name, LAYER_NORM.name, ATTENTION.name)
        for pattern, why in PLACES:
            if not ours and re.search(pattern, node.name):
                return why
        largest = max((_largest(self.constants[n]) for n in node.input if n in self.constants), default=0.0)
        return f"weights up to {largest:.3g}" if largest > self.largest and node.op_type != "Clip" else ""


def _largest(tensor: Any) -> float:
    if tensor.data_type != FLOAT:
        return 0.0
    from onnx import numpy_helper

    values = np.abs(numpy_helper.to_array(tensor))
    return float(np.where(np.isfinite(values), values, 0).max(initial=0.0))


class _Rewrite:
    """Carries the plan out on a copy of the graph."""

    def __init__(self, model: Any, plan: _Plan, kind: int, emulate: bool) -> None:
        self.model, self.plan, self.kind, self.emulate = model, plan, kind, emulate
        self.nodes: list[Any] = []
        self.made: dict[str, str] = {}

    def run(self) -> Any:
        import onnx

        for old in self.model.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(old)
            self._lower(node) if node.name in self.plan.low else self._keep(node)
        rewritten = onnx.ModelProto()
        rewritten.CopyFrom(self.model)
        graph = rewritten.graph
        del graph.node[:], graph.value_info[:]
        graph.node.extend(self.nodes)
        drop_unused(graph)
        return with_types(rewritten)

    def _keep(self, node: Any) -> None:
        for i, name in enumerate(node.input):
            if name in self.plan.low_tensors and not self.emulate:
                node.input[i] = self._cast(name, FLOAT)
        self.nodes.append(node)

    def _lower(self, node: Any) -> None:
        exact = EXACT_INPUTS.get(node.op_type, ())
        for i, name in enumerate(node.input):
            low = name in self.plan.low_tensors
            if i in exact:
                node.input[i] = self._cast(name, FLOAT) if low and not self.emulate else name
            elif self.plan.is_float(name) and not low:
                node.input[i] = self._low(name)
        if not self.emulate or node.op_type in MOVES:
            self.nodes.append(node)
            return
        outputs = [name for name in node.output if self.plan.is_float(name)]
        for i, name in enumerate(node.output):
            node.output[i] = f"{name}:exact" if name in outputs else name
        self.nodes.append(node)
        for name in outputs:
            self._round(f"{name}:exact", name)

    def _low(self, name: str) -> str:
        """The name of a float32 tensor's low twin."""
        if name in self.plan.constants:
            return self._low_constant(name)
        if not self.emulate:
            return self._cast(name, self.kind)
        if name not in self.made:
            self.made[name] = f"{name}:rounded"
            self._round(name, f"{name}:rounded")
        return self.made[name]

    def _low_constant(self, name: str) -> str:
        twin = f"{name}:{self.kind}"
        if twin not in self.made:
            from onnx import helper, numpy_helper

            values = _halved(numpy_helper.to_array(self.plan.constants[name]), self.kind)
            if self.emulate:
                tensor = numpy_helper.from_array(values.astype(np.float32), twin)
            else:
                tensor = helper.make_tensor(twin, self.kind, values.shape, values.tobytes(), raw=True)
            self.model.graph.initializer.append(tensor)
            self.made[twin] = twin
        return twin

    def _cast(self, name: str, kind: int) -> str:
        twin = f"{name}:{kind}"
        if twin not in self.made:
            self._add_cast(name, twin, kind)
            self.made[twin] = twin
        return twin

    def _round(self, name: str, out: str) -> None:
        self._add_cast(name, f"{out}:{self.kind}", self.kind)
        self._add_cast(f"{out}:{self.kind}", out, FLOAT)

    def _add_cast(self, name: str, out: str, kind: int) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node("Cast", [name], [out], name=f"{out}:cast", to=kind))


def _halved(values: NDArray[Any], kind: int) -> NDArray[Any]:
    """Rounded to the nearest, and infinite only where it was: a limit of a Clip may be larger than the largest."""
    if kind == FLOAT16:
        fits = np.where(np.isfinite(values), values.clip(-65504, 65504), values)
        halved: NDArray[Any] = fits.astype(np.float16)
        return halved
    import ml_dtypes

    rounded: NDArray[Any] = values.astype(ml_dtypes.bfloat16)
    return rounded


def drop_unused(graph: Any) -> None:
    """Take out initializers that no node reads, in place."""
    read = {name for node in graph.node for name in node.input} | {out.name for out in graph.output}
    left = [tensor for tensor in graph.initializer if tensor.name in read]
    del graph.initializer[:]
    graph.initializer.extend(left)


def overflowing(
    model: Any, pictures: Iterable[NDArray[np.float32]], *, precision: str
) -> tuple[dict[str, str], dict[str, float]]:
    """Nodes whose numbers come near what the precision holds, on real pixels.

    Args:
        model: the float32 graph, without nodes of ours.
        pictures: (B, 3, h, w) pixels.
        precision: "fp16" or "bf16".

    Returns:
        For ``lower``'s ``keep``: the name of each such node and why; and the largest number of every node.
    """
    largest = largest_values(model, pictures)
    limit = LARGEST[precision] / ROOM
    found = {name: f"reaches {value:.3g}" for name, value in largest.items() if not value <= limit}
    return {**_readers(model, found), **found}, largest


def _readers(model: Any, loud: Mapping[str, str]) -> dict[str, str]:
    """Nodes that read what a loud node gives, moved or not: they could not take it in half precision either."""
    tensors: set[str] = set()
    found: dict[str, str] = {}
    for node in model.graph.node:
        reads = not tensors.isdisjoint(node.input)
        if node.name in loud or (reads and node.op_type in MOVES):
            tensors.update(node.output)
        elif reads:
            found[node.name] = "reads what overflows"
    return found


def largest_values(model: Any, pictures: Iterable[NDArray[np.float32]]) -> dict[str, float]:
    """The largest absolute number that each node with a float answer gives, by the node's name."""
    import onnx
    import onnxruntime
    from onnx import helper

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    lift_constants(copy)
    copy = with_types(copy)
    types = {port.name: port.type.tensor_type.elem_type for port in copy.graph.value_info}
    names: dict[str, str] = {}
    for node in list(copy.graph.node):
        out = node.output[0]
        if node.op_type in HALVED and types.get(out) == FLOAT:
            names[f"{out}:most"] = node.name
            copy.graph.node.append(helper.make_node("Abs", [out], [f"{out}:abs"]))
            copy.graph.node.append(helper.make_node("ReduceMax", [f"{out}:abs"], [f"{out}:most"], keepdims=0))
            copy.graph.output.append(helper.make_tensor_value_info(f"{out}:most", FLOAT, []))
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(
        copy.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    found = dict.fromkeys(names.values(), 0.0)
    for pixels in pictures:
        for name, value in zip(names, session.run(list(names), {"pixels": pixels})):
            found[names[name]] = max(found[names[name]], float(value))
    return found
