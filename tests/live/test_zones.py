"""Zones and lines count each track once, whatever its box does on the border, and say what is wrong in a file."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx.errors import ConfigError
from detrx.live.job import DetectConfig, detect
from detrx.live.zones import Line, Zone, ZonePlan, Zones, parse_zones, read_zones
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


def test_a_plan_survives_json(tmp_path: Path) -> None:
    plan = ZonePlan((SQUARE,), (GATE,), anchor="centre")
    (tmp_path / "zones.json").write_text(plan.to_json())
    assert read_zones(tmp_path / "zones.json") == plan


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"coordinates": "feet"}, "shares or pixels, got 'feet'"),
        ({"anchor": "top"}, "bottom or centre"),
        ({"zone": []}, "may have anchor, zones, lines"),
        ({"zones": {}}, "zones must be a list"),
        ({"zones": [], "lines": []}, "at least one"),
        ({"zones": [{"name": "a", "polygon": [[0, 0], [1, 1], [0, 2]]}]}, r"zones\[0\].polygon\[2\] must be \[x, y\]"),
        ({"zones": [{"name": "a", "polygon": [[0, 0], [0.5, 0.5], [1, 1]]}]}, "around an area"),
        ({"zones": [{"name": " ", "polygon": [[0, 0], [1, 0], [1, 1]]}]}, r"zones\[0\].name must be a text"),
        ({"lines": [{"name": "gate", "start": [0, 0], "end": [0, 0]}]}, "different points"),
        ({"lines": [{"name": "gate", "start": [0, True], "end": [0, 0]}]}, r"lines\[0\].start"),
        ({"lines": [{"name": "yard", "start": [0, 0], "end": [1, 0]}]}, "alone, got 'yard'"),
    ],
)  # fmt: skip
def test_a_bad_file_is_told_where(change: dict[str, Any], says: str) -> None:
    good = json.loads(ZonePlan((SQUARE,)).to_json())
    with pytest.raises(ConfigError, match=says):
        parse_zones(json.dumps({**good, **change}))


def test_what_is_no_json_or_no_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="is not JSON"):
        parse_zones("{")
    with pytest.raises(ConfigError, match="must be an object"):
        parse_zones("[]")
    with pytest.raises(ConfigError, match="cannot be read"):
        read_zones(tmp_path / "none.json")


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
