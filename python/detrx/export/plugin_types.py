"""Types and shapes through the nodes of our domain, which ONNX's own inference does not know."""

from __future__ import annotations

from typing import Any

from detrx.export.plugin_nodes import ATTENTION, DECODE, DEFORM_ATTN, DOMAIN, LAYER_NORM

FLOAT, INT32 = 1, 6
"""As ONNX numbers them."""
Port = tuple[int, list[Any]]
"""Element type and shape."""


def with_types(model: Any) -> Any:
    """The same graph with the type and shape of every tensor written into it.

    ONNX's inference runs once for each of our nodes in a row, and what it learns feeds the next.
    """
    import onnx

    ours = [node for node in model.graph.node if node.domain == DOMAIN]
    told = [
        port for port in model.graph.value_info if port.type.tensor_type.elem_type
    ]  # simplifiers leave empty ones
    del model.graph.value_info[:]
    model.graph.value_info.extend(told)
    while True:
        model = onnx.shape_inference.infer_shapes(model, strict_mode=False, data_prop=True)
        known = _known(model)
        waiting = [n for n in ours if n.output[0] not in known and all(i in known for i in n.input if i)]
        if not waiting:
            return model if all(n.output[0] in known for n in ours) else _with_plain_types(model, ours, known)
        for node in waiting:
            for name, kind, shape in _outputs(node, [known[i] for i in node.input if i]):
                if name:
                    model.graph.value_info.append(onnx.helper.make_tensor_value_info(name, kind, shape))


def _with_plain_types(model: Any, ours: list[Any], known: dict[str, Port]) -> Any:
    """Where a graph was not simplified, shapes stay unknown behind what is computed from sizes: types alone."""
    import onnx

    for node in ours:
        shapes = [None] * len(node.output)
        kinds = (FLOAT, INT32, FLOAT, INT32) if node.op_type == DECODE.name else (FLOAT,)
        missing = [row for row in zip(node.output, kinds, shapes) if row[0] and row[0] not in known]
        model.graph.value_info.extend(onnx.helper.make_tensor_value_info(*row) for row in missing)
    return onnx.shape_inference.infer_shapes(model, data_prop=True)


def settings_of(node: Any) -> dict[str, Any]:
    """The attributes of a node."""
    import onnx

    return {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}


def _known(model: Any) -> dict[str, Port]:
    """Element type and shape of the tensors that have both."""
    graph = model.graph
    found: dict[str, Port] = {t.name: (t.data_type, list(t.dims)) for t in graph.initializer}
    for port in [*graph.input, *graph.value_info]:
        kind = port.type.tensor_type
        if kind.HasField("shape"):
            shape = [d.dim_value if d.HasField("dim_value") else d.dim_param or None for d in kind.shape.dim]
            found[port.name] = kind.elem_type, shape
    return found


def _outputs(node: Any, inputs: list[Port]) -> list[tuple[str, int, list[Any]]]:
    kind, first = inputs[0]
    if node.op_type == DEFORM_ATTN.name:
        return [(node.output[0], kind, [*inputs[1][1][:2], first[2] * first[3]])]
    if node.op_type in (LAYER_NORM.name, ATTENTION.name):
        return [(node.output[0], kind, first)]
    top = settings_of(node)["top"]
    shapes = ((FLOAT, [top]), (INT32, [top]), (FLOAT, [top, 4]), (INT32, [top]))
    return [(name, kind, [first[0], *rest]) for name, (kind, rest) in zip(node.output, shapes)]
