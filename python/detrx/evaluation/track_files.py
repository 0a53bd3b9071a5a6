"""Tracks in files: the JSON lines of ``detrx detect``, and MOTChallenge's text."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, Dict, Iterator, List, Tuple

import numpy as np

from detrx.errors import DataError
from detrx.evaluation.tracking import Film
from detrx.live.scenes import film_truth
from detrx.types import Detections

PERSON, DISTRACTORS = 1, (2, 7, 8, 12)
"""MOT16 to MOT20 ask for people; on vehicles, still ones, look-alikes and mirrored ones are neither right nor wrong."""
_LAYOUT = "FRAME,ID,LEFT,TOP,WIDTH,HEIGHT,SCORE,..."

_Row = Tuple[int, int, Tuple[float, float, float, float], float, int]
"""Frame from 0, number, corners, score, label."""


def read_tracks(path: str, *, truth: bool = False) -> Film:
    """Read tracks from ``.jsonl`` or MOTChallenge's ``.txt``, or make the truth of a ``test://shapes`` URI.

    Args:
        path: the file, or the URI.
        truth: of MOTChallenge's files: column 7 says what counts, and column 8 is a class (PERSON, DISTRACTORS).

    Raises:
        DataError: it cannot be read; the message names the line.
        SourceError: the URI is not one.
    """
    if path.startswith("test://"):
        return film_truth(path)
    read = {".jsonl": _json_rows, ".txt": _mot_rows}.get(Path(path).suffix.lower())
    if read is None:
        raise DataError(f"[tracks] tracks are read from .jsonl, .txt or test://shapes, got {path}")
    try:
        text = Path(path).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"[tracks] {path} cannot be read: {error}") from error
    frames: Dict[int, List[_Row]] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        try:
            for row in read(line, truth):
                frames.setdefault(row[0], []).append(row)
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise DataError(f"[tracks] {path}, line {number}: {error}; got {line[:120]!r}") from error
    return {frame: _detections(rows) for frame, rows in frames.items()}


def write_mot(film: Film) -> str:
    """MOTChallenge's text: frames from 1, ``frame, id, left, top, width, height, score, -1, -1, -1``."""
    lines = []
    for frame, found in sorted(film.items()):
        tracks = found.tracks if found.tracks is not None else np.full(len(found), -1)
        for track, (box, rating, _) in zip(tracks.tolist(), found):
            if track >= 0:
                x0, y0, x1, y1 = (float(value) for value in box)
                numbers = (x0, y0, x1 - x0, y1 - y0)
                lines.append(
                    f"{frame + 1},{track},{','.join(f'{v:.2f}' for v in numbers)},{rating:.5f},-1,-1,-1"
                )
    return "".join(line + "\n" for line in lines)


def films(truth: str, found: str) -> Iterator[Tuple[str, Film, Film]]:
    """Name, truth and tracks of each film: of two files, or of two folders as MOTChallenge has them, with
    TRUTH/NAME/gt/gt.txt and FOUND/NAME.txt (or .jsonl).

    Raises:
        DataError: a folder without films, or a film without its tracks.
    """
    if truth.startswith("test://") or not Path(truth).is_dir():
        yield Path(found).stem, read_tracks(truth, truth=True), read_tracks(found)
        return
    names = sorted(path.parts[-3] for path in Path(truth).glob("*/gt/gt.txt"))
    if not names:
        raise DataError(f"[tracks] {truth} must hold NAME/gt/gt.txt of each film, found none")
    for name in names:
        own = [path for path in (Path(found) / f"{name}{end}" for end in (".txt", ".jsonl")) if path.exists()]
        if not own:
            raise DataError(f"[tracks] {found} must hold {name}.txt or {name}.jsonl for {truth}/{name}")
        yield (
            name,
            read_tracks(str(Path(truth) / name / "gt" / "gt.txt"), truth=True),
            read_tracks(str(own[0])),
        )


def _json_rows(line: str, _: bool) -> Iterator[_Row]:
    found: Any = json.loads(line)
    for one in found["objects"]:
        if "track" in one:
            x0, y0, x1, y1 = (float(value) for value in one["box"])
            yield (
                int(found["frame"]),
                int(one["track"]),
                (x0, y0, x1, y1),
                float(one["score"]),
                int(one["label"]),
            )


def _mot_rows(line: str, truth: bool) -> Iterator[_Row]:
    values = line.split(",")
    if len(values) < 7:
        raise ValueError(f"must be {_LAYOUT}")
    left, top, width, height, rating = (float(value) for value in values[2:7])
    if width < 0 or height < 0 or int(float(values[0])) < 1:
        raise ValueError("frames are counted from 1, and no side is below 0")
    label = int(float(values[7])) if truth and len(values) > 7 else PERSON
    if truth and label in DISTRACTORS:
        rating = 0.0
    elif truth and (rating == 0 or label not in (PERSON, -1)):
        return
    corners = (left, top, left + width, top + height)
    yield int(float(values[0])) - 1, int(float(values[1])), corners, rating, 0


def _detections(rows: List[_Row]) -> Detections:
    _, tracks, boxes, scores, labels = zip(*rows)
    return Detections(
        np.array(boxes, np.float32),
        np.array(scores, np.float32),
        np.array(labels, np.int64),
        tracks=np.array(tracks, np.int64),
    )
