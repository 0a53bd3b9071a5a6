"""Areas and lines of a picture that count the tracks in them and across them."""

from __future__ import annotations

import json
import math
import threading
from collections import Counter
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.draw import Colour, colour, label_tab
from detrx.images import opencv
from detrx.live.zone_plan import ANCHORS, Point, ZonePlan, turn
from detrx.types import Detections, Frame

JITTER = 0.05
"""Share of its height by which an object must be past a border to be on the other side."""


@dataclass
class _Stay:
    """A track in a zone, or beside a line."""

    side: bool
    """Inside; of a line, on its right."""
    at: Point
    """Where it last was clear of the border, in pixels."""
    since: float
    """Seconds on the source's clock of its entrance, or first sight."""
    seen: float
    label: int


class Zones:
    """Counts the tracks of a film; a step of the loop, after tracking."""

    def __init__(self, plan: ZonePlan, *, lost: float = 1.0) -> None:
        """``lost`` is the seconds after which a track that is not seen has left."""
        self.plan = plan
        self.counts: Dict[str, Dict[str, int]] = {name: {"in": 0, "out": 0} for name in plan.names}
        """How often each zone and line was passed so far: into a zone and out of it, or across a line."""
        self.size: Optional[Tuple[int, int]] = None
        """(width, height) of the newest frame in pixels."""
        self._next: Optional[ZonePlan] = None
        self._changing = threading.Lock()
        self.events: List[Dict[str, Any]] = []
        """Of the newest frame: name, event ("in" or "out"), track, and the seconds of its stay on leaving a zone."""
        self._lost = lost
        self._stays: Dict[str, Dict[int, _Stay]] = {name: {} for name in self.counts}
        self._names: Tuple[str, ...] = ()
        self._now = 0.0

    def __call__(self, frame: Frame, found: Detections) -> Detections:
        """Count; the detections pass as they are.

        Raises:
            ValueError: the detections have no tracks.
            ConfigError: a zone in pixels lies outside of the first picture.
        """
        if found.tracks is None:
            raise ValueError("[zones] the detections must have tracks; put a Tracker before Zones")
        self.events, self._names, self._now = [], found.class_names, frame.seconds
        height, width = frame.image.shape[:2]
        self._turn_over()
        # A camera that comes back smaller is no reason to stop: what lies outside then counts nobody.
        if self.size is None:
            self.plan.check_size(width, height)
        self.size = width, height
        scale = (1.0, 1.0) if self.plan.pixels else (float(width), float(height))
        down = ANCHORS[self.plan.anchor]
        for track, (box, _, label) in zip(found.tracks.tolist(), found):
            if track > 0:
                x0, y0, x1, y1 = (float(value) for value in box)
                self._take(track, label, ((x0 + x1) / 2, y0 + down * (y1 - y0)), JITTER * (y1 - y0), scale)
        for zone in self.plan.zones:
            self._let_go(zone.name)
        for line in self.plan.lines:
            stays = self._stays[line.name]
            for track in [t for t, stay in stays.items() if self._now - stay.seen > self._lost]:
                del stays[track]
        return found

    def change(self, plan: ZonePlan) -> None:
        """Count by another plan from the next frame on; may be called from any thread.

        What has the name or the place of something before goes on with its counts; who is in a zone stays in it until
        the next frame tells.

        Raises:
            ConfigError: a zone in pixels lies outside of the picture.
        """
        if self.size is not None:
            plan.check_size(*self.size)
        with self._changing:
            self._next = plan

    def _turn_over(self) -> None:
        with self._changing:
            plan, self._next = self._next, None
        if plan is None:
            return
        before, counts, stays = _shapes(self.plan), {}, {}
        for name, (kind, place) in _shapes(plan).items():
            old = [n for n, shape in before.items() if n == name and shape[0] == kind]
            old += [n for n, shape in before.items() if shape == (kind, place)]
            counts[name] = dict(self.counts[old[0]]) if old else {"in": 0, "out": 0}
            # Beside a line that moved everybody is seen for the first time, so that it crosses nobody.
            same = bool(old) and (kind == "zone" or before[old[0]] == (kind, place))
            stays[name] = dict(self._stays[old[0]]) if same else {}
        self.plan, self.counts, self._stays = plan, counts, stays

    def _take(self, track: int, label: int, at: Point, jitter: float, scale: Point) -> None:
        for zone in self.plan.zones:
            polygon = np.array(zone.polygon, np.float32) * np.array(scale, np.float32)
            depth = float(opencv().pointPolygonTest(polygon.reshape(-1, 1, 2), at, True))
            before = self._stays[zone.name].get(track)
            stay = self._see(zone.name, track, label, at, depth, jitter)
            if stay is not before and (before is not None or stay.side):
                self._tell(zone.name, track, stay.side, stay=None if stay.side else before)
        for line in self.plan.lines:
            start, end = _scaled(line.start, scale), _scaled(line.end, scale)
            depth = turn(start, end, at) / math.dist(start, end)
            before = self._stays[line.name].get(track)
            stay = self._see(line.name, track, label, at, depth, jitter)
            # Who went round the end of a line has changed sides without crossing it.
            if before is not None and stay is not before and _meets(before.at, at, start, end):
                self._tell(line.name, track, stay.side)

    def _see(self, name: str, track: int, label: int, at: Point, depth: float, jitter: float) -> _Stay:
        """The stay of a track: a new one at first sight and whenever it is clear of the border on the other side."""
        stay = self._stays[name].get(track)
        if stay is None or (abs(depth) > jitter and (depth > 0) != stay.side):
            stay = _Stay(depth > 0, at, self._now, self._now, label)
            self._stays[name][track] = stay
        elif (depth > 0) == stay.side:
            stay.at = at
        stay.seen, stay.label = self._now, label
        return stay

    def _let_go(self, name: str) -> None:
        """Tracks that are gone leave the zone they were in."""
        stays = self._stays[name]
        for track in [t for t, stay in stays.items() if self._now - stay.seen > self._lost]:
            stay = stays.pop(track)
            if stay.side:
                self._tell(name, track, False, stay=stay)

    def _tell(self, name: str, track: int, inward: bool, *, stay: Optional[_Stay] = None) -> None:
        event = "in" if inward else "out"
        self.counts[name][event] += 1
        said: Dict[str, Any] = {"name": name, "event": event, "track": track}
        if stay is not None:
            said["seconds"] = round(stay.seen - stay.since, 3)
        self.events.append(said)

    def state(self) -> Dict[str, Any]:
        """For JSON: zones with who is in them by class and the longest stay of those in seconds; lines; events."""
        zones = []
        for zone in self.plan.zones:
            inside = [stay for stay in self._stays[zone.name].values() if stay.side]
            classes = Counter(self._name(stay.label) for stay in inside)
            longest = max((stay.seen - stay.since for stay in inside), default=0.0)
            here = {"present": len(inside), "classes": dict(sorted(classes.items()))}
            zones.append({"name": zone.name, **here, "longest": round(longest, 3), **self.counts[zone.name]})
        lines = [{"name": line.name, **self.counts[line.name]} for line in self.plan.lines]
        return {"zones": zones, "lines": lines, "events": self.events}

    def drawn(self) -> Dict[str, Any]:
        """What zones.json says, and counts: for a page, from any thread."""
        with self._changing:
            plan = self._next if self._next is not None else self.plan
        known, counts = self.counts, {}
        for name in plan.names:
            counts[name] = known.get(name, {"in": 0, "out": 0})
        return {**json.loads(plan.to_json()), "counts": counts}

    def _name(self, label: int) -> str:
        return self._names[label] if self._names else str(label)

    def paint(self, picture: NDArray[np.uint8]) -> None:
        """Borders, names and counts onto an (H, W, 3) picture, in place."""
        cv2 = opencv()
        height, width = picture.shape[:2]
        scale = (1.0, 1.0) if self.plan.pixels else (float(width), float(height))
        thick = max(1, round((height * width) ** 0.5 / 200))
        for index, zone in enumerate(self.plan.zones):
            points = np.array([_scaled(point, scale) for point in zone.polygon]).round().astype(np.int32)
            cv2.polylines(picture, [points], True, colour(index), thick, cv2.LINE_AA)
            present = sum(stay.side for stay in self._stays[zone.name].values())
            _write(picture, f"{zone.name}: {present}", points[0], colour(index))
        for index, line in enumerate(self.plan.lines, len(self.plan.zones)):
            ends = (
                np.array([_scaled(point, scale) for point in (line.start, line.end)]).round().astype(np.int32)
            )
            cv2.arrowedLine(
                picture, tuple(ends[0].tolist()), tuple(ends[1].tolist()), colour(index), thick, cv2.LINE_AA
            )
            count = self.counts[line.name]
            _write(
                picture,
                f"{line.name}: {count['in']} in, {count['out']} out",
                ends.mean(axis=0),
                colour(index),
            )


def _write(picture: NDArray[np.uint8], text: str, at: NDArray[np.float64], shade: Colour) -> None:
    size = float((picture.shape[0] * picture.shape[1]) ** 0.5)
    label_tab(opencv(), picture, text, [int(at[0]), int(at[1])], shade, size)


def _scaled(point: Point, scale: Point) -> Point:
    return point[0] * scale[0], point[1] * scale[1]


def _meets(a: Point, b: Point, start: Point, end: Point) -> bool:
    """Whether a way from a to b, on two sides of the line, passes between its ends."""
    return turn(a, b, start) * turn(a, b, end) <= 0


def _shapes(plan: ZonePlan) -> Dict[str, Tuple[str, Tuple[Point, ...]]]:
    """Name -> "zone" or "line", and where it is."""
    zones = {zone.name: ("zone", zone.polygon) for zone in plan.zones}
    return {**zones, **{line.name: ("line", (line.start, line.end)) for line in plan.lines}}
