"""What ran on the GPU, kernel by kernel: out of Nsight Systems, or of CUPTI's records in Chrome's format."""

from __future__ import annotations

import csv
import json
import sqlite3
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, Iterable, List, Mapping, Tuple

from detrx.errors import EngineError
from detrx.inspect.tactics import Cores, cores_of

HOW = (
    "nsys profile --trace=cuda --cuda-graph-trace=node --output=run trtexec --loadEngine=ENGINE; "
    "nsys export --type=sqlite --output=run.sqlite run.nsys-rep"
)
_QUERY = """
    SELECT names.value, COUNT(*), SUM(kernels."end" - kernels.start)
    FROM CUPTI_ACTIVITY_KIND_KERNEL AS kernels JOIN StringIds AS names ON names.id = kernels.demangledName
    GROUP BY names.value
"""


@dataclass(frozen=True)
class Kernel:
    """All calls of one kernel."""

    name: str
    calls: int
    ms: float
    """Milliseconds of all calls together."""
    cores: Cores


def read_kernels(path: Path) -> Tuple[Kernel, ...]:
    """Read a trace, the kernels with the most time first.

    Args:
        path: a database of ``nsys export --type=sqlite``, a table of ``nsys stats --format csv`` or ``json``
            (cuda_gpu_kern_sum or cuda_gpu_trace), or a trace in Chrome's format, as Kineto writes from CUPTI.

    Raises:
        EngineError: it is something else, or holds no kernel.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise EngineError(f"[inspect] {path} cannot be read: {error}; write a trace by `{HOW}`") from error
    try:
        rows = list(_rows(path, content))
    except (sqlite3.Error, csv.Error, AttributeError, KeyError, TypeError, ValueError) as error:
        raise EngineError(
            f"[inspect] {path} is no trace of kernels that can be read ({type(error).__name__}: {error}); "
            f"write one by `{HOW}`"
        ) from error
    found: Dict[str, Tuple[int, float]] = {}
    for name, calls, ms in rows:
        if name.startswith("[CUDA"):  # copies, which nsys lists among kernels
            continue
        before = found.get(name, (0, 0.0))
        found[name] = (before[0] + calls, before[1] + ms)
    if not found:
        raise EngineError(f"[inspect] {path} holds no kernel; write a trace by `{HOW}`")
    kernels = [Kernel(name, calls, ms, cores_of(name)) for name, (calls, ms) in found.items()]
    return tuple(sorted(kernels, key=lambda kernel: -kernel.ms))


def _rows(path: Path, content: bytes) -> Iterable[Tuple[str, int, float]]:
    if content.startswith(b"SQLite format 3\0"):
        return _of_database(path)
    text = content.decode("utf-8-sig")
    if text.lstrip()[:1] in ("{", "["):
        return _of_json(json.loads(text))
    lines = text.splitlines()
    heads = [i for i, line in enumerate(lines) if "Name" in line and "(ns)" in line]
    if not heads:
        raise ValueError("neither SQLite nor JSON nor a table of nsys stats")
    return [_of_statistics(row) for row in csv.DictReader(lines[heads[0] :]) if row.get("Name")]


def _of_database(path: Path) -> List[Tuple[str, int, float]]:
    with closing(sqlite3.connect(f"{path.resolve().as_uri()}?mode=ro", uri=True)) as database:
        return [(name, calls, ns / 1e6) for name, calls, ns in database.execute(_QUERY)]


def _of_json(found: Any) -> List[Tuple[str, int, float]]:
    if isinstance(found, dict):
        found = found["traceEvents"]
    if any("ph" in row for row in found):
        kernels = [row for row in found if row.get("cat") in ("kernel", "Kernel") and "dur" in row]
        return [(str(row["name"]), 1, float(row["dur"]) / 1e3) for row in kernels]
    return [_of_statistics(row) for row in found]


def _of_statistics(row: Mapping[str, Any]) -> Tuple[str, int, float]:
    """A row of a report of nsys stats: a sum over calls, or of a single one."""
    if "Instances" in row:
        return str(row["Name"]), int(row["Instances"]), float(row["Total Time (ns)"]) / 1e6
    return str(row["Name"]), 1, float(row["Duration (ns)"]) / 1e6
