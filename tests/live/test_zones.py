"""Zones and lines count each track once, whatever its box does on the border, and while they are changed."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx.errors import ConfigError
from detrx.live.job import DetectConfig, detect
from detrx.live.zone_plan import Line, Zone, ZonePlan
from detrx.live.zones import Zones
from detrx.types import Detections, Frame

pytest.importorskip("cv2")
TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))
SQUARE = Zone("yard", ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)))
GATE = Line("gate", (0.5, 0.25), (0.5, 0.75))
IMAGE = np.zeros((200, 400, 3), np.uint8)


def walk(plan: ZonePlan, *paths: list[tuple[float, float] | None]) -> tuple[Zones, list[dict[str, Any]]]:
    """Tracks 1, 2, ... whose box of 20 x 40 stands at these pixels, ten frames a second."""
    zones, events = Zones(plan), []
    for step, places in enumerate(zip(*paths)):
        seen = [(track, at) for track, at in enumerate(places, 1) if at is not None]
        boxes = [(x - 10, y - 40, x + 10, y) for _, (x, y) in seen]
        zones(
            Frame(IMAGE, step, step / 10),
            Detections(
                np.array(boxes, np.float32).reshape(-1, 4),
                np.full(len(seen), 0.9, np.float32),
                np.array([track % 2 for track, _ in seen], np.int64),
                ("even", "odd"),
                tracks=np.array([track for track, _ in seen], np.int64),
            ),
        )
        events += zones.events
    return zones, events


def test_a_zone_counts_who_comes_stays_and_goes() -> None:
    through = [(100.0 + 20 * t, 100.0) for t in range(30)]
    stays = [(300.0, 100.0)] * 30
    vanishes = [(300.0, 150.0)] * 5 + [None] * 25
    zones, events = walk(ZonePlan(zones=(SQUARE,)), through, stays, vanishes)
    yard = zones.state()["zones"][0]
    assert yard == {
        "name": "yard", "present": 1, "classes": {"even": 1}, "longest": 2.9, "in": 3, "out": 2
    }  # fmt: skip
    out = {event["track"]: event["seconds"] for event in events if event["event"] == "out"}
    assert out == {1: pytest.approx(0.9, abs=0.11), 3: 0.4}


def test_a_box_that_shakes_on_the_border_is_counted_once() -> None:
    shakes = [(150.0, 100.0), *[(200 + (-1.5) ** (t % 2), 100.0) for t in range(40)], (260.0, 100.0)]
    zones, _ = walk(ZonePlan((SQUARE,), (GATE,)), shakes)
    assert zones.counts == {"yard": {"in": 1, "out": 0}, "gate": {"in": 0, "out": 1}}


def test_a_line_counts_both_ways_and_not_round_its_end() -> None:
    right = [(150.0 + 20 * t, 100.0) for t in range(8)]
    left = right[::-1]
    round_it = [(150.0 + 20 * t, 30.0) for t in range(8)]
    jump = [(150.0, 100.0)] * 4 + [(350.0, 100.0)] * 4
    zones, _ = walk(ZonePlan(lines=(GATE,)), right, left, round_it, jump)
    assert zones.counts["gate"] == {"in": 1, "out": 2}
    turned = Line("gate", GATE.end, GATE.start)
    assert walk(ZonePlan(lines=(turned,)), right)[0].counts["gate"] == {"in": 1, "out": 0}


def test_pixels_shares_and_anchors() -> None:
    pixels = ZonePlan((Zone("low", ((0, 150), (400, 150), (400, 200), (0, 200))),), pixels=True)
    stands = [(100.0, 160.0)] * 2
    assert walk(pixels, stands)[0].counts["low"]["in"] == 1
    assert walk(ZonePlan(pixels.zones, pixels=True, anchor="centre"), stands)[0].counts["low"]["in"] == 0


def test_zones_are_painted_and_need_tracks() -> None:
    zones = Zones(ZonePlan((SQUARE,), (GATE,)))
    picture = IMAGE.copy()
    zones.paint(picture)
    assert picture.any()
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    with pytest.raises(ValueError, match="Tracker"):
        zones(Frame(IMAGE, 0, 0.0), none)


def test_zones_change_while_they_count() -> None:
    """Names and places go on with their counts; a border that moves past somebody counts him, a line does not."""
    stands = [(300.0, 100.0)] * 2
    zones, _ = walk(ZonePlan((SQUARE,), (GATE,)), stands)
    step = iter(range(100, 200))

    def look() -> list[str]:
        index = next(step)
        boxes = np.array([[290, 60, 310, 100]], np.float32)
        found = Detections(boxes, np.ones(1, np.float32), np.ones(1, int), ("a", "b"), tracks=np.array([1]))
        zones(Frame(IMAGE, index, 0.2 + (index - 100) / 10), found)
        return [event["event"] for event in zones.events]

    zones.change(ZonePlan((Zone("garden", SQUARE.polygon),), (GATE,)))
    assert zones.drawn()["counts"] == {"garden": {"in": 0, "out": 0}, "gate": {"in": 0, "out": 0}}
    assert look() == []
    assert zones.counts == {"garden": {"in": 1, "out": 0}, "gate": {"in": 0, "out": 0}}
    left = tuple((x - 0.5, y) for x, y in SQUARE.polygon)
    zones.change(ZonePlan((Zone("garden", left),), (Line("gate", (0.9, 0.0), (0.9, 1.0)),)))
    assert look() == ["out"]
    zones.change(ZonePlan((SQUARE, Zone("garden", left))))
    assert look() == ["in"]
    assert zones.drawn()["counts"] == {"yard": {"in": 1, "out": 0}, "garden": {"in": 1, "out": 1}}
    zones.change(ZonePlan())
    assert look() == []
    assert zones.counts == {}


def test_pixels_outside_of_the_picture_are_refused() -> None:
    plan = ZonePlan((Zone("far", ((0, 0), (401, 0), (0, 200))),), pixels=True)
    with pytest.raises(
        ConfigError, match=r"'far' must lie within the picture of 400 x 200 pixels, got \[401, 0\]"
    ):
        walk(plan, [(100.0, 100.0)])
    zones, _ = walk(ZonePlan(pixels=True), [(100.0, 100.0)])
    with pytest.raises(ConfigError, match="far"):
        zones.change(plan)
    zones.change(ZonePlan((Zone("near", ((0, 0), (400, 0), (0, 200))),), pixels=True))
    nobody = Detections(np.zeros((0, 4), np.float32), np.zeros(0), np.zeros(0, int), tracks=np.zeros(0, int))
    zones(Frame(IMAGE[:100, :100], 1, 0.1), nobody)
    assert zones.size == (100, 100)


def test_detect_counts_in_zones(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = str(TINY["write_model"](tmp_path / "tiny.onnx"))
    everywhere = Zone("all", ((0, 0), (1, 0), (1, 1), (0, 1)))
    (tmp_path / "zones.json").write_text(ZonePlan((everywhere,), anchor="centre").to_json())
    report = detect(
        DetectConfig(
            "test://shapes?size=64x96&frames=6",
            model=model,
            out=tmp_path / "a",
            save=("jsonl", "video"),
            zones=tmp_path / "zones.json",
        )
    )
    lines = [json.loads(line) for line in (tmp_path / "a" / "detections.jsonl").read_text().splitlines()]
    tracks = {one["track"] for line in lines for one in line["objects"] if "track" in one}
    assert lines[-1]["zones"][0]["present"] == len(tracks) == report.loop.zones["all"]["in"]
    assert {event["track"] for event in lines[0]["events"]} == tracks
