"""Work of layers from the file that they were built from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from detrx.errors import EngineError
from detrx.inspect.layers import EngineLayer, images_of, read_layers
from detrx.inspect.work import work_of_nodes

SAMPLES = Path(__file__).parent / "samples"


def layer(name: str, operation: str, metadata: str = "") -> EngineLayer:
    return EngineLayer(name, operation, operation, "fp16", "", (), (), metadata, None)


def test_nodes_count_where_they_may_be_computed() -> None:
    """A product split over two layers goes to the one that can compute it, what is pointwise to all in equal parts."""
    layers = [
        layer("a + b", "conv"),
        layer("b", "pointwise"),
        layer("Reformatting CopyNode for a", "reformat"),
    ]
    assert work_of_nodes(layers, {"a": (100, 0), "b": (0, 6)}) == [103, 3, None]
    only = [layer("a", "pointwise"), layer("a", "reformat")]
    assert work_of_nodes(only, {"a": (100, 0)}) == [50, 50]


def test_a_region_has_what_nobody_else_names() -> None:
    nodes = {"first": (1, 0), "mine": (10, 0), "theirs": (100, 0), "last": (1000, 0), "behind": (10000, 0)}
    layers = [
        layer("{ForeignNode[first...last]}", "region"),
        layer("theirs", "conv"),
        layer("behind", "conv"),
    ]
    assert work_of_nodes(layers, nodes) == [1011, 100, 10000]


def test_another_model() -> None:
    with pytest.raises(EngineError, match="another model's: the layers name nodes with 10% of its"):
        work_of_nodes([layer("a", "conv")], {"a": (1, 0), "b": (9, 0)})


def test_the_sample_against_counts_by_hand() -> None:
    onnx = pytest.importorskip("onnx")
    from detrx.estimate.graph import count_nodes

    layers = read_layers(SAMPLES / "trt10_layers.json").layers
    work = work_of_nodes(layers, count_nodes(attention(onnx)))
    conv, _, projection, attended, norm, head = work
    assert conv == 2 * 256 * 64 * 64 * 16 * 9 + 256 * 64 * 64
    assert projection == 3 * 2 * 4096 * 256 * 256
    assert attended == 2 * 2 * 8 * 4096 * 4096 * 32 + 5 * 8 * 4096 * 4096
    assert norm == 4096 * 256 + 7 * 4096 * 256
    assert head == 2 * 4096 * 256 * 4


def test_images_of_a_run() -> None:
    layers = read_layers(SAMPLES / "trt10_layers.json").layers
    assert images_of(layers) == 1
    pixels = layers[0].inputs[0]
    for sides, images in (((8, 3, 32, 32), 8), ((-1, 3, 32, 32), 1)):
        assert images_of([replace(layers[0], inputs=(replace(pixels, shape=sides),))]) == images


def test_nodes_without_a_name_and_of_one_name() -> None:
    onnx = pytest.importorskip("onnx")
    from detrx.estimate.graph import count_nodes

    node, info = onnx.helper.make_node, onnx.helper.make_tensor_value_info
    nodes = [
        node("Relu", ["x"], ["a"]),
        node("Relu", ["a"], ["b"], name="n"),
        node("Relu", ["b"], ["c"], name="n"),
    ]
    ends = [[info(name, onnx.TensorProto.FLOAT, [2, 3])] for name in ("x", "c")]
    assert count_nodes(onnx.helper.make_model(onnx.helper.make_graph(nodes, "g", *ends))) == {
        "node_of_a": (0, 6),
        "n": (0, 12),
    }


def attention(onnx):
    """The graph behind the sample of TensorRT 10; its tensors are not joined, for only sizes are counted."""
    made, nodes, values, weights = onnx.helper.make_node, [], [], []

    def value(name: str, *shape: int) -> str:
        values.append(onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape))
        return name

    def weight(name: str, *shape: int) -> str:
        empty = onnx.TensorProto(name=name, dims=shape, data_type=onnx.TensorProto.FLOAT)
        weights.append(empty)
        return name

    def add(kind: str, name: str, ins: list[str], out: str, **attributes) -> None:
        nodes.append(made(kind, ins, [out], name=name, **attributes))

    add(
        "Conv", "/conv/Conv", ["pixels", weight("w", 256, 16, 3, 3)], value("c", 1, 256, 64, 64), pads=[1] * 4
    )
    add("Relu", "/conv/Relu", ["c"], value("r", 1, 256, 64, 64))
    add("Transpose", "/Transpose", ["r"], value("t", 1, 64, 64, 256), perm=[0, 2, 3, 1])
    for which in "qkv":
        ins = ["tokens", weight(f"w{which}", 256, 256)]
        add("MatMul", f"/attn/{which}/MatMul", ins, value(which, 1, 4096, 256))
    add("MatMul", "/attn/scores/MatMul", ["heads", "across"], value("s", 1, 8, 4096, 4096))
    add("Softmax", "/attn/Softmax", ["s"], value("p", 1, 8, 4096, 4096))
    add("MatMul", "/attn/out/MatMul", ["p", "heads"], value("o", 1, 8, 4096, 32))
    add("Add", "/attn/Add", ["tokens", "tokens"], value("a", 1, 4096, 256))
    norm = ["a", weight("scale", 256)]
    add("LayerNormalization", "/norm/LayerNormalization", norm, value("n", 1, 4096, 256))
    add("MatMul", "/head/MatMul", ["n", weight("wh", 256, 4)], "scores")
    given = [("pixels", (1, 16, 64, 64)), ("tokens", (1, 4096, 256)), ("heads", (1, 8, 4096, 32))]
    given += [("across", (1, 8, 32, 4096))]
    tensors = [
        onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, shape) for name, shape in given
    ]
    scores = onnx.helper.make_tensor_value_info("scores", onnx.TensorProto.FLOAT, (1, 4096, 4))
    graph = onnx.helper.make_graph(nodes, "attention", tensors, [scores], weights, value_info=values)
    return onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)])
