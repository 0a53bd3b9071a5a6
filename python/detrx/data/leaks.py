"""Pictures that two splits share: whoever is scored on what was trained on is scored too well."""

from __future__ import annotations

import hashlib
import os
from collections import defaultdict
from pathlib import Path
from typing import DefaultDict, Dict, List, Optional, Tuple

from detrx.data.coco import Dataset

TAIL = 4096
"""Last bytes of a file that are compared before all of it: the starts of files are often alike, the ends seldom."""


def leaks(train: Dataset, val: Dataset) -> Tuple[Tuple[Path, Path], ...]:
    """The pictures whose file, to the byte, is in both splits: (one in train, the one in val).

    Only files of one size are opened, and read whole only where their ends agree too, so that it costs little beside
    reading the splits. A picture that was saved again is another file and not found.
    """
    tried = {_size(record.path) for record in val.images} - {None}
    known: DefaultDict[Tuple[int, bytes], List[Path]] = defaultdict(list)
    for record in train.images:
        size = _size(record.path)
        if size is not None and size in tried:
            known[size, _digest(record.path, last=TAIL)].append(record.path)
    wholes: Dict[Path, bytes] = {}
    found = []
    for record in val.images:
        size = _size(record.path)
        alike = [] if size is None else known.get((size, _digest(record.path, last=TAIL)), [])
        first = next((path for path in alike if _same(path, record.path, wholes)), None)
        if first is not None:
            found.append((first, record.path))
    return tuple(found)


def _same(a: Path, b: Path, wholes: Dict[Path, bytes]) -> bool:
    for path in (a, b):
        if path not in wholes:
            wholes[path] = _digest(path)
    return wholes[a] == wholes[b]


def _size(path: Path) -> Optional[int]:
    """None: it is gone, which reading it will tell."""
    try:
        return path.stat().st_size
    except OSError:
        return None


def _digest(path: Path, *, last: Optional[int] = None) -> bytes:
    """Of a file's last bytes, or of all. What cannot be read is like nothing else."""
    try:
        with path.open("rb") as file:
            if last is not None:
                file.seek(-min(last, os.fstat(file.fileno()).st_size), os.SEEK_END)
            return hashlib.sha256(file.read()).digest()
    except OSError:
        return os.fsencode(path)
