"""A run with masks from end to end: data, losses, scores of masks, files; and data without masks."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detrx import Detector
from detrx.errors import DataError
from detrx.tensors import Batch, Targets
from detrx.train.config import TrainConfig
from detrx.train.loop import parts, repeat_targets
from detrx.train.run import train


@pytest.fixture
def masked(scenes: Path, tmp_path: Path) -> Path:
    """The same pictures; the rectangles as polygons."""
    root = tmp_path / "masked"
    shutil.copytree(scenes, root)
    for file in root.glob("*/_annotations.coco.json"):
        found = json.loads(file.read_text())
        for row in found["annotations"]:
            x, y, w, h = row["bbox"]
            row["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        file.write_text(json.dumps(found))
    return root


def test_a_run_with_masks_scores_them_and_goes_on(
    quick: TrainConfig, masked: Path, draw_scores: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("detrx.train.course.draw_scores", draw_scores)
    loss = dataclasses.replace(quick.loss, mask_points=64)
    first = train(dataclasses.replace(quick, data=str(masked), masks=True, loss=loss), quiet=True)
    assert {"ap", "ap50", "ar_large"} <= set(first.metrics.masks)
    assert set(first.metrics.masks_per_class) == {"red", "green"}
    assert first.best_map == pytest.approx(first.metrics.main, abs=1)
    lines = [json.loads(line) for line in (first.folder / "log.jsonl").read_text().splitlines()]
    steps = [line for line in lines if "mask_aux0" in json.dumps(line)]
    assert steps, "every layer takes a mask loss"
    assert "dice_denoise0" not in json.dumps(steps)
    assert first.page is not None
    assert "mask AP" in first.page.read_text()
    with Detector(first.best, threshold=0.0) as detector:
        found = detector.predict(next((masked / "valid").glob("*.png")))
    assert found.masks is not None
    assert found.masks.shape == (len(found), 64, 64)
    again = dataclasses.replace(quick, data=str(masked), resume="auto", epochs=3, loss=loss)
    assert train(again, quiet=True).metrics.masks, "a run that goes on keeps its masks"


def test_data_without_masks_is_refused(quick: TrainConfig) -> None:
    with pytest.raises(DataError, match=r"(?s)at most 1 % of the boxes.*no mask"):
        train(dataclasses.replace(quick, masks=True), quiet=True)
    assert not Path(quick.out).exists()


def test_masks_are_cut_and_repeated_with_their_targets() -> None:
    masks = torch.rand(3, 2, 8, 8) > 0.5
    counts = torch.tensor([2, 1, 0], dtype=torch.int32)
    targets = Targets(torch.rand(3, 2, 4), torch.zeros(3, 2, dtype=torch.int64), counts, masks)
    cut = [part.targets.masks for part in parts(Batch(torch.zeros(3, 3, 8, 8), targets), 2)]
    assert torch.equal(torch.cat([m for m in cut if m is not None]), masks)
    twice = repeat_targets(targets, 2).masks
    assert twice is not None
    assert torch.equal(twice[:, 1::2], masks)
