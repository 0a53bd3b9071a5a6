"""Look a data set over before training on it: what is broken, how classes and sizes are spread, what leaks.

The findings are those of the reader itself, with every picture decoded and hashed on top.
"""

from __future__ import annotations

import hashlib
import json
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.data.catalog import open_dataset, splits
from detrx.data.coco import Dataset, ImageRecord
from detrx.errors import DataError
from detrx.images import read_header, read_image

SIZE_EDGES = (0, 4, 8, 16, 32, 64, 96, 128, 192, 256, 384, 512)
"""Pixels, square root of the box's area: the lower edges of the histogram, the last one open."""
_SUFFIXES = {
    "jpeg": (".jpg", ".jpeg", ".jpe"),
    "png": (".png",),
    "bmp": (".bmp",),
    "webp": (".webp",),
    "gif": (".gif",),
    "tiff": (".tif", ".tiff"),
}


@dataclass(frozen=True)
class SplitCheck:
    """What was found in one split."""

    split: str
    annotation_file: str
    images: int = 0
    boxes: int = 0
    negatives: int = 0
    """Images without a box."""
    crowds: int = 0
    classes: Dict[str, int] = field(default_factory=dict)
    """Boxes of each class."""
    sizes: Tuple[int, ...] = ()
    """Boxes in each bin of SIZE_EDGES."""
    skipped: Dict[str, int] = field(default_factory=dict)
    examples: Dict[str, Tuple[str, ...]] = field(default_factory=dict)
    warnings: Tuple[str, ...] = ()
    broken: Tuple[str, ...] = ()
    """Pictures whose header is sound and whose pixels cannot be decoded."""
    error: str = ""
    """Why the split cannot be used at all."""


@dataclass(frozen=True)
class CheckResult:
    """What was found in a data set."""

    root: str
    splits: Tuple[SplitCheck, ...]
    leaks: Tuple[str, ...] = ()
    """Pictures whose file is the same in two splits, or twice in one."""

    @property
    def sound(self) -> bool:
        """Whether every split can be trained on. Warnings and leaks do not count against it."""
        return not any(s.error or s.broken for s in self.splits)

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "sound": self.sound, "size_edges": SIZE_EDGES}, indent=1)


def check(
    root: Path, *, out: Optional[Path] = None, max_bad: float = 0.01, decode: bool = True
) -> CheckResult:
    """Check every split of a data set.

    Args:
        out: a folder to write report.json and report.html to; None: write nothing.
        max_bad: largest share, in [0, 1], of skipped boxes and of skipped images.
        decode: also decode every picture, which finds what headers hide.

    Raises:
        DataError: the folder holds no data set, or the report cannot be written.
    """
    root = Path(root)
    found: List[SplitCheck] = []
    datasets: List[Dataset] = []
    seen: Dict[str, str] = {}
    leaks: List[str] = []
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for split in splits(root):
            try:
                dataset = open_dataset(root, split=split, max_bad=max_bad)
            except DataError as error:
                found.append(SplitCheck(split, "", error=str(error)))
                continue
            datasets.append(dataset)
            looked = list(pool.map(lambda record: _look(record, decode=decode), dataset.images))
            found.append(_summary(dataset, looked))
            leaks += _leaks(dataset, looked, seen)
    result = CheckResult(str(root), tuple(found), tuple(leaks))
    if out is not None:
        _write(result, datasets, Path(out))
    return result


@dataclass(frozen=True)
class _Look:
    """One picture, opened."""

    digest: str
    problem: str = ""
    warning: str = ""


def _look(record: ImageRecord, *, decode: bool) -> _Look:
    try:
        kind = read_header(record.path).kind
        digest = hashlib.sha256(record.path.read_bytes()).hexdigest()
        if decode:
            read_image(record.path)
    except (DataError, OSError) as error:
        return _Look("", problem=str(error))
    if record.path.suffix.lower() not in _SUFFIXES[kind]:
        return _Look(digest, warning=f"{record.path.name} is a {kind.upper()} by another name")
    return _Look(digest)


def _summary(dataset: Dataset, looked: List[_Look]) -> SplitCheck:
    labels = _joined([image.labels for image in dataset.images]).astype(np.int64)
    boxes = np.concatenate([image.boxes for image in dataset.images])
    sides = np.sqrt((boxes[:, 2:] - boxes[:, :2]).prod(1))
    counts = np.bincount(labels, minlength=len(dataset.names))
    misnamed = [look.warning for look in looked if look.warning]
    warnings = dataset.report.warnings
    if misnamed:
        warnings = (*warnings, f"{len(misnamed)} files have another suffix than format, first: {misnamed[0]}")
    return SplitCheck(
        split=dataset.split,
        annotation_file=str(dataset.annotation_file),
        images=len(dataset),
        boxes=dataset.boxes,
        negatives=sum(not len(image.labels) for image in dataset.images),
        crowds=int(_joined([image.crowd for image in dataset.images]).sum()),
        classes={name: int(count) for name, count in zip(dataset.names, counts)},
        sizes=tuple(int(n) for n in np.histogram(sides, bins=(*SIZE_EDGES, np.inf))[0]),
        skipped=dataset.report.counts,
        examples=dataset.report.examples,
        warnings=warnings,
        broken=tuple(look.problem for look in looked if look.problem),
    )


def _joined(arrays: List[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(arrays) if arrays else np.zeros(0)


def _leaks(dataset: Dataset, looked: List[_Look], seen: Dict[str, str]) -> List[str]:
    """Pictures whose bytes were seen before; remembers those of this split."""
    leaks = []
    for record, look in zip(dataset.images, looked):
        if not look.digest:
            continue
        name = f"{dataset.split}: {record.path.name}"
        if look.digest in seen:
            leaks.append(f"{seen[look.digest]} = {name}")
        else:
            seen[look.digest] = name
    return leaks


def _write(result: CheckResult, datasets: List[Dataset], out: Path) -> None:
    from detrx.data.check_page import page

    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "report.json").write_text(result.to_json(), encoding="utf-8")
        (out / "report.html").write_text(page(result, datasets), encoding="utf-8")
    except OSError as error:
        raise DataError(
            f"[check] {str(out)!r} must be writable, found {error}. Pass another --out."
        ) from error
