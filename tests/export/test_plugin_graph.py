"""Both graphs of both families answer as torch does, and our nodes mean what the native bodies compute."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from detrx.errors import ExportError
from detrx.export import plugin_reference as reference
from detrx.export.onnx import write_onnx
from detrx.export.parity import compare
from detrx.export.plugin_backend import PluginBackend
from detrx.export.plugin_nodes import ALL, DECODE, DOMAIN, KINDS, NEWER, PLUGIN_NAMESPACE
from detrx.export.plugin_types import settings_of
from detrx.models import zoo
from detrx.models.decoder import DeformableAttention
from detrx.models.head import decode_outputs
from detrx.types import PADDING, ModelInfo, Raw

DETR = dataclasses.replace(
    zoo.MODELS["detr-r18"],
    name="tiny",
    backbone="mobilenetv3_small_050",
    hidden=64,
    heads=2,
    encoder_layers=1,
    decoder_layers=2,
    feedforward=32,
    queries=7,
    masked=True,
    columns=(0, 2, 3),
    head_classes=4,
)


@pytest.fixture(scope="module")
def detr() -> nn.Module:
    torch.manual_seed(5)
    built = zoo.build(DETR, classes=3).eval()
    with torch.no_grad():
        for tensor in (built.query_embed.weight, built.class_embed.weight):
            tensor.normal_(std=0.7)
    return built


@pytest.fixture(autouse=True)
def no_tidying(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("detrx.export.onnx._simplify", lambda graph: graph)


def assert_same(backend: PluginBackend, model: nn.Module, pixels: torch.Tensor, top: int) -> None:
    found = backend.infer(pixels.numpy())
    with torch.inference_mode():
        wanted = Raw(*(tensor.numpy() for tensor in decode_outputs(model(pixels), top=top)))
    assert (found.scores.dtype, found.labels.dtype) == (np.float32, np.int64)
    for i in range(len(pixels)):
        one, other = (
            Raw(r.scores[i : i + 1], r.labels[i : i + 1], r.boxes[i : i + 1]) for r in (found, wanted)
        )
        score, box = compare(other, one, canvas=backend.info.canvas)
        assert score < 1e-5
        assert box < 0.02


def check_types(path: Path) -> onnx.ModelProto:
    """The file is valid, and says the type and shape of all that our nodes touch."""
    graph = onnx.load(str(path))
    onnx.checker.check_model(graph, full_check=True)
    known = {port.name for port in [*graph.graph.value_info, *graph.graph.input, *graph.graph.output]}
    known |= {tensor.name for tensor in graph.graph.initializer}
    known |= {name for node in graph.graph.node if node.op_type == "Constant" for name in node.output}
    for node in graph.graph.node:
        if node.domain == DOMAIN:
            assert {name for name in [*node.input, *node.output] if name} <= known
    return graph


@pytest.mark.parametrize("batch", [1, None])
@pytest.mark.parametrize("nodes", [NEWER, ALL], ids=["newer", "8.5"])
def test_rt_answers_as_torch(
    model: nn.Module, info: ModelInfo, tmp_path: Path, nodes: frozenset[str], batch: int | None
) -> None:
    path = write_onnx(model, info, tmp_path / "a.onnx", batch=batch, nodes=nodes)
    kinds = [node.op_type for node in check_types(path).graph.node if node.domain == DOMAIN]
    assert kinds.count("DetrxDeformAttn") == 2
    assert kinds.count("DetrxDecode") == 1
    assert ("DetrxLayerNorm" in kinds) == (nodes == ALL)
    backend = PluginBackend(path)
    assert (backend.info, backend.batch) == (info, batch)
    assert_same(backend, model, torch.randn(batch or 3, 3, *info.canvas), 12)
    backend.close()


@pytest.mark.parametrize("nodes", [frozenset(), NEWER, ALL], ids=["pure", "newer", "8.5"])
def test_detr_answers_as_torch_with_padding(
    detr: nn.Module, info: ModelInfo, tmp_path: Path, nodes: frozenset[str]
) -> None:
    path = write_onnx(detr, info, tmp_path / "a.onnx", batch=2, nodes=nodes)
    kinds = {node.op_type for node in check_types(path).graph.node if node.domain == DOMAIN}
    assert kinds == set(nodes) - {"DetrxDeformAttn"}
    pixels = torch.randn(2, 3, *info.canvas)
    pixels[1, :, :, 70:] = PADDING
    assert_same(PluginBackend(path), detr, pixels, 7)


def test_every_node_keeps_to_its_schema(
    detr: nn.Module, model: nn.Module, info: ModelInfo, tmp_path: Path
) -> None:
    for built in (detr, model):
        graph = onnx.load(str(write_onnx(built, info, tmp_path / "a.onnx", nodes=ALL)))
        for node in graph.graph.node:
            if node.domain != DOMAIN:
                continue
            kind, found = KINDS[node.op_type], settings_of(node)
            assert found.pop("plugin_version") == b"1"
            assert found.pop("plugin_namespace").decode() == PLUGIN_NAMESPACE
            assert {one.name for one in kind.attributes if not one.optional} <= set(found)
            assert set(found) <= {one.name for one in kind.attributes}
            assert sum(not one.optional for one in kind.inputs) <= len(node.input) <= len(kind.inputs)
            assert len(node.output) == len(kind.outputs)


def test_deform_attn_in_numpy_is_the_native_one() -> None:
    torch.manual_seed(0)
    module = DeformableAttention(32, heads=4, points=[3, 2], project=True)
    nn.init.normal_(module.sampling_offsets.weight, std=0.5)
    nn.init.normal_(module.attention_weights.weight)
    shapes = [(5, 7), (3, 4)]
    query, memory = torch.randn(2, 6, 32), torch.randn(2, 47, 32)
    boxes = torch.rand(2, 6, 4)
    with torch.inference_mode():
        values = module.values(memory)
        wanted = module(query, boxes, values, shapes)
        inputs = [values, boxes, module.sampling_offsets(query), module.attention_weights(query)]
        settings = {"shapes": [5, 7, 3, 4], "points": [3, 2], "reach": 0.5}
        (found,) = reference.deform_attn(settings, *(tensor.numpy() for tensor in inputs))
        np.testing.assert_allclose(module.output_proj(torch.from_numpy(found)), wanted, atol=1e-5)


def test_equal_scores_are_ordered_by_index() -> None:
    logits, boxes = np.zeros((1, 3, 2), np.float32), np.full((1, 3, 4), 0.5, np.float32)
    settings = {"top": 4, "each": 0, "no_object": 0}
    _, labels, _, queries = reference.decode(settings, logits, boxes)
    assert labels.tolist() == [[0, 1, 0, 1]]
    assert queries.tolist() == [[0, 0, 1, 1]]


def test_the_pure_graph_refuses_our_nodes(model: nn.Module, info: ModelInfo, tmp_path: Path) -> None:
    from detrx.export.onnx import _refuse_impure

    graph = onnx.load(str(write_onnx(model, info, tmp_path / "a.onnx", nodes=frozenset({DECODE.name}))))
    with pytest.raises(ExportError, match="pure graph must not hold DetrxDecode"):
        _refuse_impure(graph, frozenset())


def test_a_graph_without_description_is_refused(model: nn.Module, info: ModelInfo, tmp_path: Path) -> None:
    path = write_onnx(model, info, tmp_path / "a.onnx", nodes=NEWER)
    graph = onnx.load(str(path))
    del graph.metadata_props[:]
    onnx.save(graph, str(path))
    with pytest.raises(ExportError, match="no description"):
        PluginBackend(path)
