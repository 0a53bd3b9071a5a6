"""The work of an ONNX graph, layer by layer: arithmetic, and what has to cross the memory bus.

A layer is what a runtime computes in one kernel: an operator with the pointwise operators behind it. What passes
between these stays on the chip; each other tensor is written once, and read once by every layer that takes it.
Tensors are joined and cut without copies: layers write next to each other, or read a part.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from math import prod
from typing import Any, Dict, List, Optional, Set, Tuple

from detrx.errors import ExportError, MissingBackendError
from detrx.estimate.operators import GATHERS, PIECES, POINTWISE, VIEWS, Shape, operations
from detrx.export.plugin_nodes import ATTENTION

MATRIX = {
    "Conv": "conv",
    "ConvTranspose": "conv",
    "MatMul": "matmul",
    "Gemm": "matmul",
    ATTENTION.name: "matmul",
}
FLOATS = frozenset({1, 10, 11, 16})
"""ONNX's numbers for 32, 16 and 64 bits and bfloat16."""
SMALL = 64
"""Elements of a constant that may say a size, as Resize's scales do."""


@dataclass(frozen=True)
class Layer:
    """One kernel's work."""

    name: str
    operators: Tuple[str, ...]
    kind: str
    """"conv", "matmul" or "other"."""
    matrix: int
    """Operations of its matrix product; a multiply-add is two."""
    pointwise: int
    """All its other operations."""
    weights: int
    """Elements of constant floats that it reads."""
    activations: int
    """Elements of other floats that it reads and writes."""
    indices: int
    """Bytes of integers that it reads and writes."""


@dataclass(frozen=True)
class Work:
    """What a graph does for one batch."""

    layers: Tuple[Layer, ...]
    weights: int
    """Elements of constant floats, each once."""
    live: int
    """Elements of floats that lie in memory at the worst moment, weights not counted."""
    unknown: Dict[str, int] = field(default_factory=dict)
    """Operators whose arithmetic is not counted, and how many there are of each; their traffic is."""

    @property
    def flops(self) -> int:
        """Operations in all; a multiply-add is two."""
        return sum(layer.matrix + layer.pointwise for layer in self.layers)


def count(
    model: Any, *, batch: int = 1, canvas: Optional[Tuple[int, int]] = None, fused_attention: bool = False
) -> Work:
    """Count the work of an ``onnx.ModelProto``, which is not changed.

    Args:
        batch: the images of one call, where the graph leaves it open.
        canvas: height and width, where the graph leaves them open.
        fused_attention: scores of attention stay on the chip, as TensorRT 10 and our plugin keep them; else they are
            written and read.

    Raises:
        ExportError: a shape cannot be told.
        MissingBackendError: onnx is not installed.
    """
    return _Count(_with_shapes(model, batch, canvas), fused_attention=fused_attention).work()


def count_nodes(model: Any, *, batch: int = 1) -> Dict[str, Tuple[int, int]]:
    """The operations of each node by its name, of its matrix product and others, in the order in which they can run.

    Raises:
        ExportError, MissingBackendError: as :func:`count`.
    """
    return _Count(_with_shapes(model, batch, None)).by_node()


def load_onnx() -> Any:
    """The onnx package.

    Raises:
        MissingBackendError: it is not installed.
    """
    try:
        import onnx
    except ImportError as error:
        raise MissingBackendError("onnx", "Graphs are read with it. Type: pip install onnx") from error
    return onnx


def without_weights(model: Any) -> Any:
    """A copy with the shapes of its larger weights but not their numbers: enough to count, too little to run."""
    light = copy.deepcopy(model)
    for tensor in light.graph.initializer:
        if prod(tensor.dims) > SMALL and tensor.data_type in FLOATS:
            for content in ("raw_data", "float_data", "double_data", "int32_data"):
                tensor.ClearField(content)
    return light


def _with_shapes(model: Any, batch: int, canvas: Optional[Tuple[int, int]]) -> Any:
    """A copy with all sizes of the inputs fixed and those behind them inferred."""
    onnx = load_onnx()
    fixed = without_weights(model)
    weights = {tensor.name for tensor in fixed.graph.initializer}
    open_sides = 0
    for given in fixed.graph.input:
        for axis, side in enumerate(given.type.tensor_type.shape.dim):
            if given.name in weights or side.dim_value > 0:
                continue
            if axis and not (canvas and axis in (2, 3)):
                raise ExportError(
                    f"[estimate] the graph leaves axis {axis} of its input {given.name!r} open; "
                    "say the size, for example --canvas 640 640"
                )
            open_sides += 1
            side.dim_value = canvas[axis - 2] if axis and canvas else batch
    if open_sides:  # what the file says of the shapes behind is open too
        del fixed.graph.value_info[:]
        for output in fixed.graph.output:
            output.type.tensor_type.ClearField("shape")
    try:
        return onnx.shape_inference.infer_shapes(fixed, data_prop=True)
    except Exception as error:  # checker's and inference's errors share no base class
        raise ExportError(f"[estimate] the shapes of the graph cannot be inferred: {error}") from error


@dataclass
class _Group:
    """A layer in the making."""

    nodes: List[Any] = field(default_factory=list)
    names: Set[str] = field(default_factory=set)
    """What it takes, as its nodes call it."""
    reads: Dict[str, int] = field(default_factory=dict)
    """Tensor that lies in memory -> elements of it that are read."""
    matrix: int = 0
    pointwise: int = 0
    attention: int = 0
    """1 with a product of two tensors that are computed, which may be attention's scores; 2 with a softmax of them."""


class _Count:
    """One walk over the nodes of a graph, which ONNX keeps in an order in which they can run."""

    def __init__(self, model: Any, *, fused_attention: bool = False) -> None:
        self._graph = model.graph
        self._fuses = fused_attention
        self._shape: Dict[str, Shape] = {}
        self._type: Dict[str, int] = {}
        self._sources: Dict[str, Dict[str, int]] = {}
        self._constant: Set[str] = set()
        self._home: Dict[str, int] = {}
        self._groups: List[_Group] = []
        self._unknown: Dict[str, int] = {}
        self._read_shapes()

    def _read_shapes(self) -> None:
        for value in (*self._graph.input, *self._graph.value_info, *self._graph.output):
            tensor = value.type.tensor_type
            self._type[value.name] = tensor.elem_type
            if tensor.HasField("shape") and all(side.HasField("dim_value") for side in tensor.shape.dim):
                self._shape[value.name] = [side.dim_value for side in tensor.shape.dim]
        for tensor in self._graph.initializer:
            self._shape[tensor.name], self._type[tensor.name] = list(tensor.dims), tensor.data_type
            self._constant.add(tensor.name)

    def work(self) -> Work:
        for node in self._graph.node:
            self._visit(node)
        written = self._written()
        layers = [self._layer(group, written[i]) for i, group in enumerate(self._groups)]
        used = {name for group in self._groups for name in group.reads if name in self._constant}
        weights = sum(self._elements(name) for name in used if self._type.get(name) in FLOATS)
        return Work(tuple(layers), weights, self._live(written), self._unknown)

    def by_node(self) -> Dict[str, Tuple[int, int]]:
        found: Dict[str, Tuple[int, int]] = {}
        for node in self._graph.node:
            if self._is_constant(node):
                self._constant.update(node.output)
                continue
            name = node.name or f"node_of_{node.output[0]}"  # as TensorRT calls it
            matrix, other = found.get(name, (0, 0))
            many = self._operations(node) or 0
            found[name] = (matrix + many, other) if node.op_type in MATRIX else (matrix, other + many)
        return found

    def _is_constant(self, node: Any) -> bool:
        """Whether a runtime computes it once, at load."""
        ins = [name for name in node.input if name]
        return node.op_type in ("Constant", "Shape", "Size") or all(name in self._constant for name in ins)

    def _operations(self, node: Any) -> Optional[int]:
        outs = [self._sides(name) for name in node.output if name]
        return operations(node, [self._sides(name) if name else None for name in node.input], outs)

    def _visit(self, node: Any) -> None:
        if self._is_constant(node):
            self._constant.update(node.output)
            return
        ins = [name for name in node.input if name]
        if node.op_type in VIEWS | PIECES and node.domain in ("", "ai.onnx"):
            self._lend(node, ins)
            return
        number = self._group_of(node, ins)
        group = self._groups[number]
        group.nodes.append(node)
        self._add_work(group, node)
        self._add_reads(number, node, ins)
        for name in node.output:
            self._home[name] = number

    def _lend(self, node: Any, ins: List[str]) -> None:
        """Trace what a view, a join or a cut gives out to the tensors that lie in memory."""
        taken = ins if node.op_type == "Concat" else ins[:1]
        for out in filter(None, node.output):
            share = self._elements(out) / max(1, sum(self._elements(name) for name in taken))
            found: Dict[str, int] = {}
            for name in taken:
                for root, many in self._from(name).items():
                    found[root] = found.get(root, 0) + round(many * share)
            self._sources[out] = found

    def _group_of(self, node: Any, ins: List[str]) -> int:
        """The youngest group that a pointwise node takes from, so that no group waits for a later one; or a new one."""
        homes = [[self._home[root] for root in self._from(name) if root in self._home] for name in ins]
        youngest = max((number for one in homes for number in one), default=None)
        product = node.op_type == "MatMul" and not any(map(self._is_weight, ins))
        # Behind a join a kernel starts anew: what is joined comes from several.
        if youngest is not None and [youngest] in homes:
            if node.op_type in POINTWISE:
                return youngest
            group = self._groups[youngest]
            if self._fuses and node.op_type == "Softmax" and group.attention == 1:
                group.attention = 2
                return youngest
            if product and group.attention == 2 and homes[0] == [youngest]:
                group.attention = 0
                return youngest
        self._groups.append(_Group(attention=int(product)))
        return len(self._groups) - 1

    def _is_weight(self, name: str) -> bool:
        """A matrix that is constant; queries may be constant too, but have heads."""
        return name in self._constant and len(self._sides(name)) < 3

    def _add_reads(self, number: int, node: Any, ins: List[str]) -> None:
        group = self._groups[number]
        for place, name in enumerate(ins):
            if name in group.names:
                continue
            group.names.add(name)
            for root, whole in self._from(name).items():
                if self._home.get(root) == number:
                    continue
                many = whole
                if node.op_type in GATHERS and place == 0:
                    many = min(many, sum(self._elements(out) for out in node.output if out))
                group.reads[root] = min(self._elements(root), group.reads.get(root, 0) + many)

    def _add_work(self, group: _Group, node: Any) -> None:
        found = self._operations(node)
        if found is None:
            self._unknown[node.op_type] = self._unknown.get(node.op_type, 0) + 1
        elif node.op_type in MATRIX:
            group.matrix += found
        else:
            group.pointwise += found

    def _written(self) -> List[List[str]]:
        """For each group, what it makes and others take, or the graph gives out."""
        wanted = {name for group in self._groups for name in group.reads}
        wanted |= self._given_out()
        return [
            [name for node in group.nodes for name in node.output if name in wanted] for group in self._groups
        ]

    def _layer(self, group: _Group, written: List[str]) -> Layer:
        moved = [(name, many) for name, many in group.reads.items()]
        moved += [(name, self._elements(name)) for name in written]
        floats = [(name, many) for name, many in moved if self._type.get(name) in FLOATS]
        kinds = [node.op_type for node in group.nodes]
        return Layer(
            name=group.nodes[0].name or group.nodes[0].output[0],
            operators=tuple(kinds),
            kind=next((MATRIX[kind] for kind in kinds if kind in MATRIX), "other"),
            matrix=group.matrix,
            pointwise=group.pointwise,
            weights=sum(many for name, many in floats if name in self._constant),
            activations=sum(many for name, many in floats if name not in self._constant),
            indices=8 * (sum(many for _, many in moved) - sum(many for _, many in floats)),
        )

    def _live(self, written: List[List[str]]) -> int:
        """The most float elements that wait to be read, at any layer."""
        last = {name: i for i, group in enumerate(self._groups) for name in group.reads}
        last.update({name: len(self._groups) for name in self._given_out()})
        lying = {value.name: self._elements(value.name) for value in self._graph.input if value.name in last}
        most = 0
        for i, names in enumerate(written):
            lying.update({name: self._elements(name) for name in names if self._type.get(name) in FLOATS})
            most = max(most, sum(lying.values()))
            lying = {name: many for name, many in lying.items() if last.get(name, -1) > i}
        return most

    def _given_out(self) -> Set[str]:
        return {root for output in self._graph.output for root in self._from(output.name)}

    def _from(self, name: str) -> Dict[str, int]:
        """The tensors in memory that make up a tensor, and how many elements of each."""
        return self._sources[name] if name in self._sources else {name: self._elements(name)}

    def _elements(self, name: str) -> int:
        return prod(self._sides(name))

    def _sides(self, name: str) -> Shape:
        if name not in self._shape:
            raise ExportError(
                f"[estimate] the shape of {name!r} cannot be told; export with a fixed canvas and batch, simplified"
            )
        return self._shape[name]
