"""What a page may do to the zones of a running loop: change all of them at once, which is written down first."""

from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path
from typing import Any, Dict

from detrx.errors import ConfigError
from detrx.live.zone_plan import parse_zones, write_zones
from detrx.live.zones import Zones


class StaleZonesError(ConfigError):
    """Somebody else changed the zones since they were looked at."""


class ZoneEditor:
    """The zones of a loop and the file that they are kept in. Any thread may ask and change."""

    def __init__(self, zones: Zones, path: Path) -> None:
        self._zones, self._path = zones, path
        self._lock = threading.Lock()

    def drawn(self) -> Dict[str, Any]:
        """The zones with their counts, a ``revision`` to change them by, and the name of their file."""
        found = self._zones.drawn()
        plan = {key: value for key, value in found.items() if key != "counts"}
        revision = hashlib.sha256(json.dumps(plan, sort_keys=True).encode()).hexdigest()[:16]
        return {**found, "revision": revision, "file": self._path.name}

    def edit(self, wanted: object) -> Dict[str, Any]:
        """Put other zones in the place of all that there are, in the file and in the loop.

        Args:
            wanted: ``{"revision": of what is changed, "plan": what zones.json says}``; no zones at all are fine.

        Returns:
            As ``drawn``.

        Raises:
            StaleZonesError: the revision is not the present one.
            ConfigError: the plan is wrong; nothing was changed.
            OSError: the file cannot be written; nothing was changed.
        """
        if not isinstance(wanted, dict) or set(wanted) != {"revision", "plan"}:
            raise ConfigError("[zones] a change is an object with revision and plan")
        plan = parse_zones(json.dumps(wanted["plan"]), where="the change", empty=True)
        with self._lock:
            if wanted["revision"] != self.drawn()["revision"]:
                raise StaleZonesError("[zones] somebody else changed the zones; look again")
            if self._zones.size is not None:
                plan.check_size(*self._zones.size)
            write_zones(self._path, plan)
            self._zones.change(plan)
            return self.drawn()
