"""log.csv and log.jsonl of a run: only ever appended to, also by a run that is resumed."""

from __future__ import annotations

import csv
import io
import json
import time
import warnings
from typing import Any

from detrx.train.folder import RunFolder

CSV, JSONL = "log.csv", "log.jsonl"
COLUMNS = (
    "row",
    "resumes",
    "event",
    "seconds",
    "epoch",
    "step",
    "progress",
    "lr",
    "loss",
    "map",
    "ap50",
    "pictures_per_second",
    "memory_mb",
    "skipped",
)
"""What log.csv holds; log.jsonl has every loss term and every metric besides."""


class Log:
    """Writes a row at a time. A log that cannot be written costs a warning, not the run."""

    def __init__(self, folder: RunFolder, *, rows: int = 0, resumes: int = 0) -> None:
        self._folder = folder
        self.rows = rows
        self._resumes = resumes
        self._warned = False

    def write(self, event: str, values: dict[str, Any]) -> None:
        """Append one row: event is "step", "evaluation" or a word of its own."""
        row = {"row": self.rows, "resumes": self._resumes, "event": event, **values}
        self.rows += 1
        try:
            self._append(CSV, _csv_line(row), head=",".join(COLUMNS) + "\n")
            self._append(JSONL, json.dumps({**row, "time": round(time.time(), 3)}) + "\n")
        except OSError as error:
            if not self._warned:
                warnings.warn(
                    f"[train] the log cannot be written ({error}); training goes on without", stacklevel=2
                )
            self._warned = True

    def _append(self, name: str, line: str, *, head: str = "") -> None:
        with self._folder.file(name).open("a", encoding="utf-8", newline="") as file:
            file.write(head + line if file.tell() == 0 else line)


def _csv_line(row: dict[str, Any]) -> str:
    out = io.StringIO()
    csv.DictWriter(out, COLUMNS, extrasaction="ignore", restval="", lineterminator="\n").writerow(row)
    return out.getvalue()


def read_rows(folder: RunFolder) -> list[dict[str, Any]]:
    """The rows of log.jsonl; where a run was resumed, the last one wins for each row number."""
    rows: dict[int, dict[str, Any]] = {}
    try:
        lines = folder.file(JSONL).read_text(encoding="utf-8").splitlines()
    except OSError:
        return []
    for row in map(_row, lines):
        if row is not None:
            rows[int(row["row"])] = row
    return [rows[number] for number in sorted(rows)]


def _row(line: str) -> dict[str, Any] | None:
    """A line of log.jsonl, or None for one that a kill cut short."""
    try:
        row = json.loads(line)
    except ValueError:
        return None
    return row if isinstance(row, dict) and "row" in row else None
