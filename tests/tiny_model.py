"""A graph of a few nodes in detrx's format, for tests: run it with runpy, tests import nothing from each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from detrx.types import ModelInfo

INFO = ModelInfo("tiny", ("disc", "ring", "star"), (7, 3, 900), (64, 96), licence="test")
BOXES = np.array(
    [[0.25, 0.25, 0.75, 0.75], [0.0, 0.0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0.1, 0.1, 0.2, 0.2]], np.float32
)
SCORES = np.array([0.9, 0.6, 0.6, 0.05], np.float32)
LABELS = np.array([2, 0, 1, 0], np.int64)
MASKS = np.full((4, 8, 12), -1, np.float32)
"""Logits of four masks, each 1 in a cell of its own."""
MASKS[range(4), 2, range(4, 8)] = 1


def write_model(path: Path, *, batch: int | None = 1, info: ModelInfo | None = INFO, **changes: Any) -> Path:
    """Scores are SCORES plus a hundredth of each image's mean pixel; labels and boxes never change.

    ``changes`` replaces scores, labels or boxes; "metadata" replaces the description's text; "masks" adds an output.
    """
    canvas = (info or INFO).canvas
    scores, labels, boxes = (
        changes.get(k, v) for k, v in (("scores", SCORES), ("labels", LABELS), ("boxes", BOXES))
    )
    constants = {
        "base": np.asarray(scores, np.float32)[None],
        "names": np.asarray(labels, np.int64)[None],
        "corners": np.asarray(boxes, np.float32)[None],
        "hundredth": np.array(0.01, np.float32),
        "zero": np.array(0, np.float32),
        "last": np.array([1], np.int64),
        "ends": np.array([1, 2], np.int64),
    }
    nodes = [
        helper.make_node("ReduceMean", ["pixels"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Unsqueeze", ["mean", "last"], ["column"]),
        helper.make_node("Mul", ["column", "hundredth"], ["shift"]),
        helper.make_node("Add", ["base", "shift"], ["scores"]),
        helper.make_node("Mul", ["column", "zero"], ["none"]),
        helper.make_node("Cast", ["none"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["names", "whole"], ["labels"]),
        helper.make_node("Unsqueeze", ["none", "last"], ["flat"]),
        helper.make_node("Add", ["corners", "flat"], ["boxes"]),
    ]
    k = len(scores)
    outputs = []
    if changes.get("masks") is not None:
        masks = np.asarray(changes["masks"], np.float32)
        constants.update(logits=masks[None])
        nodes += [
            helper.make_node("Unsqueeze", ["flat", "last"], ["flatter"]),
            helper.make_node("Add", ["logits", "flatter"], ["masks"]),
        ]
        shape = [batch or "batch", k, *masks.shape[1:]]
        outputs.append(helper.make_tensor_value_info("masks", TensorProto.FLOAT, shape))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("pixels", TensorProto.FLOAT, [batch or "batch", 3, *canvas])],
        [
            helper.make_tensor_value_info("scores", TensorProto.FLOAT, [batch or "batch", k]),
            helper.make_tensor_value_info("labels", TensorProto.INT64, [batch or "batch", k]),
            helper.make_tensor_value_info("boxes", TensorProto.FLOAT, [batch or "batch", k, 4]),
            *outputs,
        ],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    if info is not None:
        helper.set_model_props(model, {"detrx": changes.get("metadata", info.to_json())})
    onnx.save(model, str(path))
    return path
