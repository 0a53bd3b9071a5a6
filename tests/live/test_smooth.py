"""Boxes of a still object shake less, those of a moving one do not lag, and nothing mixes up the tracks."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detrx.detector import Detector
from detrx.errors import ConfigError
from detrx.live.job import DetectConfig, detect
from detrx.live.smooth import SmoothConfig, Smoother
from detrx.types import Detections

TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))
SIDE, FPS = 100, 30


def boxes_of(boxes: NDArray[Any], tracks: list[int]) -> Detections:
    n = len(boxes)
    return Detections(
        boxes.astype(np.float32), np.full(n, 0.9, np.float32), np.zeros(n, np.int64), tracks=np.array(tracks)
    )


def walk(speed: float, *, config: SmoothConfig | None = None, seconds: float = 4) -> tuple[NDArray[Any], ...]:
    """Centres as they are, as a detector with 2 % of noise sees them, and smoothed: (T, 40, 2) each, without the first
    second."""
    rng, smoother = np.random.default_rng(0), Smoother(config)
    true, raw, smooth = [], [], []
    for t in range(round(seconds * FPS)):
        corner = np.array([speed * SIDE * t / FPS, 50.0])
        box = np.tile(np.concatenate((corner, corner + SIDE)), (40, 1))
        seen = box + 0.02 * SIDE * rng.normal(size=box.shape)
        found = smoother.update(boxes_of(seen, list(range(1, 41))), seconds=t / FPS).boxes
        for into, one in ((true, box), (raw, seen), (smooth, found)):
            into.append((one[:, :2] + one[:, 2:]) / 2)
    return tuple(np.array(part)[FPS:] for part in (true, raw, smooth))


def shaking(centres: NDArray[Any], true: NDArray[Any]) -> float:
    """Root mean square of what the error changes by from frame to frame."""
    return float(np.sqrt((np.diff(centres - true, axis=0) ** 2).sum(axis=-1).mean()))


def test_a_still_object_shakes_a_quarter() -> None:
    true, raw, smooth = walk(0)
    assert shaking(smooth, true) < 0.25 * shaking(raw, true)
    assert abs(smooth - true).max() < abs(raw - true).max()


@pytest.mark.parametrize(("speed", "most"), [(0.3, 33), (1, 20), (3, 10)])
def test_a_moving_object_lags_less_than_a_frame(speed: float, most: float) -> None:
    true, raw, smooth = walk(speed)
    assert 0 <= 1000 * (true - smooth)[..., 0].mean() / (speed * SIDE) < most
    assert shaking(smooth, true) < shaking(raw, true)


def test_it_is_the_filter_of_the_paper() -> None:
    """Along one axis, against the published steps written out."""
    config = SmoothConfig(rest=1.2, quick=3.0)
    smoother, before, speed, last = Smoother(config), 0.0, 0.0, 0.0
    rng = np.random.default_rng(3)
    for step, seconds in enumerate(np.cumsum(rng.uniform(0.02, 0.1, 20))):
        x = 20 * step + rng.normal()
        found = smoother.update(boxes_of(np.array([[x, 0, x + 80, 50]]), [1]), seconds=float(seconds))

        def share(hertz: float, gap: float = float(seconds - last)) -> float:
            return 1 / (1 + 1 / (2 * np.pi * hertz * gap))

        if step:
            speed += share(1.0) * ((x - before) / (seconds - last) - speed)
            before += share(1.2 + 3 * abs(speed) / np.sqrt(80 * 50)) * (x - before)
        else:
            before = x
        last = float(seconds)
        assert found.boxes[0] == pytest.approx([before, 0, before + 80, 50], abs=1e-2)


def test_tracks_come_go_and_change_places() -> None:
    smoother, box = Smoother(SmoothConfig(rest=0.1, quick=0)), np.array([[0, 0, 10, 10], [100, 0, 110, 10]])
    smoother.update(boxes_of(box, [7, 3]), seconds=0)
    turned = smoother.update(boxes_of(box[::-1] + 5, [3, 7]), seconds=0.1).boxes
    assert turned[:, 0] == pytest.approx([100.3, 0.3], abs=0.05)
    mixed = smoother.update(boxes_of(np.vstack((box + 5, box[:1])), [7, -1, 9]), seconds=0.2).boxes
    assert mixed[1:].tolist() == [[105, 5, 115, 15], [0, 0, 10, 10]]
    assert mixed[0, 0] < 1
    after = smoother.update(boxes_of(box[:1] + 5, [7]), seconds=1.0).boxes
    assert after[0, 0] == 5
    assert smoother.update(boxes_of(box[:1] + 9, [7]), seconds=1.0).boxes[0, 0] == 9
    assert len(smoother.update(boxes_of(box[:0], []), seconds=1.1)) == 0
    with pytest.raises(ValueError, match="Tracker before Smoother"):
        smoother.update(
            Detections(box[:1].astype(np.float32), np.ones(1, np.float32), np.zeros(1, int)), seconds=2
        )
    with pytest.raises(ConfigError, match="rest must be above 0"):
        SmoothConfig(rest=0)


def test_detect_and_stream_smooth(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = str(TINY["write_model"](tmp_path / "tiny.onnx"))
    shapes = "test://shapes?size=64x96&frames=6"
    detect(DetectConfig(shapes, model=model, out=tmp_path / "a", save=("jsonl",), smooth=True))
    lines = [json.loads(line) for line in (tmp_path / "a" / "detections.jsonl").read_text().splitlines()]
    ids = [[one.get("track", -1) for one in line["objects"]] for line in lines]
    assert max(max(row) for row in ids) > 0
    with Detector(model) as detector:
        plain = [found for _, found in detector.stream(shapes)]
        tracked = [found for _, found in detector.stream(shapes, track=True)]
        smooth = [found for _, found in detector.stream(shapes, smooth=True)]
    assert plain[0].tracks is None
    assert [found.tracks.tolist() for found in smooth if found.tracks is not None] == ids
    assert [len(found) for found in tracked] == [len(found) for found in smooth]
