"""Folders of transformers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers_pairs import CLASSES, dfine_pair, rtdetrv2_pair

from detrx.errors import CheckpointError
from detrx.models.checkpoint import load_model


@pytest.fixture(scope="module", params=[dfine_pair, rtdetrv2_pair], ids=["dfine", "rtdetrv2"])
def folder(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    theirs, _ = request.param()
    theirs.config.id2label = {i: f"thing {i}" for i in range(CLASSES)}
    path = tmp_path_factory.mktemp("hub")
    theirs.save_pretrained(path)
    return path, theirs.eval()


def test_a_saved_folder_answers_alike(folder: tuple[Path, Any]) -> None:
    path, theirs = folder
    x = torch.randn(1, 3, 96, 96)
    for source in (path, path / "model.safetensors"):
        ours, info = load_model(source)
        with torch.no_grad():
            torch.testing.assert_close(ours(x).boxes[0], theirs(x).pred_boxes, rtol=1e-5, atol=1e-5)
        assert info.names == tuple(f"thing {i}" for i in range(CLASSES))
        assert info.mean == (0.0, 0.0, 0.0)


def test_the_spelling_of_transformers_4(folder: tuple[Path, Any], tmp_path: Path) -> None:
    path, theirs = folder
    old = {}
    for key, tensor in load_file(path / "model.safetensors").items():
        for new, before in (
            (".o_proj.", ".out_proj."),
            (".mlp.layers.0.", ".fc1."),
            (".mlp.layers.1.", ".fc2."),
            (".mlp.fc", ".fc"),
            ("encoder.aifi.", "encoder.encoder."),
        ):
            key = key.replace(new, before)
        old[key] = tensor
    assert any(".fc1." in key for key in old)
    save_file(old, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text((path / "config.json").read_text())
    ours, _ = load_model(tmp_path)
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(ours(x).boxes[0], theirs(x).pred_boxes, rtol=1e-5, atol=1e-5)


def test_size_and_normalisation_of_the_preprocessor(folder: tuple[Path, Any], tmp_path: Path) -> None:
    path, _ = folder
    for file in ("config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((path / file).read_bytes())
    settings = {
        "size": {"height": 320, "width": 512},
        "do_normalize": True,
        "image_mean": [0.1, 0.2, 0.3],
        "image_std": [0.4, 0.5, 0.6],
    }
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(settings))
    info = load_model(tmp_path)[1]
    assert (info.canvas, info.mean, info.std) == ((320, 512), (0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    (tmp_path / "preprocessor_config.json").write_text('{"size": {"height": 33, "width": 64}}')
    with pytest.raises(CheckpointError, match="preprocessor_config"):
        load_model(tmp_path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model_type": "yolos"}, "model_type"),
        ({"decoder_method": "discrete"}, "decoder_method"),
        ({"decoder_layers": 2}, "unknown"),
        ({"decoder_layers": 4}, "missing"),
        ({"feat_strides": [8, 16, 33]}, "rising strides"),
        ({"feat_strides": 8}, "config.json asks"),
        ({"encode_proj_layers": [7]}, "config.json asks"),
    ],
)
def test_a_config_that_does_not_fit(
    folder: tuple[Path, Any], tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    path, _ = folder
    settings = json.loads((path / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(settings))
    (tmp_path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match=said):
        load_model(tmp_path)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no weights"):
        load_model(tmp_path)
