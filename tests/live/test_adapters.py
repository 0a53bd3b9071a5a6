"""To supervision and back, and the trackers of others in our loop; against the real packages where they are."""

from __future__ import annotations

import importlib
import json
import runpy
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from detrx.detector import Detector
from detrx.live.adapters import PeerTracker, from_supervision
from detrx.live.loop import run
from detrx.live.sink import JsonLinesSink
from detrx.live.source import open_source
from detrx.live.zone_plan import Zone, ZonePlan
from detrx.live.zones import Zones
from detrx.types import Detections, Frame

TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))
IMAGE = np.zeros((100, 200, 3), np.uint8)


def some(t: int = 0, *, masks: bool = False) -> Detections:
    boxes = np.array([[10 + t, 10, 50 + t, 60], [120 - t, 20, 160 - t, 90]], np.float32)
    return Detections(
        boxes,
        np.array([0.9, 0.8], np.float32),
        np.array([2, 0]),
        ("disc", "star", "ring"),
        (1, 5, 7),
        np.stack([np.eye(8, dtype=bool), np.ones((8, 8), bool)]) if masks else None,
        np.array([4, -1]),
    )


def plain(**values: Any) -> Any:
    """As supervision's, with what is left out unknown."""
    names = ("confidence", "class_id", "mask", "tracker_id")
    return SimpleNamespace(**{**dict.fromkeys(names), "data": {}, **values})


def test_what_others_leave_out_has_a_value_and_order() -> None:
    boxes = np.array([[0, 0, 1, 1], [2, 2, 3, 3]])
    bare = from_supervision(plain(xyxy=boxes))
    assert (bare.scores.tolist(), bare.labels.tolist(), bare.tracks, bare.masks) == (
        [1, 1],
        [0, 0],
        None,
        None,
    )
    given = plain(
        xyxy=boxes,
        confidence=np.array([0.2, 0.7]),
        class_id=np.array([3, 1]),
        tracker_id=np.array([-1, 9]),
        data={"class_name": np.array(["ring", "star"])},
    )
    found = from_supervision(given)
    assert found.scores.tolist() == pytest.approx([0.7, 0.2])
    assert (found.labels.tolist(), found.tracks.tolist() if found.tracks is not None else None) == (
        [1, 3],
        [9, -1],
    )
    assert found.class_names == ("0", "star", "2", "ring")
    assert from_supervision(given, class_names=tuple("abcd")).names.tolist() == ["b", "d"]
    assert len(from_supervision(plain(xyxy=np.zeros((0, 4)), data={"class_name": np.array([])}))) == 0


def test_only_trackers_are_trackers() -> None:
    with pytest.raises(TypeError, match="update or update_with_detections, got object"):
        PeerTracker(object())


@pytest.mark.parametrize("masks", [False, True])
def test_there_and_back_through_the_real_supervision(masks: bool) -> None:
    supervision = importlib.import_module(pytest.importorskip("supervision").__name__)
    found = some(masks=masks)
    there = found.to_supervision()
    assert isinstance(there, supervision.Detections)
    assert there.data["class_name"].tolist() == ["ring", "disc"]
    back = from_supervision(there, class_names=found.class_names)
    for name in ("boxes", "scores", "labels", "masks", "tracks"):
        np.testing.assert_array_equal(getattr(back, name), getattr(found, name))
    assert len(from_supervision(supervision.Detections.empty())) == 0
    assert len(from_supervision(found[:0].to_supervision())) == 0


def peer(name: str) -> Any:
    module, kind = name.split(".")
    found = getattr(pytest.importorskip(module), kind, None)
    if found is None:
        pytest.skip(f"this {module} has no {kind}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return found()


PEERS = [
    "supervision.ByteTrack",
    "trackers.ByteTrackTracker",
    "trackers.SORTTracker",
    "trackers.OCSORTTracker",
    "trackers.BoTSORTTracker",
]


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", PEERS)
def test_the_real_trackers_number_objects_from_1_and_zones_count_them(name: str) -> None:
    step = PeerTracker(peer(name), pictures="BoT" in name)
    zones = Zones(ZonePlan((Zone("all", ((0, 0), (1, 0), (1, 1), (0, 1))),)))
    ids = set()
    for t in range(12):
        frame = Frame(IMAGE, t, t / 30)
        found = zones(frame, step(frame, some(t)))
        assert found.category_ids == (1, 5, 7)
        assert found.tracks is not None
        for track, label in zip(found.tracks.tolist(), found.labels.tolist()):
            ids.add((track, label))
    assert len({track for track, _ in ids if track > 0}) == 2
    assert len([pair for pair in ids if pair[0] > 0]) == 2
    assert zones.counts["all"]["in"] == 2


@pytest.mark.filterwarnings("ignore")
def test_a_peer_is_a_step_of_the_loop(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = str(TINY["write_model"](tmp_path / "tiny.onnx"))
    step = PeerTracker(peer("trackers.ByteTrackTracker"))
    with Detector(model, threshold=0.1) as detector:
        sink = JsonLinesSink(tmp_path / "a.jsonl")
        run(detector, open_source("test://shapes?size=64x96&frames=6"), sinks=[sink], steps=[step])
    last = json.loads((tmp_path / "a.jsonl").read_text().splitlines()[-1])
    assert any("track" in one for one in last["objects"])
