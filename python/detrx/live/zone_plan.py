"""zones.json: which areas and lines of a picture count, read strictly and written whole."""

from __future__ import annotations

import json
import os
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

from detrx.errors import ConfigError

Point = Tuple[float, float]
ANCHORS = {"bottom": 1.0, "centre": 0.5}
"""Where down its box an object stands: on its lower edge, or in its middle."""
MOST, MOST_CORNERS, MOST_LETTERS = 100, 200, 80
"""Zones and lines of a file, corners of a zone, and letters of a name."""


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
        zones = [json.dumps({"name": one.name, "polygon": one.polygon}) for one in self.zones]
        lines = [json.dumps({"name": one.name, "start": one.start, "end": one.end}) for one in self.lines]
        rows = {"zones": _rows(zones), "lines": _rows(lines)}
        coordinates = "pixels" if self.pixels else "shares"
        parts = [f'"coordinates": "{coordinates}"', f'"anchor": "{self.anchor}"']
        parts += [f'"{key}": {value}' for key, value in rows.items()]
        return "{\n  " + ",\n  ".join(parts) + "\n}\n"

    def check_size(self, width: int, height: int) -> None:
        """Refuse pixels that are outside of a picture.

        Raises:
            ConfigError: with the name and the point.
        """
        if not self.pixels:
            return
        places = [(one.name, one.polygon) for one in self.zones]
        places += [(one.name, (one.start, one.end)) for one in self.lines]
        for name, points in places:
            for x, y in points:
                if x > width or y > height:
                    raise ConfigError(
                        f"[zones] {name!r} must lie within the picture of {width} x {height} pixels, "
                        f"got [{x:g}, {y:g}]; "
                        'with "coordinates": "shares" zones fit pictures of any size'
                    )


def _rows(items: List[str]) -> str:
    return "[" + ",".join(f"\n    {item}" for item in items) + ("\n  ]" if items else "]")


def read_zones(path: Path, *, empty: bool = False) -> ZonePlan:
    """Read zones.json; with ``empty`` it may hold none, and may not exist yet.

    Raises:
        ConfigError: it cannot be read, or does not say what it must.
    """
    if empty and not path.exists():
        return ZonePlan()
    try:
        return parse_zones(path.read_text(encoding="utf-8"), where=str(path), empty=empty)
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"[zones] {path} cannot be read: {error}; to draw one, look at the page of --web"
        ) from error


def write_zones(path: Path, plan: ZonePlan) -> None:
    """Write zones.json, whole or not at all.

    Raises:
        OSError: it cannot be written.
    """
    path = path.resolve()
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(path.name + ".part")
    with part.open("w", encoding="utf-8") as file:
        file.write(plan.to_json())
        file.flush()
        os.fsync(file.fileno())
    part.replace(path)


def parse_zones(text: str, *, where: str = "zones.json", empty: bool = False) -> ZonePlan:
    """Read ``{"coordinates": "shares" | "pixels", "anchor": "bottom" | "centre", "zones": [{"name", "polygon": [[x, y],
    ...]}], "lines": [{"name", "start": [x, y], "end": [x, y]}]}``; anchor, zones and lines may be missing.

    Raises:
        ConfigError: with the place in the file.
    """

    def once(pairs: List[Tuple[str, Any]]) -> Dict[str, Any]:
        for key, count in Counter(key for key, _ in pairs).items():
            if count > 1:
                raise ConfigError(
                    f"[zones] {where}: an object must have each key once, got {key!r} {count} times"
                )
        return dict(pairs)

    try:
        value = json.loads(text, object_pairs_hook=once)
    except (json.JSONDecodeError, RecursionError) as error:
        raise ConfigError(f"[zones] {where} is not JSON: {error}") from error
    plan = _Reader(where).plan(value)
    if not plan.names and not empty:
        raise ConfigError(f"[zones] {where}: zones and lines must have at least one, got 0")
    return plan


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
        if len(plan.names) > MOST:
            raise self._error("zones and lines", f"must be {MOST} at most", len(plan.names))
        if max(names.values(), default=0) > 1:
            raise self._error("name", "must be of one zone or line alone", names.most_common(1)[0][0])
        return plan

    def _zone(self, value: Any, at: str) -> Zone:
        found = self._keys(value, at, must=("name", "polygon"))
        corners = self._list(found, "polygon", at)
        if not 3 <= len(corners) <= MOST_CORNERS:
            raise self._error(
                f"{at}.polygon", f"must be 3 to {MOST_CORNERS} corners", f"{len(corners)} of them"
            )
        polygon = tuple(self._point(one, place) for one, place in corners)
        self._check_polygon(polygon, f"{at}.polygon")
        return Zone(self._name(found, at), polygon)

    def _check_polygon(self, polygon: Tuple[Point, ...], at: str) -> None:
        twice = [point for point, count in Counter(polygon).items() if count > 1]
        if twice:
            raise self._error(at, "must have each corner once (the last joins the first by itself)", twice[0])
        if not any(turn(polygon[0], polygon[1], point) for point in polygon):
            raise self._error(at, "must be corners around an area", polygon)
        crossing = _crossing(polygon)
        if crossing is not None:
            edges = " and ".join(f"{edge} to {(edge + 1) % len(polygon)}" for edge in crossing)
            raise self._error(at, "must not cross itself", f"edges from corner {edges}")

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
        if len(found["name"]) > MOST_LETTERS or not found["name"].isprintable():
            raise self._error(
                f"{at}.name", f"must be one line of {MOST_LETTERS} letters at most", found["name"]
            )
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


def _crossing(polygon: Tuple[Point, ...]) -> Optional[Tuple[int, int]]:
    """Two edges that meet though they are no neighbours, or neighbours that lie on each other."""
    edges = list(zip(polygon, (*polygon[1:], *polygon[:1])))
    for first, (a, b) in enumerate(edges):
        for second in range(first + 1, len(edges)):
            c, d = edges[second]
            if b == c or d == a:
                shared, ends = (b, (a, d)) if b == c else (a, (b, c))
                if turn(shared, ends[0], ends[1]) == 0 and _towards(shared, *ends) > 0:
                    return first, second
            elif _touch(a, b, c, d):
                return first, second
    return None


def _touch(a: Point, b: Point, c: Point, d: Point) -> bool:
    """Whether the way from a to b has a point in common with the one from c to d."""
    sides = turn(a, b, c), turn(a, b, d), turn(c, d, a), turn(c, d, b)
    if sides == (0, 0, 0, 0):
        return all(
            max(min(a[k], b[k]), min(c[k], d[k])) <= min(max(a[k], b[k]), max(c[k], d[k])) for k in (0, 1)
        )
    return sides[0] * sides[1] <= 0 and sides[2] * sides[3] <= 0


def _towards(a: Point, b: Point, c: Point) -> float:
    """Above 0 where b and c lie on the same side of a."""
    return (b[0] - a[0]) * (c[0] - a[0]) + (b[1] - a[1]) * (c[1] - a[1])


def turn(a: Point, b: Point, c: Point) -> float:
    """Above 0 where c lies on the right of one who walks from a to b, y pointing down."""
    return (b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0])
