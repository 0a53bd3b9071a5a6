"""What an engine's builder must know of a graph, and what each TensorRT cannot take."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrx.errors import EngineError
from detrx.export.plugin_nodes import DOMAIN

FLOAT, FLOAT16, BFLOAT16 = 1, 10, 16
NO_BF16 = ("8.5", "8.6")
OLDEST_OPSET = {"8.5": 17, "8.6": 17}


@dataclass(frozen=True)
class Holds:
    """What is in a graph."""

    batch: int | None
    """Images to one call, or None for any number."""
    pixels: tuple[int, int, int]
    """(3, height, width) of the input."""
    fp16: bool
    bf16: bool
    int8: bool
    plugins: tuple[str, ...]
    """The kinds of our nodes."""
    float32: tuple[str, ...]
    """Nodes that answer in float32."""


def what_it_holds(path: Path, target: str) -> Holds:
    """Look at a graph, and refuse what the TensorRT that was asked for cannot take.

    Raises:
        EngineError: it is no such graph, or holds what that TensorRT does not know.
    """
    import onnx

    try:
        model = onnx.load(str(path))
    except Exception as error:  # protobuf's errors share no base class below Exception
        raise EngineError(
            f"[engine] {path} is not an ONNX file: {error}; write it with `detrx export`"
        ) from error
    graph = model.graph
    sides = [d.dim_value for d in graph.input[0].type.tensor_type.shape.dim] if len(graph.input) == 1 else []
    if len(sides) != 4 or graph.input[0].name != "pixels":
        raise EngineError(f"[engine] {path} must take 'pixels' alone; write it with `detrx export --to onnx`")
    types = {p.name: p.type.tensor_type.elem_type for p in [*graph.value_info, *graph.output]}
    kinds = set(types.values())
    holds = Holds(
        batch=sides[0] or None,
        pixels=(sides[1], sides[2], sides[3]),
        fp16=FLOAT16 in kinds,
        bf16=BFLOAT16 in kinds,
        int8=any(node.op_type == "DequantizeLinear" for node in graph.node),
        plugins=tuple(sorted({node.op_type for node in graph.node if node.domain == DOMAIN})),
        float32=tuple(n.name for n in graph.node if n.name and types.get(n.output[0]) == FLOAT),
    )
    _refuse(model, holds, target)
    return holds


def _refuse(model: Any, holds: Holds, target: str) -> None:
    opset = next((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), 0)
    bad = _first(model, lambda n: n.op_type == "GridSample")
    if bad:
        raise EngineError(
            f"[engine] {bad} is a GridSample, which TensorRT may run as nearest; detrx writes none"
        )
    if opset > OLDEST_OPSET.get(target, opset):
        raise EngineError(
            f"[engine] TensorRT {target} reads ONNX opset 17, got {opset}: --precision fp16 or int8"
        )
    if holds.bf16 and target in NO_BF16:
        node = _first(model, lambda n: n.op_type == "Cast" and any(a.i == BFLOAT16 for a in n.attribute))
        raise EngineError(f"[engine] TensorRT {target} has no bfloat16, found at {node}: --precision fp16")
    if holds.plugins and target == "rtx":
        node = _first(model, lambda n: n.domain == DOMAIN)
        raise EngineError(f"[engine] TensorRT-RTX has no plugins, and {node} is one: --graph pure")
    norm = _first(model, lambda n: n.op_type == "LayerNormalization")
    if target == "8.5" and norm:
        raise EngineError(f"[engine] TensorRT 8.5 has no LayerNormalization, found at {norm}: --graph plugin")


def _first(model: Any, fits: Any) -> str:
    """Name and kind of the first such node, or nothing."""
    return next((f"{n.name} ({n.op_type})" for n in model.graph.node if fits(n)), "")
