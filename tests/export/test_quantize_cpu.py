from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from torch import nn

from detrx.errors import ExportError
from detrx.export.calibrate import BINS, Range
from detrx.export.onnx import check_graph, write_onnx
from detrx.export.quantize_cpu import quantize_for_cpu
from detrx.types import ModelInfo

ANSWERS = ["scores", "labels", "boxes"]


def fused(model: onnx.ModelProto, path: Path) -> tuple[onnxruntime.InferenceSession, onnx.ModelProto]:
    """A session, and the graph that ONNX Runtime made for it."""
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(path)
    options.log_severity_level = 3
    content = model.SerializeToString()
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    return session, onnx.load(str(path))


def test_all_that_is_chosen_becomes_integer_kernels(
    model: nn.Module, info: ModelInfo, tmp_path: Path
) -> None:
    graph = onnx.load(str(write_onnx(model, info, tmp_path / "a.onnx")))
    random = np.random.default_rng(0)
    pictures = [random.normal(size=(1, 3, *info.canvas)).astype(np.float32) for _ in range(3)]
    made = quantize_for_cpu(graph, pictures, total=3)
    check_graph(made.model, info)
    assert set(made.kept.values()) <= {
        "first convolution",
        "outside backbone and encoder",
        "head, sampling or selection",
        "product of two activations",
    }

    session, inside = fused(made.model, tmp_path / "inside.onnx")
    exact = onnxruntime.InferenceSession(graph.SerializeToString(), providers=["CPUExecutionProvider"])
    ours, theirs = (s.run(ANSWERS, {"pixels": pictures[0]})[0] for s in (session, exact))
    assert 0 < np.abs(ours - theirs).max() < 0.2

    kinds = {node.name: node.op_type for node in graph.graph.node}
    chosen = Counter(kinds.get(name, "MatMul") for name in made.changed)
    found = Counter(node.op_type for node in inside.graph.node)
    assert found["QLinearConv"] == chosen["Conv"] > 10
    assert found["QGemm"] + found["MatMulIntegerToFloat"] == chosen["Gemm"] + chosen["MatMul"] > 5
    # Nothing of the weights is turned into float32 while it runs.
    constants = {t.name for t in inside.graph.initializer}
    assert not [n for n in inside.graph.node if n.op_type == "DequantizeLinear" and n.input[0] in constants]


def conv(
    name: str, weight: np.ndarray, source: str, out: str, bias: np.ndarray
) -> tuple[onnx.NodeProto, list]:
    weights = [numpy_helper.from_array(weight, f"{name}.w"), numpy_helper.from_array(bias, f"{name}.b")]
    node = helper.make_node("Conv", [source, f"{name}.w", f"{name}.b"], [out], name=name, kernel_shape=[1, 1])
    return node, weights


def small(channels: int = 16) -> onnx.ModelProto:
    """A first convolution, a second with a ReLU, pooling and a channel of no weights, a third, a sum, an answer."""
    random = np.random.default_rng(1)
    square = random.normal(size=(channels, channels, 1, 1)).astype(np.float32)
    square[0] = 0
    bias = np.ones(channels, np.float32)
    first, a = conv("/model/backbone/a", square[:, :3], "pixels", "x", bias)
    second, b = conv("/model/backbone/b", square, "x", "y", bias)
    pool = helper.make_node("MaxPool", ["r"], ["p"], name="/model/backbone/pool", kernel_shape=[1, 1])
    third, c = conv("/model/backbone/c", square, "p", "z", bias)
    relu = helper.make_node("Relu", ["y"], ["r"], name="/model/backbone/relu")
    add = helper.make_node("Add", ["p", "z"], ["s"], name="/model/backbone/add")
    last = helper.make_node("Abs", ["s"], ["scores"], name="/abs")
    side = [1, channels, 4, 4]
    graph = helper.make_graph(
        [first, second, relu, pool, third, add, last],
        "small",
        [helper.make_tensor_value_info("pixels", onnx.TensorProto.FLOAT, [1, 3, 4, 4])],
        [helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, side)],
        [*a, *b, *c],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def test_a_relu_goes_and_a_channel_without_weights_keeps_its_bias(tmp_path: Path) -> None:
    pictures = [np.random.default_rng(2).normal(size=(1, 3, 4, 4)).astype(np.float32)]
    made = quantize_for_cpu(small(), pictures, total=1, method="largest")
    assert made.changed == ("/model/backbone/b", "/model/backbone/c")
    assert "Relu" not in {node.op_type for node in made.model.graph.node}
    session, inside = fused(made.model, tmp_path / "inside.onnx")
    assert Counter(n.op_type for n in inside.graph.node)["QLinearAdd"] == 1
    kinds = {v.name: v.type.tensor_type.elem_type for v in inside.graph.value_info}
    (pool,) = (n for n in inside.graph.node if n.op_type == "MaxPool")
    assert kinds.get(pool.output[0]) != onnx.TensorProto.UINT8
    assert "LeakyRelu" in {n.op_type for n in inside.graph.node}
    exact, _ = fused(small(), tmp_path / "exact.onnx")
    ours, theirs = (s.run(None, {"pixels": pictures[0]})[0] for s in (session, exact))
    assert np.abs(ours - theirs).max() < 0.03 * theirs.max()
    assert np.abs(ours[:, 0] - theirs[:, 0]).max() < 0.02 * theirs.max()  # 1 + the ReLU of 1


def test_the_ends_of_a_range_hold_zero() -> None:
    seen = Range(np.zeros(BINS, np.int64), 1.0, np.zeros(1, np.float32))
    seen.add(np.linspace(0.5, 6, 1000, dtype=np.float32).reshape(-1, 1))
    assert seen.ends("largest") == (0.0, pytest.approx(6.0))
    seen.add(np.float32([[-0.25]]))
    assert seen.ends("largest")[0] == -0.25


def test_a_graph_without_layers_is_refused() -> None:
    bare = small()
    del bare.graph.node[1:5]
    bare.graph.node[1].input[0] = bare.graph.node[1].input[1] = "x"
    with pytest.raises(ExportError, match="no layer that may be quantised"):
        quantize_for_cpu(bare, [], total=0)
