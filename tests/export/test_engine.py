"""Real engines, by TensorRT-RTX, which builds without a GPU."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from detrx.errors import EngineError
from detrx.export.engine import EngineSettings, build_engine
from detrx.export.run import export
from detrx.models import zoo
from detrx.models.checkpoint import save_checkpoint
from detrx.runtime.sidecar import read_sidecar, sidecar_path
from detrx.types import ModelInfo

RTX = EngineSettings(target="rtx")


def untrained(name: str, folder: Path) -> Path:
    """A checkpoint of a zoo model with random weights."""
    torch.manual_seed(0)
    config = zoo.MODELS[name]
    built = zoo.build(config, classes=3).eval()
    info = ModelInfo(name, ("disc", "ring", "star"), (1, 2, 3), (64, 96))
    path = folder / f"{name}.safetensors"
    save_checkpoint(path, {f"model.{k}": v for k, v in built.state_dict().items()}, info=info, config=config)
    return path


@pytest.mark.needs("tensorrt_rtx")
@pytest.mark.parametrize("name", ["rt-n", "detr-r18"])
@pytest.mark.timeout(600)  # a minute of one processor at most, of a busy one
def test_an_engine_is_built_from_the_fp16_graph(name: str, tmp_path: Path) -> None:
    found = export(untrained(name, tmp_path), to="engine", precision="fp16", engine=RTX)
    assert found.path == tmp_path / f"{name}.engine"
    assert found.bytes > 1e6
    sidecar = read_sidecar(found.path)
    assert (sidecar.flavour, sidecar.precision, sidecar.info) == ("rtx", "fp16", found.info)
    assert sidecar.gate["compared"] == "the ONNX graph"
    assert sidecar.gate["engine"].startswith("not compared")
    assert "beside it" not in sidecar.gate["engine"]  # but for want of a GPU or of pycuda
    assert "not compared" in found.engine
    assert sorted(p.name for p in tmp_path.glob("*.engine*")) == [
        found.path.name,
        sidecar_path(found.path).name,
    ]
    assert not list(tmp_path.glob("*.onnx"))


@pytest.mark.needs("tensorrt_rtx")
def test_batches_and_capabilities_are_taken(weights: Path, tmp_path: Path) -> None:
    settings = dataclasses.replace(RTX, batch=(1, 2, 4), capabilities=("8.6", "8.9"))
    found = export(weights, out=tmp_path / "a.engine", to="engine", engine=settings)
    sidecar = json.loads(sidecar_path(found.path).read_text())
    assert sidecar["batch"] == {"min": 1, "opt": 2, "max": 4}


@pytest.mark.needs("tensorrt_rtx")
def test_a_refused_node_is_named(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("NoSuchThing", ["pixels"], ["scores"], name="/model/odd")],
        "odd",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [1, 3, 32, 32])],
        [helper.make_tensor_value_info("scores", TensorProto.FLOAT, [1, 3])],
        [numpy_helper.from_array(np.zeros(1, np.float32), "unused")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)]), str(tmp_path / "a.onnx"))
    with pytest.raises(EngineError, match=r"refuses the graph at .*NoSuchThing"):
        build_engine(tmp_path / "a.onnx", tmp_path / "a.engine", RTX)
    assert [p.name for p in tmp_path.iterdir()] == ["a.onnx"]
