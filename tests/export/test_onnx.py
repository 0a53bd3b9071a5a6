from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from torch import nn

from detrx.errors import ExportError
from detrx.export.onnx import FORBIDDEN, write_onnx
from detrx.models.head import decode
from detrx.tensors import Outputs
from detrx.types import ModelInfo


def run(path: Path, pixels: torch.Tensor) -> list[np.ndarray]:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return session.run(["scores", "labels", "boxes"], {"pixels": pixels.numpy()})


@pytest.fixture(scope="module")
def written(model: nn.Module, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The graph for two images."""
    return write_onnx(model, info, tmp_path_factory.mktemp("graphs") / "a.onnx", batch=2)


def test_the_graph_answers_as_the_model(model: nn.Module, info: ModelInfo, written: Path) -> None:
    pixels = torch.randn(2, 3, *info.canvas)
    with torch.inference_mode():
        found = model(pixels)
        scores, labels, boxes = decode(found.logits[-1], found.boxes[-1], top=12)
    got = run(written, pixels)
    assert [g.dtype for g in got] == [np.float32, np.int64, np.float32]
    np.testing.assert_allclose(got[0], scores, atol=1e-5)
    np.testing.assert_array_equal(got[1], labels)
    np.testing.assert_allclose(got[2], boxes, atol=1e-4)
    assert model.encoder.input_proj[0].norm.__class__.__name__ == "BatchNorm2d", "the model was changed"


def test_the_graph_is_pure_and_describes_itself(written: Path, info: ModelInfo) -> None:
    graph = onnx.load(str(written))
    assert [d.dim_value for d in graph.graph.input[0].type.tensor_type.shape.dim] == [2, 3, 64, 96]
    kinds = {node.op_type for node in graph.graph.node}
    assert not kinds & (FORBIDDEN | {"BatchNormalization", "Shape", "Dropout", "Identity"})
    assert [(o.domain, o.version) for o in graph.opset_import if o.domain == ""] == [("", 17)]
    assert {node.domain for node in graph.graph.node} <= {"", "ai.onnx"}
    metadata = {p.key: p.value for p in graph.metadata_props}
    assert ModelInfo.from_json(metadata["detrx"]) == info
    assert json.loads(metadata["names"]) == ["disc", "ring", "star"]
    assert json.loads(metadata["ids"]) == [7, 3, 900]
    assert json.loads(metadata["canvas"]) == [64, 96]
    assert json.loads(metadata["mean"]) == pytest.approx(info.mean)
    assert json.loads(metadata["std"]) == pytest.approx(info.std)


def test_a_dynamic_batch_takes_any_number(model: nn.Module, info: ModelInfo, tmp_path: Path) -> None:
    path = write_onnx(model, info, tmp_path / "a.onnx", batch=None, top=5)
    pixels = torch.randn(3, 3, *info.canvas)
    together = run(path, pixels)
    assert [g.shape for g in together] == [(3, 5), (3, 5), (3, 5, 4)]
    for i in range(3):
        for whole, alone in zip(together, run(path, pixels[i : i + 1])):
            np.testing.assert_allclose(whole[i], alone[0], atol=1e-4)


class _Sampling(nn.Module):
    def forward(self, pixels: torch.Tensor) -> Outputs:
        grid = torch.zeros(1, 4, 4, 2)
        seen = nn.functional.grid_sample(pixels, grid, align_corners=False).flatten(2).mean(-1)
        return Outputs(seen[None, :, None], seen.sigmoid().repeat(1, 2)[None, :, None, :4])


def test_more_detections_than_there_are_become_all(model: nn.Module, info: ModelInfo, tmp_path: Path) -> None:
    path = write_onnx(model, info, tmp_path / "a.onnx", top=10_000)
    pixels = torch.randn(1, 3, *info.canvas)
    scores, _, boxes = run(path, pixels)
    with torch.inference_mode():
        pairs = model(pixels).logits[-1].numel()
    assert (scores.shape, boxes.shape) == ((1, pairs), (1, pairs, 4))


def test_grid_sample_is_refused(info: ModelInfo, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="must not hold GridSample"):
        write_onnx(_Sampling(), info, tmp_path / "a.onnx")
    assert not (tmp_path / "a.onnx").exists()


def test_another_opset_is_refused(model: nn.Module, info: ModelInfo, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="opset must be 16 or 17, got 20"):
        write_onnx(model, info, tmp_path / "a.onnx", opset=20)
