"""The arithmetic and the traffic of single operators against counts by hand."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detrx.errors import ExportError
from detrx.estimate.graph import Work, count

onnx = pytest.importorskip("onnx")
F, I = onnx.TensorProto.FLOAT, onnx.TensorProto.INT64  # noqa: E741  # the two types


def graph(nodes: list[Any], inputs: dict[str, list[Any]], weights: dict[str, Any], outputs: list[str]) -> Any:
    """A model of these nodes."""
    return onnx.helper.make_model(
        onnx.helper.make_graph(
            nodes,
            "test",
            [onnx.helper.make_tensor_value_info(name, F, shape) for name, shape in inputs.items()],
            [onnx.helper.make_tensor_value_info(name, F, None) for name in outputs],
            [onnx.numpy_helper.from_array(value, name) for name, value in weights.items()],
        ),
        opset_imports=[onnx.helper.make_opsetid("", 17), onnx.helper.make_opsetid("detrx", 1)],
    )


def of(kind: str, *inputs: list[int], weights: dict[str, Any] | None = None, **attributes: Any) -> Work:
    """The work of one operator over inputs a, b, ..., then weights."""
    names = list("abcd"[: len(inputs)])
    given = weights or {}
    node = onnx.helper.make_node(kind, [*names, *given], ["y"], **attributes)
    return count(graph([node], dict(zip(names, inputs)), given, ["y"]))


def floats(*shape: int) -> Any:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("found", "wanted"),
    [
        # 8 x 8 x 16 outputs of 3 x 3 x 4 products each, and the bias
        (lambda: of("Conv", [1, 4, 8, 8], weights={"w": floats(16, 4, 3, 3), "v": floats(16)}, pads=[1] * 4),
         2 * 8 * 8 * 16 * 36 + 8 * 8 * 16),
        (lambda: of("Conv", [1, 8, 9, 9], weights={"w": floats(8, 1, 3, 3)}, group=8, strides=[2, 2]),
         2 * 4 * 4 * 8 * 9),
        (lambda: of("ConvTranspose", [1, 4, 5, 5], weights={"w": floats(4, 6, 2, 2)}, strides=[2, 2]),
         2 * 4 * 25 * 6 * 4),
        (lambda: of("MatMul", [2, 8, 10, 32], [2, 8, 32, 10]), 2 * 2 * 8 * 10 * 10 * 32),
        (lambda: of("MatMul", [1, 7, 12], weights={"w": floats(12, 5)}), 2 * 7 * 5 * 12),
        (lambda: of("Gemm", [12, 7], weights={"w": floats(5, 12), "v": floats(5)}, transA=1, transB=1),
         2 * 7 * 5 * 12 + 7 * 5),
        (lambda: of("Add", [1, 3, 4], [3, 4]), 12),
        (lambda: of("Softmax", [2, 10], axis=-1), 5 * 20),
        (lambda: of("LayerNormalization", [2, 16], weights={"w": floats(16), "v": floats(16)}), 7 * 32),
        (lambda: of("MaxPool", [1, 2, 8, 8], kernel_shape=[2, 2], strides=[2, 2]), 2 * 4 * 4 * 4),
        (lambda: of("GlobalAveragePool", [1, 2, 8, 8]), 128),
        (lambda: of("ReduceMean", [1, 2, 8, 8], axes=[2, 3]), 128),
        (lambda: of("Transpose", [3, 5], perm=[1, 0]), 0),
        (lambda: of("Gather", [100, 8], weights={"at": np.zeros(4, np.int64)}), 0),
    ],
)  # fmt: skip
def test_arithmetic(found: Any, wanted: int) -> None:
    work = found()
    assert work.flops == wanted
    assert not work.unknown


@pytest.mark.parametrize(("mode", "each"), [("nearest", 0), ("linear", 7)])
def test_resize(mode: str, each: int) -> None:
    node = onnx.helper.make_node("Resize", ["a", "", "by"], ["y"], mode=mode)
    by = np.array([1, 1, 2, 2], np.float32)
    assert count(graph([node], {"a": [1, 3, 4, 4]}, {"by": by}, ["y"])).flops == each * 3 * 8 * 8


def test_a_gather_reads_only_what_it_takes() -> None:
    work = of("Gather", [100, 8], weights={"at": np.zeros(4, np.int64)})
    assert work.layers[0].activations == 2 * 4 * 8
    assert work.layers[0].indices == 4 * 8


def test_pointwise_operators_ride_on_the_layer_before_them() -> None:
    make = onnx.helper.make_node
    nodes = [
        make("Conv", ["a", "w"], ["x"], pads=[1] * 4),
        make("Sigmoid", ["x"], ["s"]),
        make("Mul", ["x", "s"], ["z"]),
        make("Reshape", ["z", "shape"], ["flat"]),
        make("MatMul", ["flat", "m"], ["out"]),
        make("Add", ["out", "flat"], ["y"]),
    ]
    weights = {"w": floats(4, 4, 3, 3), "shape": np.array([1, 4, 64]), "m": floats(64, 64)}
    work = count(graph(nodes, {"a": [1, 4, 8, 8]}, weights, ["y"]))
    assert [layer.operators for layer in work.layers] == [("Conv", "Sigmoid", "Mul"), ("MatMul", "Add")]
    # each reads 256 floats and writes 256: what lies between its operators stays on the chip
    assert [layer.activations for layer in work.layers] == [512, 512]
    assert [layer.weights for layer in work.layers] == [4 * 4 * 9, 64 * 64]
    assert (work.weights, work.live) == (4 * 4 * 9 + 64 * 64, 512)
    assert [(layer.matrix, layer.pointwise) for layer in work.layers] == [
        (2 * 256 * 36, 2 * 256),
        (2 * 256 * 64, 256),
    ]


def test_what_is_read_later_too_is_written() -> None:
    make = onnx.helper.make_node
    nodes = [
        make("MatMul", ["a", "m"], ["x"]),
        make("Relu", ["x"], ["r"]),
        make("MatMul", ["r", "m"], ["z"]),
        make("Add", ["z", "x"], ["y"]),
    ]
    work = count(graph(nodes, {"a": [4, 4]}, {"m": floats(4, 4)}, ["y"]))
    assert [layer.activations for layer in work.layers] == [16 + 32, 32 + 16]
    assert work.weights == 16


def test_an_unknown_operator_is_named() -> None:
    make = onnx.helper.make_node
    nodes = [make("Relu", ["a"], ["r"]), make("Hardmax", ["r"], ["y"])]
    work = count(graph(nodes, {"a": [1, 10]}, {}, ["y"]))
    assert work.unknown == {"Hardmax": 1}
    assert work.flops == 10
    assert work.layers[1].activations == 20


def test_open_sizes_are_asked_for() -> None:
    make = onnx.helper.make_node
    model = graph([make("Relu", ["a"], ["y"])], {"a": ["batch", 3, "height", "width"]}, {}, ["y"])
    with pytest.raises(ExportError, match="--canvas"):
        count(model)
    assert count(model, batch=2, canvas=(8, 16)).flops == 2 * 3 * 8 * 16
    strange = make("Strange", ["a"], ["s"], domain="detrx")
    with pytest.raises(ExportError, match="'s' cannot be told"):
        count(graph([strange, make("Relu", ["s"], ["y"])], {"a": [1]}, {}, ["y"]))


def test_the_nodes_of_the_plugin_graph() -> None:
    make, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        make("DetrxDeformAttn", ["values", "boxes", "offsets", "logits"], ["seen"], domain="detrx"),
        make("DetrxAttention", ["seen", "seen", "seen"], ["y"], domain="detrx", heads=8),
    ]
    inputs = {
        "values": [1, 100, 8, 32],
        "boxes": [1, 10, 4],
        "offsets": [1, 10, 8 * 12 * 2],
        "logits": [1, 10, 8 * 12],
    }
    model = graph(nodes, inputs, {}, [])
    model.graph.output.append(info("y", F, [1, 10, 256]))
    model.graph.value_info.append(info("seen", F, [1, 10, 256]))
    work = count(model)
    assert [layer.kind for layer in work.layers] == ["other", "matmul"]
    assert work.layers[0].pointwise == 10 * (10 * 8 * 12 * 32) + 5 * (10 * 8 * 12)
    assert work.layers[1].matrix == 4 * 10 * 10 * 256 + 5 * 8 * 10 * 10
    assert work.layers[0].activations == 25600 + 40 + 1920 + 960 + 2560
    assert not work.unknown
