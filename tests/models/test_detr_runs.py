"""DETR from its files to boxes in pixels: Detector, evaluation, ONNX; against transformers' own pipeline."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detr_pairs import TINY, pair, saved
from numpy.typing import NDArray
from PIL import Image

from detrx.detector import Detector
from detrx.errors import ConfigError
from detrx.evaluation.run import ModelBackend, evaluate_backend
from detrx.export.run import export
from detrx.models.checkpoint import load_model
from detrx.types import Detections

SIZES = {"shortest_edge": 96, "longest_edge": 160}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    theirs, _ = pair(replace(TINY, dilated=True))
    path = saved(theirs, tmp_path_factory.mktemp("hub"))
    (path / "preprocessor_config.json").write_text(json.dumps({"size": SIZES, "do_normalize": False}))
    return path, theirs


def picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Smooth colours, as photos have them."""
    small = np.random.default_rng(seed).integers(0, 256, (6, 8, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(small).resize((width, height), Image.Resampling.BICUBIC))


def their_answer(theirs: Any, images: list[NDArray[np.uint8]], **size: Any) -> list[dict[str, Any]]:
    """transformers' image processor, model and post-processing."""
    from transformers import DetrImageProcessor

    processor = DetrImageProcessor(**{"size": SIZES, **size})
    ready = processor([Image.fromarray(image) for image in images], return_tensors="pt")
    with torch.no_grad():
        found = theirs(**ready)
    sizes = [image.shape[:2] for image in images]
    return processor.post_process_object_detection(found, threshold=0.0, target_sizes=sizes)  # type: ignore[no-any-return]


def compare(ours: Detections, theirs: dict[str, Any]) -> None:
    """Detections in any order, box for box within half a pixel, and scores."""
    order = np.argsort(-theirs["scores"].numpy(), kind="stable")
    assert len(ours) == len(order)
    boxes = theirs["boxes"].numpy()[order]
    assert np.abs(ours.scores - theirs["scores"].numpy()[order]).max() < 2e-3
    assert np.abs(ours.boxes - boxes).max() < 0.5


@pytest.mark.parametrize("size", [(120, 150), (60, 75), (96, 40), (300, 100), (211, 333)], ids=str)
def test_one_picture_as_transformers_scales_it(folder: tuple[Path, Any], size: tuple[int, int]) -> None:
    path, theirs = folder
    image = picture(*size)
    found = Detector(path, threshold=0.0).predict(image)
    compare(found, clipped(their_answer(theirs, [image])[0], size))


def clipped(found: dict[str, Any], size: tuple[int, int]) -> dict[str, Any]:
    limits = torch.tensor([size[1], size[0]] * 2)
    return {**found, "boxes": found["boxes"].clamp(min=0).minimum(limits)}


def test_a_batch_of_different_sizes(folder: tuple[Path, Any]) -> None:
    path, theirs = folder
    images = [picture(120, 150), picture(150, 120, 1), picture(96, 96, 2)]
    found = Detector(path, threshold=0.0, batch=3).predict(images)
    for ours, answer, image in zip(found, their_answer(theirs, images), images, strict=True):
        compare(ours, clipped(answer, image.shape[:2]))


def test_a_fixed_canvas_and_its_graph(folder: tuple[Path, Any], tmp_path: Path) -> None:
    """The picture at the top left, the rest masked: transformers' pad_size. The graph finds the mask in the pixels."""
    path, theirs = folder
    detector = Detector(path, threshold=0.0, canvas=(96, 160))
    result = export(path, out=tmp_path / "x.onnx", canvas=(96, 160))
    graph = Detector(result.path, threshold=0.0)
    for size in ((100, 128), (200, 256), (90, 160)):
        image = picture(*size)
        scale = min(96 / size[0], 160 / size[1])
        inner = {"height": round(size[0] * scale), "width": round(size[1] * scale)}
        pad = {"height": 96, "width": 160}
        found, ran = detector.predict(image), graph.predict(image)
        compare(found, clipped(their_answer(theirs, [image], size=inner, pad_size=pad)[0], size))
        assert np.abs(ran.boxes - found.boxes).max() < 0.01
        assert np.abs(ran.scores - found.scores).max() < 1e-5
    assert detector.info.sides == result.info.sides == ()
    assert "96 x 160" in graph.describe()
    with pytest.raises(ConfigError, match="the graph takes 96 x 160"):
        Detector(result.path, canvas=(64, 64))


def test_a_graph_for_any_batch_and_of_another_head(tmp_path: Path) -> None:
    from detrx.models.checkpoint import save_checkpoint
    from detrx.models.zoo import build
    from detrx.types import ModelInfo

    torch.manual_seed(0)
    model = build(replace(TINY, masked=False, no_object=False, norm_first=True), classes=2)
    info = ModelInfo("tiny", ("a", "b"), (1, 2), (64, 96))
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    save_checkpoint(tmp_path / "x.safetensors", tensors, info=info, config=model.config)
    result = export(tmp_path / "x.safetensors", batch=None)
    import onnx

    kinds = {node.op_type for node in onnx.load(result.path).graph.node}
    assert not kinds & {"BatchNormalization", "GridSample", "Loop", "If", "CumSum", "Resize"}
    found = Detector(result.path, threshold=0.0, batch=2).predict([picture(64, 96), picture(32, 96)])
    assert [len(one) for one in found] == [6, 6]


def test_evaluation_takes_the_model_s_own_sizes(folder: tuple[Path, Any], tmp_path: Path) -> None:
    from detrx.data.catalog import open_dataset
    from detrx.data.synthetic import write_coco
    from detrx.runtime.backend import open_backend

    write_coco(tmp_path, train=1, val=3, size=(64, 96), seed=0)
    dataset = open_dataset(tmp_path, split="val")
    backend: Any = open_backend(folder[0] / "model.safetensors")
    backend.info = replace(backend.info, names=dataset.names[:5], category_ids=dataset.category_ids[:5])
    dataset = replace(dataset, names=dataset.names[:5], category_ids=dataset.category_ids[:5])
    asked: list[tuple[int, ...]] = []
    infer = backend.infer
    backend.infer = lambda pixels: asked.append(pixels.shape) or infer(pixels)
    _, predictions = evaluate_backend(backend, dataset, batch=2)
    assert asked == [(2, 3, 96, 144), (2, 3, 96, 144)]
    assert [len(one.detections) for one in predictions] == [6, 6, 6]


def test_a_model_in_training_is_scored_by_queries(folder: tuple[Path, Any]) -> None:
    model, info = load_model(folder[0])
    raw = ModelBackend(model, info).infer(np.zeros((1, 3, 64, 64), np.float32))
    assert raw.scores.shape == (1, 6)
    assert (np.diff(raw.scores) <= 0).all()
