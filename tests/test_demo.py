"""The demo: loop, score, video and a page that needs no other file."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx.data.synthetic import CLASS_NAMES
from detrx.demo import DemoConfig, _score, demo
from detrx.errors import ConfigError
from detrx.live.scenes import Film, parse_scene
from detrx.types import Detections

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")
TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parent / "tiny_model.py"))


@pytest.fixture
def model(tmp_path: Path) -> str:
    ids = tuple(range(1, len(CLASS_NAMES) + 1))
    info = replace(TINY["INFO"], names=tuple(CLASS_NAMES), category_ids=ids)
    return str(TINY["write_model"](tmp_path / "m.onnx", info=info))


def test_the_demo_writes_page_video_and_numbers(model: str, tmp_path: Path) -> None:
    pytest.importorskip("faster_coco_eval")
    ready: list[str] = []
    config = DemoConfig(tmp_path / "demo", model=model, frames=20)
    report = demo(config, on_ready=lambda detector: ready.append(detector.describe()))
    assert ready == [report.model]
    assert report.loop.frames + report.loop.dropped == 20
    assert report.metrics is not None
    assert 0 <= report.metrics.ap <= 1
    page = report.page.read_text()
    assert page.count("data:image/jpeg;base64,") >= 3
    assert not re.search(r'(src|href)="(http|//)', page)
    assert "$" not in re.sub(r"base64,[^\"]*", "", page)
    assert report.video.stat().st_size > 1000
    numbers = json.loads((tmp_path / "demo" / "demo.json").read_text())
    assert numbers["frames"] == report.loop.frames


def test_the_truth_itself_scores_one() -> None:
    pytest.importorskip("faster_coco_eval")
    film = Film(parse_scene("test://shapes?size=240x320&cut=2"))
    seen = []
    for index in range(6):
        _, boxes, labels = film.frame(index)
        scores = np.ones(len(boxes), np.float32)
        seen.append((index, Detections(boxes, scores, labels, film.names)))
    metrics = _score(film, seen)
    assert metrics is not None
    assert metrics.ap == pytest.approx(1.0)


def test_the_demo_can_go_unscored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "faster_coco_eval", None)
    film = Film(parse_scene("test://shapes?size=64x64"))
    none = Detections(
        np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64), film.names
    )
    assert _score(film, [(0, none)]) is None


def test_settings_are_checked() -> None:
    with pytest.raises(ConfigError, match="frames"):
        DemoConfig(frames=0)
