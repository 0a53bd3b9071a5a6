"""A very small model and data set, so that a training run takes a second or two."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from detrx.data.augment import AugmentConfig
from detrx.losses.config import LossConfig
from detrx.models import zoo
from detrx.train.config import TrainConfig

FOLDER = str(Path(__file__).parent)
if FOLDER not in sys.path:
    sys.path.insert(0, FOLDER)

TINY = dataclasses.replace(
    zoo.MODELS["rt-n"],
    name="tiny",
    backbone="mobilenetv3_small_050",
    hidden=32,
    heads=4,
    decoder_hidden=32,
    encoder_feedforward=32,
    decoder_feedforward=32,
    neck_depth=1,
    queries=12,
    decoder_layers=2,
)


def write_scenes(root: Path, *, pictures: int, seed: int = 0) -> Path:
    """A red and a green rectangle in each 64 x 64 picture, in Roboflow's layout."""
    rng = np.random.default_rng(seed)
    for split in ("train", "valid"):
        folder = root / split
        folder.mkdir(parents=True, exist_ok=True)
        images, annotations = [], []
        for number in range(1, pictures + 1):
            image = np.full((64, 64, 3), 40, np.uint8)
            for category, colour in ((1, (220, 30, 30)), (2, (30, 220, 60))):
                x, y = (int(v) for v in rng.integers(2, 36, 2))
                w, h = (int(v) for v in rng.integers(14, 26, 2))
                image[y : y + h, x : x + w] = colour
                annotations.append(
                    {
                        "id": len(annotations) + 1,
                        "image_id": number,
                        "category_id": category,
                        "bbox": [x, y, w, h],
                        "area": w * h,
                        "iscrowd": 0,
                    }
                )
            Image.fromarray(image).save(folder / f"{number}.png")
            images.append({"id": number, "file_name": f"{number}.png", "width": 64, "height": 64})
        names = [{"id": 1, "name": "red"}, {"id": 2, "name": "green"}]
        document = {"images": images, "annotations": annotations, "categories": names}
        (folder / "_annotations.coco.json").write_text(json.dumps(document))
    return root


@pytest.fixture(autouse=True)
def tiny_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Puts "tiny" into the zoo."""
    torch.set_num_threads(1)
    monkeypatch.setitem(zoo.MODELS, "tiny", TINY)


@pytest.fixture(autouse=True)
def draw_scores(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Any]:
    """Leaves the report of the last evaluation undrawn, which takes longer than a tiny run; gives the drawing back."""
    from detrx.train.curves import draw_scores

    monkeypatch.setattr("detrx.train.course.draw_scores", lambda *_, **__: None)
    return draw_scores


@pytest.fixture(scope="session")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Four pictures to train on and four to evaluate on."""
    return write_scenes(tmp_path_factory.mktemp("scenes"), pictures=4)


@pytest.fixture
def quick(scenes: Path, tmp_path: Path) -> TrainConfig:
    """Two epochs of two steps."""
    return TrainConfig(
        data=str(scenes),
        model="tiny",
        out=str(tmp_path / "run"),
        epochs=2,
        batch=2,
        lr=4e-4,
        levels=TINY.levels,
        queries=TINY.queries,
        canvas=(64, 64),
        amp="off",
        workers=0,
        threads=1,
        device="cpu",
        augment=AugmentConfig.off(),
        loss=LossConfig(denoise=4),
    )


@pytest.fixture
def write() -> Callable[..., Path]:
    """Writes such scenes: write(folder, pictures=..., seed=...)."""
    return write_scenes
