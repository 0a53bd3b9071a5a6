"""Areas and lines of a picture that count the tracks in them and across them."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.draw import Colour, colour, label_tab
from detrx.errors import ConfigError
from detrx.images import opencv
from detrx.types import Detections, Frame

Point = Tuple[float, float]
ANCHORS = {"bottom": 1.0, "centre": 0.5}
"""Where down its box an object stands: on its lower edge, or in its middle."""
JITTER = 0.05
"""Share of its height by which an object must be past a border to be on the other side."""


@dataclass(frozen=True)
class Zone:
    """An area."""

    name: str
    polygon: Tuple[Point, ...]
    """(x, y) of three corners or more."""


@dataclass(frozen=True)
class Line:
    """A line; "in" is from the left to the right of one who walks from start to end."""

    name: str
    start: Point
    end: Point


@dataclass(frozen=True)
class ZonePlan:
    """What zones.json says."""

    zones: Tuple[Zone, ...] = ()
    lines: Tuple[Line, ...] = ()
    pixels: bool = False
    """Whether points are pixels of the picture, not shares of its width and height in [0, 1]."""
    anchor: str = "bottom"
    """One of ANCHORS."""

    @property
    def names(self) -> List[str]:
        """Of the zones, then of the lines."""
        return [zone.name for zone in self.zones] + [line.name for line in self.lines]

    def to_json(self) -> str:
        """What parse_zones reads."""
        return json.dumps(
            {
                "coordinates": "pixels" if self.pixels else "shares",
                "anchor": self.anchor,
                "zones": [{"name": one.name, "polygon": one.polygon} for one in self.zones],
                "lines": [{"name": one.name, "start": one.start, "end": one.end} for one in self.lines],
            }
        )


def read_zones(path: Path) -> ZonePlan:
    """Read zones.json.

    Raises:
        ConfigError: it cannot be read, or does not say what it must.
    """
    try:
        return parse_zones(path.read_text(encoding="utf-8"), where=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"[zones] {path} cannot be read: {error}") from error


def parse_zones(text: str, *, where: str = "zones.json") -> ZonePlan:
    """Read ``{"coordinates": "shares" | "pixels", "anchor": "bottom" | "centre", "zones": [{"name", "polygon": [[x, y],
    ...]}], "lines": [{"name", "start": [x, y], "end": [x, y]}]}``; anchor, zones and lines may be missing.

    Raises:
        ConfigError: with the place in the file.
    """
    try:
        return _Reader(where).plan(json.loads(text))
    except json.JSONDecodeError as error:
        raise ConfigError(f"[zones] {where} is not JSON: {error}") from error


class _Reader:
    """Each value is checked where it is taken."""

    def __init__(self, where: str) -> None:
        self._where = where
        self._pixels = False

    def plan(self, value: Any) -> ZonePlan:
        found = self._keys(value, "the file", must=("coordinates",), may=("anchor", "zones", "lines"))
        coordinates, anchor = found["coordinates"], found.get("anchor", "bottom")
        if coordinates not in ("shares", "pixels"):
            raise self._error("coordinates", "must be shares or pixels", coordinates)
        if anchor not in ANCHORS:
            raise self._error("anchor", f"must be {' or '.join(ANCHORS)}", anchor)
        self._pixels = coordinates == "pixels"
        zones = tuple(self._zone(one, at) for one, at in self._list(found, "zones"))
        lines = tuple(self._line(one, at) for one, at in self._list(found, "lines"))
        plan = ZonePlan(zones, lines, self._pixels, anchor)
        names = Counter(plan.names)
        if not names:
            raise self._error("zones and lines", "must have at least one", 0)
        if max(names.values()) > 1:
            raise self._error("name", "must be of one zone or line alone", names.most_common(1)[0][0])
        return plan

    def _zone(self, value: Any, at: str) -> Zone:
        found = self._keys(value, at, must=("name", "polygon"))
        polygon = tuple(self._point(one, place) for one, place in self._list(found, "polygon", at))
        area = sum(a[0] * b[1] - a[1] * b[0] for a, b in zip(polygon, (*polygon[1:], *polygon[:1])))
        if len(polygon) < 3 or not area:
            raise self._error(f"{at}.polygon", "must be three corners or more around an area", polygon)
        return Zone(self._name(found, at), polygon)

    def _line(self, value: Any, at: str) -> Line:
        found = self._keys(value, at, must=("name", "start", "end"))
        start, end = (self._point(found[key], f"{at}.{key}") for key in ("start", "end"))
        if start == end:
            raise self._error(at, "must start and end at different points", start)
        return Line(self._name(found, at), start, end)

    def _keys(
        self, value: Any, at: str, *, must: Tuple[str, ...], may: Tuple[str, ...] = ()
    ) -> Dict[str, Any]:
        if not isinstance(value, dict) or not set(must) <= set(value) <= {*must, *may}:
            found = sorted(value) if isinstance(value, dict) else value
            optional = f", and may have {', '.join(may)}" if may else ""
            raise self._error(at, f"must be an object with {', '.join(must)}{optional}", found)
        return value

    def _list(self, found: Dict[str, Any], key: str, at: str = "") -> List[Tuple[Any, str]]:
        value, place = found.get(key, []), f"{at}.{key}" if at else key
        if not isinstance(value, list):
            raise self._error(place, "must be a list", value)
        return [(one, f"{place}[{index}]") for index, one in enumerate(value)]

    def _name(self, found: Dict[str, Any], at: str) -> str:
        if not isinstance(found["name"], str) or not found["name"].strip():
            raise self._error(f"{at}.name", "must be a text", found["name"])
        return str(found["name"])

    def _point(self, value: Any, at: str) -> Point:
        numbers = isinstance(value, list) and len(value) == 2
        numbers = numbers and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in value)
        most = 1e6 if self._pixels else 1.0
        if not numbers or not all(0 <= v <= most for v in value):
            kind = "pixels from 0" if self._pixels else "shares in [0, 1]"
            raise self._error(at, f"must be [x, y] in {kind}", value)
        return float(value[0]), float(value[1])

    def _error(self, at: str, must: str, found: Any) -> ConfigError:
        return ConfigError(f"[zones] {self._where}: {at} {must}, got {found!r}")


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
        """
        if found.tracks is None:
            raise ValueError("[zones] the detections must have tracks; put a Tracker before Zones")
        self.events, self._names, self._now = [], found.class_names, frame.seconds
        height, width = frame.image.shape[:2]
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
            depth = _turn(start, end, at) / math.dist(start, end)
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
        plan: Dict[str, Any] = json.loads(self.plan.to_json())
        return {**plan, "counts": self.counts}

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


def _turn(a: Point, b: Point, c: Point) -> float:
    """Above 0 where c lies on the right of one who walks from a to b, y pointing down."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])


def _meets(a: Point, b: Point, start: Point, end: Point) -> bool:
    """Whether a way from a to b, on two sides of the line, passes between its ends."""
    return _turn(a, b, start) * _turn(a, b, end) <= 0
