from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from detrx.errors import ExportError
from detrx.export.onnx import check_graph, write_onnx
from detrx.export.plugin_backend import PluginBackend
from detrx.export.plugin_nodes import ALL
from detrx.export.precision import BF16_OPSET, at_opset, lower, overflowing
from detrx.types import ModelInfo


@pytest.fixture(scope="module")
def graph(model: nn.Module, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return onnx.load(str(write_onnx(model, info, tmp_path_factory.mktemp("graphs") / "a.onnx")))


def run(model: onnx.ModelProto, pixels: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["scores", "labels", "boxes"], {"pixels": pixels})


def types(model: onnx.ModelProto) -> dict[str, int]:
    ports = [*model.graph.input, *model.graph.output, *model.graph.value_info]
    found = {port.name: port.type.tensor_type.elem_type for port in ports}
    return {**found, **{t.name: t.data_type for t in model.graph.initializer}}


def test_half_precision_answers_nearly_the_same(graph: onnx.ModelProto, info: ModelInfo) -> None:
    lowered, report = lower(graph, precision="fp16")
    check_graph(lowered, info)
    pixels = np.random.default_rng(0).normal(size=(1, 3, *info.canvas)).astype(np.float32)
    exact, half = run(graph, pixels), run(lowered, pixels)
    assert [a.dtype for a in half] == [np.float32, np.int64, np.float32]
    assert 0 < np.abs(exact[0] - half[0]).max() < 0.03
    assert lowered.ByteSize() < 0.75 * graph.ByteSize()
    assert report.lowered > 50
    assert "heads" in report.table()
    assert [p.value for p in lowered.metadata_props] == [p.value for p in graph.metadata_props]


def test_what_must_stay_float32_does(graph: onnx.ModelProto) -> None:
    lowered, _ = lower(graph, precision="fp16")
    kinds = types(lowered)
    assert kinds["pixels"] == kinds["scores"] == kinds["boxes"] == TensorProto.FLOAT
    for node in lowered.graph.node:
        kind = kinds[node.output[0]]
        if node.op_type in ("Softmax", "LayerNormalization", "TopK", "ReduceSum", "Log", "Floor"):
            assert kind == TensorProto.FLOAT, node.name
        if "bbox_head" in node.name and node.op_type in ("MatMul", "Gemm"):
            assert kind == TensorProto.FLOAT, node.name
        if node.op_type == "Conv":
            assert kind == TensorProto.FLOAT16, node.name


def test_bfloat16_is_valid_and_its_rounding_is_played_here(graph: onnx.ModelProto, info: ModelInfo) -> None:
    later = at_opset(graph, BF16_OPSET)
    check_graph(lower(later, precision="bf16")[0], info)
    pixels = np.random.default_rng(0).normal(size=(1, 3, *info.canvas)).astype(np.float32)
    played, _ = lower(later, precision="bf16", emulate=True)
    far = np.abs(run(graph, pixels)[0] - run(played, pixels)[0]).max()
    half = np.abs(
        run(graph, pixels)[0] - run(lower(graph, precision="fp16", emulate=True)[0], pixels)[0]
    ).max()
    assert 0 < half < 0.1
    assert 0 < far < 0.3


def loud(scale: float) -> onnx.ModelProto:
    """One convolution whose answers are ``scale`` times its input, and a quiet one after it."""
    weights = [np.full((1, 3, 1, 1), scale, np.float32), np.full((1, 1, 1, 1), 1 / scale, np.float32)]
    nodes = [
        helper.make_node("Conv", ["pixels", "w0"], ["x"], name="/model/backbone/loud"),
        helper.make_node("Conv", ["x", "w1"], ["y"], name="/model/backbone/quiet"),
        helper.make_node("ReduceMax", ["y"], ["scores"], name="/end", keepdims=0),
    ]
    made = helper.make_graph(
        nodes,
        "loud",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [])],
        [numpy_helper.from_array(w, f"w{i}") for i, w in enumerate(weights)],
    )
    return helper.make_model(made, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_layers_that_overflow_stay_float32_and_are_named() -> None:
    model, pixels = loud(3e4), np.full((1, 3, 4, 4), 2.0, np.float32)
    keep, largest = overflowing(model, [pixels], precision="fp16")
    assert keep["/model/backbone/loud"] == "reaches 1.8e+05"
    assert keep["/model/backbone/quiet"] == "reads what overflows"
    assert largest["/model/backbone/quiet"] == pytest.approx(6, rel=1e-3)
    session = onnxruntime.InferenceSession
    for kept, fine in ((keep, True), ({}, False)):
        lowered, report = lower(model, precision="fp16", keep=kept, emulate=True)
        (answer,) = session(lowered.SerializeToString()).run(None, {"pixels": pixels})
        assert bool(np.isclose(answer, 6, rtol=1e-2)) == fine
        assert ("reaches" in report.table()) == fine
    assert overflowing(model, [pixels], precision="bf16")[0] == {}


def test_weights_beyond_the_range_stay_float32() -> None:
    lowered, report = lower(loud(1e6), precision="fp16")
    assert next(one.why for one in report.kept) == "weights up to 1e+06"
    assert {t.name for t in lowered.graph.initializer} == {"w0", "w1:10"}


def test_the_plugin_graph_in_half_precision(model: nn.Module, info: ModelInfo, tmp_path: Path) -> None:
    path = write_onnx(model, info, tmp_path / "a.onnx", nodes=ALL)
    lowered, _ = lower(onnx.load(str(path)), precision="fp16")
    onnx.save(lowered, str(tmp_path / "b.onnx"))
    kinds = types(lowered)
    for node in lowered.graph.node:
        if node.op_type == "DetrxDeformAttn":
            assert [kinds[name] for name in node.input] == [10, 1, 10, 10]
        if node.op_type == "DetrxLayerNorm":
            assert [kinds[name] for name in node.input] == [10, 1, 1]
    pixels = torch.randn(1, 3, *info.canvas).numpy()
    exact, half = PluginBackend(path).infer(pixels), PluginBackend(tmp_path / "b.onnx").infer(pixels)
    assert 0 < np.abs(exact.scores - half.scores).max() < 0.05


def test_another_precision_is_refused(graph: onnx.ModelProto) -> None:
    with pytest.raises(ExportError, match="must be one of fp16, bf16, got 'fp8'"):
        lower(graph, precision="fp8")
