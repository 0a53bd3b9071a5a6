"""zones.json says where it is wrong, and survives being written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from detrx.errors import ConfigError
from detrx.live.zone_plan import Line, Zone, ZonePlan, parse_zones, read_zones, write_zones

SQUARE = Zone("yard", ((0.5, 0.0), (1.0, 0.0), (1.0, 1.0), (0.5, 1.0)))
GATE = Line("gate", (0.5, 0.25), (0.5, 0.75))


def test_a_plan_survives_json(tmp_path: Path) -> None:
    plan = ZonePlan((SQUARE,), (GATE,), anchor="centre")
    write_zones(tmp_path / "new" / "zones.json", plan)
    assert read_zones(tmp_path / "new" / "zones.json") == plan
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["zones.json"]
    assert parse_zones(ZonePlan().to_json(), empty=True) == ZonePlan()
    assert read_zones(tmp_path / "none.json", empty=True) == ZonePlan()


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"coordinates": "feet"}, "shares or pixels, got 'feet'"),
        ({"anchor": "top"}, "bottom or centre"),
        ({"zone": []}, "may have anchor, zones, lines"),
        ({"zones": {}}, "zones must be a list"),
        ({"zones": [], "lines": []}, "at least one"),
        ({"zones": [{"name": "a", "polygon": [[0, 0], [1, 0]]}]}, "must be 3 to 200 corners, got '2 of them'"),
        ({"zones": [{"name": "a", "polygon": [[0, 0], [1, 1], [1, 0], [0, 1]]}]}, "corner 0 to 1 and 2 to 3"),
        ({"zones": [{"name": "a", "polygon": [[0, 0], [1, 0], [0.5, 0], [0.5, 1]]}]}, "0 to 1 and 1 to 2"),
        ({"zones": [{"name": "a", "polygon": [[0, 0], [1, 0], [1, 1], [0.5, 0], [0, 1]]}]}, "0 to 1 and 2 to 3"),
        ({"zones": [{"name": "a", "polygon": [[0, 0], [1, 0], [1, 1], [0, 0]]}]}, r"each corner once .*\(0.0, 0.0\)"),
        ({"zones": [{"name": "a", "polygon": [[0, 0], [1.2, 0], [1, 1]]}]}, r"polygon\[1\] must be \[x, y\] in shares"),
        ({"zones": [{"name": "a" * 81, "polygon": [[0, 0], [1, 0], [1, 1]]}]}, "80 letters at most"),
        ({"zones": [{"name": "a\nb", "polygon": [[0, 0], [1, 0], [1, 1]]}]}, "one line of 80 letters"),
        ({"lines": [{"name": str(n), "start": [0, 0], "end": [1, 1]} for n in range(101)]}, "100 at most, got 102"),
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
    with pytest.raises(ConfigError, match="each key once, got 'zones' 2 times"):
        parse_zones('{"coordinates": "shares", "zones": [], "zones": []}')
    with pytest.raises(ConfigError, match="is not JSON"):
        parse_zones("[" * 100_000)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_zones(tmp_path / "none.json")


def test_a_star_and_a_comb_do_not_cross_themselves() -> None:
    star = [[0.5, 0], [0.6, 0.4], [1, 0.5], [0.6, 0.6], [0.5, 1], [0.4, 0.6], [0, 0.5], [0.4, 0.4]]
    comb = [[0, 0], [1, 0], [1, 1], [0.8, 0.2], [0.6, 1], [0.4, 0.2], [0.2, 1]]
    straight = [[0, 0], [0.5, 0], [1, 0], [1, 1]]
    zones = [{"name": str(at), "polygon": one} for at, one in enumerate((star, comb, straight))]
    assert len(parse_zones(json.dumps({"coordinates": "shares", "zones": zones})).zones) == 3
