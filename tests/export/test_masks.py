"""Masks in the exported graph: made for the best only, compared by the gate, and out of Detector in pixels."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from torch import nn

from detrx import Detector
from detrx.data.synthetic import Scenes
from detrx.export.parity import SURE, compare_masks
from detrx.export.run import export
from detrx.models import zoo
from detrx.models.checkpoint import save_checkpoint
from detrx.types import ModelInfo, Raw


@pytest.fixture
def masked(model: nn.Module, info: ModelInfo, tmp_path: Path) -> Path:
    config = dataclasses.replace(model.config, masks=True)
    torch.manual_seed(5)
    built = zoo.build(config, classes=3)
    built.load_state_dict(model.state_dict(), strict=False)
    path = tmp_path / "masked.safetensors"
    tensors = {f"model.{name}": tensor for name, tensor in built.state_dict().items()}
    save_checkpoint(path, tensors, info=dataclasses.replace(info, masks=True), config=config)
    return path


def test_masks_pass_the_gate_and_come_in_pixels(masked: Path) -> None:
    result = export(masked, top=5)
    assert result.report.passed
    assert 0 < result.report.mask < 1e-2
    graph = onnx.load(str(result.path))
    (output,) = (one for one in graph.graph.output if one.name == "masks")
    assert [side.dim_value for side in output.type.tensor_type.shape.dim] == [1, 5, 16, 24]
    image = Scenes(size=(90, 120), seed=1).frame(0)[0]
    with Detector(masked, threshold=0.0) as ours, Detector(result.path, threshold=0.0) as exported:
        wanted, found = ours.predict(image)[:5], exported.predict(image)
    assert found.masks is not None
    assert wanted.masks is not None
    assert found.masks.shape == (5, 90, 120)
    assert (found.masks != wanted.masks).mean() < 1e-3


def answer(masks: np.ndarray | None) -> Raw:
    boxes = np.array([[[0, 0, 0.5, 0.5], [0.5, 0.5, 1, 1], [0.5, 0.5, 1, 1]]], np.float32)
    return Raw(np.array([[0.9, 0.8, 0.8]], np.float32), np.zeros((1, 3), np.int64), boxes, masks)


def test_masks_are_compared_with_their_counterparts() -> None:
    masks = np.random.default_rng(0).normal(size=(1, 3, 4, 6)).astype(np.float32)
    one = answer(masks)
    assert compare_masks(one, answer(masks[:, [0, 2, 1]]), canvas=(64, 64)) == 0, (
        "equal boxes may change places"
    )
    assert compare_masks(one, answer(masks + 0.3), canvas=(64, 64)) == pytest.approx(0.3, abs=1e-6)
    far = np.float32(900) * np.sign(masks)
    assert compare_masks(answer(far), answer(far + 2), canvas=(64, 64)) == 0, "both are as sure"
    assert compare_masks(answer(far), answer(-far), canvas=(64, 64)) == 2 * SURE
    assert compare_masks(answer(None), answer(None), canvas=(64, 64)) == 0
    assert compare_masks(one, answer(None), canvas=(64, 64)) == float("inf")
    assert compare_masks(one, answer(masks[..., :5]), canvas=(64, 64)) == float("inf")
    broken = masks.copy()
    broken[0, 0, 0, 0] = np.nan
    assert np.isnan(compare_masks(one, answer(broken), canvas=(64, 64)))
