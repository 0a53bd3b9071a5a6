"""How long each layer takes, out of ``trtexec --exportProfile`` or of runs here."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

from detrx.errors import EngineError
from detrx.inspect.layers import EngineLayer, plain, read_json

FITS = 0.9
"""The share of a profile's time that must be in layers of the engine."""
EXPORT = (
    "trtexec --loadEngine=ENGINE --profilingVerbosity=detailed --separateProfileRun "
    "--exportLayerInfo=layers.json --exportProfile=profile.json"
)


@dataclass(frozen=True)
class Profile:
    """The time of each layer in one run of the engine."""

    rows: Tuple[Tuple[str, float], ...]
    """Name and milliseconds, in the order in which they run."""
    runs: int
    """How many runs were measured; 0 where that is not said."""


def read_profile(path: Path) -> Profile:
    """Read what ``trtexec --exportProfile`` wrote: of each layer the median, or from older versions the mean.

    Raises:
        EngineError: it is something else.
    """
    try:
        found = read_json(path.read_text(encoding="utf-8"), what=str(path))
    except (OSError, UnicodeDecodeError) as error:
        raise EngineError(
            f"[inspect] {path} cannot be read as JSON: {error}; write it by `{EXPORT}`"
        ) from error
    rows = [row for row in found if isinstance(row, dict)] if isinstance(found, list) else []
    times = [(plain(str(row["name"])), _milliseconds(row)) for row in rows if "name" in row]
    read = [(name, ms) for name, ms in times if ms is not None]
    if not read or len(read) < len(times):
        kind = (
            "the layers of an engine" if isinstance(found, dict) and "Layers" in found else "something else"
        )
        raise EngineError(
            f"[inspect] {path} must be the times of layers, found {kind}; write it by `{EXPORT}`"
        )
    return Profile(tuple(read), next((int(row["count"]) for row in rows if "count" in row), 0))


def _milliseconds(row: Dict[str, Any]) -> Optional[float]:
    found = row.get("medianMs", row.get("averageMs"))
    return float(found) if isinstance(found, (int, float)) and found >= 0 else None


def times_of(layers: Sequence[EngineLayer], profile: Profile) -> List[float]:
    """Milliseconds of each layer; 0 of one that the profile does not name, as a copy that costs nothing.

    Raises:
        EngineError: the profile is of another engine.
    """
    waiting: Dict[str, List[float]] = {}
    for name, ms in profile.rows:
        waiting.setdefault(name, []).append(ms)
    times = [waiting[layer.name].pop(0) if waiting.get(layer.name) else 0.0 for layer in layers]
    whole = sum(ms for _, ms in profile.rows)
    if not sum(times) >= FITS * whole:
        strange = next(name for name, rest in waiting.items() if rest)
        raise EngineError(
            f"[inspect] the profile is of another engine: {sum(times) / whole:.0%} of its time is in layers that this "
            f"one has, and {strange!r} is not among them; write both in one run by `{EXPORT}`"
        )
    return times
