"""The arithmetic of one ONNX operator: a multiply-add is two operations, anything else of an element is one."""

from __future__ import annotations

from math import prod
from typing import Any, Callable, Dict, List, Optional, Sequence

from detrx.export.plugin_nodes import ATTENTION, DECODE, DEFORM_ATTN, DOMAIN, LAYER_NORM

Shape = Sequence[int]
Shapes = List[Optional[Shape]]

VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
"""The same numbers under another shape: neither arithmetic nor traffic."""
POINTWISE = frozenset(
    {
        "Abs", "Add", "And", "BatchNormalization", "Cast", "Ceil", "Clip", "Cos", "DequantizeLinear", "Div",
        "Elu", "Equal", "Erf", "Exp", "Expand", "Floor", "Gelu", "Greater", "GreaterOrEqual", "HardSigmoid",
        "HardSwish", "IsInf", "IsNaN", "LeakyRelu", "Less", "LessOrEqual", "Log", "Max", "Min", "Mish",
        "Mod", "Mul", "Neg", "Not", "Or", "PRelu", "Pow", "QuantizeLinear", "Reciprocal", "Relu", "Round",
        "Selu", "Sigmoid", "Sign", "Sin", "Softplus", "Sqrt", "Sub", "Sum", "Tan", "Tanh",
        "ThresholdedRelu", "Transpose", "Where", "Xor",
    }
)  # fmt: skip
"""What a runtime computes on the way out of the layer before it."""
MOVES = frozenset(
    {
        "Cast", "DepthToSpace", "Expand", "Gather", "GatherElements", "GatherND", "Pad",
        "ScatterElements", "ScatterND", "Slice", "SpaceToDepth", "Split", "Tile", "Transpose",
    }
)  # fmt: skip
"""Traffic without arithmetic."""
PIECES = frozenset({"Concat", "Slice", "Split"})
"""Tensors joined or cut."""
GATHERS = frozenset({"Gather", "GatherElements", "GatherND"})
"""They read no more of their first input than they write."""
REDUCTIONS = frozenset(
    {
        "ArgMax", "ArgMin", "CumSum", "GlobalAveragePool", "GlobalMaxPool", "ReduceL1", "ReduceL2",
        "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum", "ReduceSumSquare", "TopK",
    }
)  # fmt: skip
"""One operation for each element that goes in; of TopK the comparisons of one pass."""
PER_OUTPUT = {
    "Softmax": 5,  # largest, difference, exponential, sum, quotient
    "LogSoftmax": 5,
    "LayerNormalization": 7,  # mean, difference, square and sum, scale, weight and bias
    "InstanceNormalization": 7,
    "GroupNormalization": 7,
    "GridSample": 8,  # four corners
    "BatchNormalization": 2,
}


def attribute(node: Any, name: str, default: Any) -> Any:
    """The value of an attribute of a node."""
    import onnx

    for item in node.attribute:
        if item.name == name:
            return onnx.helper.get_attribute_value(item)
    return default


def operations(node: Any, ins: Shapes, outs: Sequence[Shape]) -> Optional[int]:
    """The operations of a node, or None for an operator that is not known here.

    Args:
        node: an ``onnx.NodeProto``.
        ins, outs: the shapes of its inputs (None for one left out) and outputs.
    """
    kind = node.op_type
    if node.domain == DOMAIN and kind in _OURS:
        return _OURS[kind](node, ins, outs)
    if node.domain not in ("", "ai.onnx"):
        return None
    if kind in _SPECIAL:
        return _SPECIAL[kind](node, ins, outs)
    many = prod(outs[0])
    if kind in PER_OUTPUT:
        return PER_OUTPUT[kind] * many
    if kind in VIEWS or kind in MOVES:
        return 0
    if kind in REDUCTIONS:
        return prod(ins[0] or ())
    return many if kind in POINTWISE else None


def _conv(_node: Any, ins: Shapes, outs: Sequence[Shape]) -> int:
    weight = ins[1] or ()  # (out, in / groups, *kernel)
    return 2 * prod(outs[0]) * prod(weight[1:]) + _bias(ins, outs)


def _conv_transpose(_node: Any, ins: Shapes, outs: Sequence[Shape]) -> int:
    weight = ins[1] or ()  # (in, out / groups, *kernel)
    return 2 * prod(ins[0] or ()) * prod(weight[1:]) + _bias(ins, outs)


def _matmul(_node: Any, ins: Shapes, outs: Sequence[Shape]) -> int:
    return 2 * prod(outs[0]) * (ins[0] or (0,))[-1]


def _gemm(node: Any, ins: Shapes, outs: Sequence[Shape]) -> int:
    first = ins[0] or (0, 0)
    depth = first[0 if attribute(node, "transA", 0) else -1]
    return 2 * prod(outs[0]) * depth + _bias(ins, outs)


def _pool(node: Any, _ins: Shapes, outs: Sequence[Shape]) -> int:
    cells: int = prod(attribute(node, "kernel_shape", [1]))
    return prod(outs[0]) * cells


def _resize(node: Any, ins: Shapes, outs: Sequence[Shape]) -> int:
    """Linear takes 2 neighbours along each resized axis, cubic 4: their products and sums; the nearest costs none."""
    mode = attribute(node, "mode", b"nearest")
    if mode == b"nearest":
        return 0
    axes = sum(one != other for one, other in zip(ins[0] or (), outs[0]))
    neighbours: int = (2 if mode == b"linear" else 4) ** axes
    return prod(outs[0]) * (2 * neighbours - 1)


def _bias(ins: Shapes, outs: Sequence[Shape]) -> int:
    return prod(outs[0]) if len(ins) > 2 and ins[2] is not None else 0


_SPECIAL: Dict[str, Callable[[Any, Shapes, Sequence[Shape]], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "MatMul": _matmul,
    "Gemm": _gemm,
    "MaxPool": _pool,
    "AveragePool": _pool,
    "Resize": _resize,
}


def _deform_attn(_node: Any, ins: Shapes, _outs: Sequence[Shape]) -> int:
    values, logits = ins[0] or (1, 1, 1, 1), ins[3] or (0,)
    # of each point and channel four corners and the weight, each a product and a sum; and the softmax
    return 10 * prod(logits) * values[3] + PER_OUTPUT["Softmax"] * prod(logits)


def _attention(node: Any, ins: Shapes, outs: Sequence[Shape]) -> int:
    keys = (ins[1] or (0, 0, 0))[1]
    queries = prod(outs[0][:2])
    heads: int = attribute(node, "heads", 1)
    return keys * queries * (4 * outs[0][2] + PER_OUTPUT["Softmax"] * heads)


_OURS: Dict[str, Callable[[Any, Shapes, Sequence[Shape]], int]] = {
    DEFORM_ATTN.name: _deform_attn,
    ATTENTION.name: _attention,
    LAYER_NORM.name: lambda _node, _ins, outs: PER_OUTPUT["LayerNormalization"] * prod(outs[0]),
    DECODE.name: lambda _node, ins, _outs: PER_OUTPUT["Softmax"] * prod(ins[0] or ()),
}
"""The nodes of the plugin graph."""
