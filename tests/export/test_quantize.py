from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from torch import nn

from detrx.errors import DataError, ExportError
from detrx.export.calibrate import BINS, Range, ranges
from detrx.export.onnx import check_graph, write_onnx
from detrx.export.quantize import quantize_int4, quantize_int8
from detrx.types import ModelInfo


@pytest.fixture(scope="module")
def graph(model: nn.Module, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> onnx.ModelProto:
    return onnx.load(str(write_onnx(model, info, tmp_path_factory.mktemp("graphs") / "a.onnx")))


@pytest.fixture
def pictures(info: ModelInfo) -> list[np.ndarray]:
    random = np.random.default_rng(0)
    return [random.normal(size=(1, 3, *info.canvas)).astype(np.float32) for _ in range(3)]


def run(model: onnx.ModelProto, pixels: np.ndarray) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    return session.run(["scores", "labels", "boxes"], {"pixels": pixels})


@pytest.mark.parametrize("level", ["a", "b"])
def test_8_bits_answer_nearly_the_same(
    graph: onnx.ModelProto, info: ModelInfo, pictures: list[np.ndarray], level: str
) -> None:
    seen = []
    made = quantize_int8(
        graph, pictures, total=3, level=level, progress=lambda done, total: seen.append((done, total))
    )
    assert seen == [(1, 3), (2, 3), (3, 3)]
    check_graph(made.model, info)
    far = np.abs(run(graph, pictures[0])[0] - run(made.model, pictures[0])[0]).max()
    assert 0 < far < 0.2
    kinds = {n.op_type for n in made.model.graph.node if n.name in made.changed}
    assert kinds == {"Conv"} if level == "a" else {"Conv", "MatMul"} <= kinds
    assert "first or narrow convolution" in made.kept.values()
    assert not [
        name for name in made.changed if "head" in name or "sampling" in name or "attention_weights" in name
    ]


def test_weights_have_a_scale_a_channel_and_inputs_one(
    graph: onnx.ModelProto, pictures: list[np.ndarray]
) -> None:
    made = quantize_int8(graph, pictures, total=3).model
    constants = {t.name: t for t in made.graph.initializer}
    makers = {name: node for node in made.graph.node for name in node.output}
    checked = 0
    for node in made.graph.node:
        if node.op_type == "Conv" and makers.get(node.input[1]) is not None:
            weight, scale = (constants[name] for name in makers[node.input[1]].input[:2])
            assert weight.data_type == onnx.TensorProto.INT8
            assert list(scale.dims) == [weight.dims[0]]
            assert makers[makers[node.input[0]].input[0]].op_type == "QuantizeLinear"
            assert not constants[makers[node.input[0]].input[1]].dims
            checked += 1
    assert checked > 10


def test_4_bits_make_the_file_smaller(
    graph: onnx.ModelProto, info: ModelInfo, pictures: list[np.ndarray]
) -> None:
    made = quantize_int4(graph)
    check_graph(made.model, info)
    assert made.model.ByteSize() < graph.ByteSize()
    assert len(made.changed) > 5
    assert np.abs(run(graph, pictures[0])[0] - run(made.model, pictures[0])[0]).max() < 0.3
    assert [p.key for p in made.model.metadata_props] == [p.key for p in graph.metadata_props]


def test_a_rare_giant_does_not_set_the_scale() -> None:
    values = np.random.default_rng(0).normal(size=(300, 100)).astype(np.float32)
    values[0, 0] = 500
    seen = Range(np.zeros(BINS, np.int64), 1.0, np.zeros(100, np.float32))
    seen.add(values)
    assert seen.counts.sum() == values.size
    assert seen.bound("largest") >= 500
    assert 3 < seen.bound("percentile") < 6
    assert 3 < seen.bound("entropy") < 40
    assert seen.channels[0] == 500


@pytest.mark.parametrize("method", ["percentile", "entropy", "largest"])
def test_zeros_have_a_scale(method: str) -> None:
    seen = Range(np.zeros(BINS, np.int64), 1e-6, np.zeros(4, np.float32))
    seen.add(np.zeros((3, 4), np.float32))
    assert 0 < seen.bound(method) < 1


def test_no_picture_is_an_error(graph: onnx.ModelProto) -> None:
    with pytest.raises(DataError, match="at least one picture"):
        ranges(graph, [graph.graph.node[0].output[0]], [], total=0)


def test_unknown_settings_are_refused(
    graph: onnx.ModelProto, pictures: list[np.ndarray], tmp_path: Path
) -> None:
    for settings in ({"level": "c"}, {"method": "mean"}):
        with pytest.raises(ExportError, match="level must be a or b"):
            quantize_int8(graph, pictures, total=3, **settings)
