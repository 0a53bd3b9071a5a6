"""Photos through transformers' image processor and DETR, and through Detector: the same boxes to half a pixel."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detr_pairs import TINY, pair, saved
from numpy.typing import NDArray
from PIL import Image

from detrx.detector import Detector
from detrx.export.run import export
from detrx.types import Detections

pytestmark = pytest.mark.needs("data")
PHOTOS = ("coco_cats/000000039769.png", "photos/giraffe.jpg", "photos/dog.jpg")
SIDES = {"shortest_edge": 800, "longest_edge": 1333}
CANVAS = (352, 480)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """A small DETR of random weights as transformers saves it, with the published sizes."""
    theirs, _ = pair(TINY)
    path = saved(theirs, tmp_path_factory.mktemp("hub"))
    ready = {"size": SIDES, "image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
    (path / "preprocessor_config.json").write_text(json.dumps(ready))
    return path, theirs


def photo(shared_data: Path, name: str) -> NDArray[np.uint8]:
    return np.asarray(Image.open(shared_data / name).convert("RGB"))


def their_answer(theirs: Any, image: NDArray[np.uint8], **size: Any) -> tuple[NDArray[np.float32], ...]:
    """Boxes in pixels and scores, best first."""
    from transformers import DetrImageProcessor

    processor = DetrImageProcessor(**{"size": SIDES, **size})
    ready = processor(Image.fromarray(image), return_tensors="pt")
    with torch.no_grad():
        found = theirs(**ready)
    (answer,) = processor.post_process_object_detection(found, threshold=0.0, target_sizes=[image.shape[:2]])
    order = np.argsort(-answer["scores"].numpy(), kind="stable")
    limits = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
    return answer["boxes"].numpy()[order].clip(0, limits), answer["scores"].numpy()[order]


def compare(ours: Detections, boxes: NDArray[np.float32], scores: NDArray[np.float32]) -> None:
    assert len(ours) == TINY.queries
    assert np.abs(ours.scores - scores).max() < 2e-3
    assert np.abs(ours.boxes - boxes).max() < 0.5


@pytest.mark.parametrize("name", PHOTOS)
def test_at_the_published_sides(folder: tuple[Path, Any], shared_data: Path, name: str) -> None:
    path, theirs = folder
    image = photo(shared_data, name)
    compare(Detector(path, threshold=0.0).predict(image), *their_answer(theirs, image))


def test_on_a_fixed_canvas_and_in_its_graph(
    folder: tuple[Path, Any], shared_data: Path, tmp_path: Path
) -> None:
    path, theirs = folder
    detector = Detector(path, threshold=0.0, canvas=CANVAS)
    graph = Detector(export(path, out=tmp_path / "x.onnx", canvas=CANVAS).path, threshold=0.0)
    for name in PHOTOS:
        image = photo(shared_data, name)
        scale = min(CANVAS[0] / image.shape[0], CANVAS[1] / image.shape[1])
        inner = {"height": round(image.shape[0] * scale), "width": round(image.shape[1] * scale)}
        pad = {"height": CANVAS[0], "width": CANVAS[1]}
        expected = their_answer(theirs, image, size=inner, pad_size=pad)
        compare(detector.predict(image), *expected)
        compare(graph.predict(image), *expected)
