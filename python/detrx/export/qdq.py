"""The pen that writes Q/DQ nodes into a graph, and what a quantised graph is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detrx.export.precision import drop_unused, lift_constants


@dataclass(frozen=True)
class Quantized:
    """A quantised graph, and what became of its layers."""

    model: Any
    changed: tuple[str, ...]
    """Names of the layers that read integers."""
    kept: Mapping[str, str]
    """Names of the convolutions and products that do not, and why."""


def lifted_copy(model: Any) -> Any:
    """A copy whose constants are initializers and whose nodes all have names of their own."""
    import onnx

    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    lift_constants(copy)
    return copy


class Writer:
    """Collects the nodes of a graph anew, in their order; ``finish`` puts them in place."""

    def __init__(self, model: Any) -> None:
        self.graph = model.graph
        self.constants = {t.name: t for t in self.graph.initializer}
        self.made: set[str] = set()
        self.nodes: list[Any] = []

    def finish(self) -> None:
        del self.graph.node[:]
        self.graph.node.extend(self.nodes)
        drop_unused(self.graph)

    def pair(self, name: str, scale: Any, zero: Any) -> str:
        """Round a tensor to integers and back; the name of what comes back."""
        out = f"{name}:dequantized"
        if out not in self.made:
            self.made.add(out)
            inputs = [self.constant(f"{name}:scale", scale), self.constant(f"{name}:zero", zero)]
            self.add("QuantizeLinear", [name, *inputs], f"{name}:quantized")
            self.add("DequantizeLinear", [f"{name}:quantized", *inputs], out)
        return out

    def weight(self, name: str, weight: NDArray[np.float32], steps: NDArray[np.float32], *, axis: int) -> str:
        """Weights as int8 with a scale for each index of an axis."""
        shape = [-1 if i == axis else 1 for i in range(weight.ndim)]
        whole = np.rint(weight / steps.reshape(shape)).clip(-127, 127).astype(np.int8)
        return self.dequantized(name, whole, steps, np.zeros(len(steps), np.int8), axis=axis)

    def dequantized(self, name: str, whole: Any, scale: Any, zero: Any, **settings: Any) -> str:
        """A constant of integers, and the name of what they mean."""
        out = f"{name}:dequantized"
        if out not in self.made:
            self.made.add(out)
            inputs = [
                self.constant(name, whole),
                self.constant(f"{name}:scale", scale),
                self.constant(f"{name}:zero", zero),
            ]
            self.add("DequantizeLinear", inputs, out, **settings)
        return out

    def values(self, name: str) -> NDArray[np.float32]:
        from onnx import numpy_helper

        values: NDArray[np.float32] = numpy_helper.to_array(self.constants[name])
        return values

    def constant(self, name: str, values: Any) -> str:
        from onnx import numpy_helper

        self.graph.initializer.append(numpy_helper.from_array(np.asarray(values), name))
        return name

    def add(self, kind: str, inputs: list[str], out: str, **settings: Any) -> None:
        from onnx import helper

        self.nodes.append(helper.make_node(kind, inputs, [out], name=out, **settings))
