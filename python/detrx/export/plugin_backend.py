"""The plugin graph on the CPU, for the gate: ONNX Runtime between our nodes, numpy for them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ExportError
from detrx.export.plugin_nodes import DOMAIN
from detrx.export.plugin_reference import BODIES
from detrx.export.plugin_types import settings_of
from detrx.runtime.onnx import METADATA_KEY, MORE, OUTPUTS
from detrx.types import ModelInfo, Raw


@dataclass
class _Stage:
    """Plain nodes that wait for no more than the stages before, and the nodes of ours that follow them."""

    plain: list[Any] = field(default_factory=list)
    ours: list[Any] = field(default_factory=list)
    inputs: list[str] = field(default_factory=list)
    outputs: list[str] = field(default_factory=list)
    session: Any = None


class PluginBackend:
    """A graph with nodes of our domain: slow, and what an engine is held to."""

    def __init__(self, path: Path) -> None:
        import onnx

        model = onnx.load(str(path))
        metadata = {p.key: p.value for p in model.metadata_props}
        if METADATA_KEY not in metadata:
            raise ExportError(f"[PluginBackend] {path} has no description; write it with `detrx export`")
        self.info = ModelInfo.from_json(metadata[METADATA_KEY])
        self.batch: int | None = model.graph.input[0].type.tensor_type.shape.dim[0].dim_value or None
        self._constants = {t.name: onnx.numpy_helper.to_array(t) for t in model.graph.initializer}
        self._outputs = {output.name for output in model.graph.output}
        self._stages = _stages(model)
        self.description = f"the plugin graph on the CPU, in {len(self._stages)} parts"

    def infer(self, pixels: NDArray[np.float32]) -> Raw:
        known: dict[str, Any] = {**self._constants, "pixels": pixels}
        for stage in self._stages:
            if stage.session is not None:
                found = stage.session.run(stage.outputs, {name: known[name] for name in stage.inputs})
                known.update(zip(stage.outputs, found))
            for node in stage.ours:
                inputs = [known[name] for name in node.input if name]
                known.update(zip(node.output, BODIES[node.op_type](settings_of(node), *inputs)))
        return Raw(*(known[name] for name in (*OUTPUTS, *MORE) if name in self._outputs))

    def close(self) -> None:
        self._stages = []


def _stages(model: Any) -> list[_Stage]:
    """The graph cut at our nodes."""
    level: dict[str, int] = {}
    stages: list[_Stage] = []
    for node in model.graph.node:
        at = max((level.get(name, 0) for name in node.input), default=0)
        ours = node.domain == DOMAIN
        stages += [_Stage() for _ in range(at + 1 - len(stages))]
        (stages[at].ours if ours else stages[at].plain).append(node)
        level.update(dict.fromkeys(node.output, at + ours))
    answers = {out.name for out in model.graph.output}
    for i, stage in enumerate(stages):
        others = [*stages[:i], *stages[i + 1 :]]
        read = answers | {n for s in others for node in s.plain for n in node.input}
        _open(stage, model, read | {n for s in stages for node in s.ours for n in node.input})
    return stages


def _open(stage: _Stage, model: Any, wanted: set[str]) -> None:
    """Make a session of the plain nodes, which answers those of their tensors that are wanted elsewhere."""
    if not stage.plain:
        return
    import onnx
    import onnxruntime

    constants = {t.name: t for t in model.graph.initializer}
    made = [name for node in stage.plain for name in node.output]
    read = list(dict.fromkeys(n for node in stage.plain for n in node.input if n and n not in set(made)))
    stage.inputs = [name for name in read if name not in constants]
    stage.outputs = [name for name in made if name in wanted]
    types = _types(model)
    graph = onnx.helper.make_graph(
        stage.plain,
        "stage",
        [_port(name, types) for name in stage.inputs],
        [_port(name, types) for name in stage.outputs],
        [constants[name] for name in read if name in constants],
    )
    part = onnx.helper.make_model(graph, opset_imports=model.opset_import, ir_version=model.ir_version)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.intra_op_num_threads = (
        1  # many short sessions in turn; waiting threads would take each other's time
    )
    stage.session = onnxruntime.InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )


def _types(model: Any) -> dict[str, int]:
    graph = model.graph
    ports = [*graph.input, *graph.output, *graph.value_info]
    return {port.name: port.type.tensor_type.elem_type for port in ports}


def _port(name: str, types: dict[str, int]) -> Any:
    import onnx

    if name not in types:
        raise ExportError(f"[PluginBackend] the graph says no type of {name!r}; write it with `detrx export`")
    return onnx.helper.make_tensor_value_info(name, types[name], None)


def our_nodes(model: Any) -> Sequence[str]:
    """The kinds of nodes of our domain that a graph holds."""
    return sorted({node.op_type for node in model.graph.node if node.domain == DOMAIN})
