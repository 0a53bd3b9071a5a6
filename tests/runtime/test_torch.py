"""The PyTorch backend: weights as they are, the answers of the exported graph (faults row 57)."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detrx import Detector
from detrx.errors import CheckpointError, DeviceError
from detrx.models.checkpoint import save_checkpoint
from detrx.models.zoo import MODELS, build
from detrx.runtime.backend import open_backend
from detrx.types import ModelInfo

INFO = ModelInfo("rt-n", ("a", "b"), (1, 2), (64, 96))


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("timm")
    torch.manual_seed(0)
    config = replace(MODELS["rt-n"], queries=20, decoder_layers=1)
    model = build(config, classes=2)
    path = tmp_path_factory.mktemp("weights") / "best.safetensors"
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    save_checkpoint(path, tensors, info=INFO, config=config)
    return path


def test_it_answers_with_raw(weights: Path) -> None:
    backend = open_backend(weights, device="cpu", threads=1)
    pixels = np.random.default_rng(0).normal(size=(3, 3, 64, 96)).astype(np.float32)
    raw = backend.infer(pixels)
    k = raw.scores.shape[1]
    assert 20 <= k <= 40
    assert raw.boxes.shape == (3, k, 4)
    assert raw.labels.dtype == np.int64
    assert (np.diff(raw.scores, axis=1) <= 0).all()
    assert backend.info == INFO
    assert "PyTorch" in backend.description
    np.testing.assert_allclose(backend.infer(pixels[1:2]).scores[0], raw.scores[1], atol=1e-4)
    backend.close()


def test_threads_take_turns(weights: Path) -> None:
    detector = Detector(weights, device="cpu", threshold=0.0, threads=1)
    images = [np.full((50, 60 + i, 3), 20 * i, np.uint8) for i in range(6)]
    serial = [detector.predict(image) for image in images]
    with ThreadPoolExecutor(4) as pool:
        for found, wanted in zip(pool.map(detector.predict, images), serial):
            np.testing.assert_array_equal(found.boxes, wanted.boxes)


def test_a_run_folder_is_a_model(weights: Path) -> None:
    assert Detector(weights.parent, device="cpu").path == weights


def test_cuda_is_not_replaced_silently(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(DeviceError, match="device='cpu'"):
        open_backend(weights, device="cuda")
    assert "on cpu" in open_backend(weights, device="auto").description


def test_damaged_weights_are_refused(weights: Path, tmp_path: Path) -> None:
    bad = tmp_path / "bad.safetensors"
    bad.write_bytes(weights.read_bytes()[:5000])
    with pytest.raises(CheckpointError):
        open_backend(bad)
