"""A DETR with masks learns a panoptic data set, in two stages, and ships: scores, gate, the same segments in ONNX."""

from __future__ import annotations

import dataclasses
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_detr import TINY_DETR

from detrx import Detector
from detrx.errors import ConfigError
from detrx.evaluation.panoptic_run import evaluate_panoptic
from detrx.export import onnx as writer
from detrx.export.run import export
from detrx.losses.config import LossConfig
from detrx.losses.detr import DetrCriterion
from detrx.models import zoo
from detrx.models.checkpoint import load_model
from detrx.train.config import TrainConfig
from detrx.train.run import train
from detrx.train.setup import criterion_for, model_config, open_data, truth_for

SCENES = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "panoptic_scenes.py")))


@pytest.fixture
def settings(quick: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    monkeypatch.setitem(zoo.MODELS, "tiny-detr", TINY_DETR)
    monkeypatch.setitem(zoo.MODELS, "tiny-detr-panoptic", dataclasses.replace(TINY_DETR, masks=True))
    data = SCENES.write_scenes(tmp_path / "data", pictures=2)
    return dataclasses.replace(quick, data=str(data), model="tiny-detr", levels=None, queries=8, epochs=1)


def test_from_boxes_to_masks_to_onnx(
    settings: TrainConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer, "_simplify", lambda graph: graph)
    first = train(dataclasses.replace(settings, masks=True), quiet=True)
    logged = (first.folder / "log.jsonl").read_text()
    assert '"mask"' in logged
    assert '"dice"' in logged
    assert set(first.metrics.panoptic) == {"pq", "sq", "rq", "pq_things", "pq_stuff"}
    assert first.metrics.main == first.metrics.panoptic["pq"]
    assert first.metrics.counts["truths"] == 8, "every segment counts for AP too"
    # The second stage: what is frozen stays as it is, to the bit.
    second = train(
        dataclasses.replace(
            settings,
            out=str(tmp_path / "second"),
            weights=str(first.best),
            learn=("bbox_attention", "mask_head"),
            model="",
        ),
        quiet=True,
    )
    (before, _), (model, info) = load_model(first.best), load_model(second.best)
    moved = {
        name.split(".")[0]
        for name, tensor in model.named_parameters()
        if not torch.equal(tensor, before.state_dict()[name])
    }
    assert moved <= {"bbox_attention", "mask_head"}
    assert "mask_head" in moved
    assert (info.things, info.masks) == (SCENES.THINGS, True)

    exported = export(second.best, data=settings.data)
    assert exported.report.passed
    assert 0 < exported.report.mask < 1e-2
    picture = SCENES.scene(5)[0]
    with Detector(second.best) as ours, Detector(exported.path) as graph:
        here, there = (one.panoptic(picture, threshold=0.05) for one in (ours, graph))
    assert len(here) > 0
    assert [one.label for one in here.segments] == [one.label for one in there.segments]
    assert (here.segments_map == there.segments_map).mean() > 0.999
    metrics = evaluate_panoptic(exported.path, data=settings.data, threshold=0.05)
    assert (metrics.counts["images"], metrics.counts["truths"]) == (2, 8)


def test_what_is_read_of_the_data(settings: TrainConfig, scenes: Path) -> None:
    with_masks = dataclasses.replace(settings, model="tiny-detr-panoptic")
    assert truth_for(with_masks, None) == "panoptic"
    assert truth_for(dataclasses.replace(settings, masks=True), None) == "panoptic"
    assert truth_for(dataclasses.replace(with_masks, data=str(scenes)), None) == "masks"
    assert truth_for(dataclasses.replace(settings, model="tiny", masks=True), None) == "masks"
    assert truth_for(settings, None) == "boxes"
    data = open_data(settings, truth="panoptic")
    assert (data.train.names, data.train.things, data.val.split) == (SCENES.NAMES, SCENES.THINGS, "val")
    assert data.val is not data.train
    with pytest.raises(ConfigError, match='ask for "no object"'):
        model_config(dataclasses.replace(settings, masks=True, no_object=False))


def test_the_masks_weigh_as_published_unless_asked_otherwise() -> None:
    shape = dataclasses.replace(TINY_DETR, masks=True)
    for loss, wanted in ((LossConfig(), (1.0, 1.0)), (LossConfig(dice_weight=2.0), (5.0, 2.0))):
        own = criterion_for(loss, shape, classes=3)
        assert isinstance(own, DetrCriterion)
        assert (own.mask_weight, own.dice_weight) == wanted
