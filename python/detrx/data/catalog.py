"""Find the splits of a COCO data set by its layout: the original, Roboflow's, or coco_<split>.json at the root."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Optional, Tuple

from detrx.data.coco import Dataset, build_dataset
from detrx.data.document import load_document
from detrx.data.files import check_name
from detrx.errors import DataError

_ALIASES = {"valid": "val", "validation": "val", "training": "train", "testing": "test"}
_SEARCHED = (
    "annotations/instances_<split>*.json (COCO)",
    "<split>/_annotations.coco.json (Roboflow)",
    "coco_<split>.json",
    "instances_<split>.json",
)
_ORDER = ("train", "val", "test")


@dataclass(frozen=True)
class Found:
    """One split on disk."""

    split: str
    """As the files spell it, as "valid" or "train2017"."""
    annotation_file: Path
    image_roots: Tuple[Path, ...]
    """Where its pictures may lie, likeliest first."""

    @property
    def plain(self) -> str:
        """train, val or test where it is one of them."""
        bare = re.sub(r"[-_]?(19|20)\d\d$", "", self.split) or self.split
        return _ALIASES.get(bare, bare)


def splits(root: Path) -> Tuple[str, ...]:
    """The splits of a data set, train, val and test first.

    Raises:
        DataError: the folder is missing or holds no COCO data set.
    """
    names = {found.plain for found in find(root)}
    return tuple(n for n in _ORDER if n in names) + tuple(sorted(names - set(_ORDER)))


def open_dataset(
    root: Path, *, split: str, max_bad: float = 0.01, check_files: bool = True, masks: bool = False
) -> Dataset:
    """Read one split of a data set folder.

    Args:
        split: as "train", "val" (or "valid"), "test", or as the files spell it ("train2017").
        max_bad: largest share, in [0, 1], of skipped boxes and of skipped images.
        check_files: also open each picture's header: the file's size wins over the JSON's, broken files are skipped.
        masks: keep the masks too; an object without a usable one is skipped and counted.

    Raises:
        DataError: no such folder or split, two files for the split, or read_coco's reasons.
    """
    chosen = choose(Path(root), find(root), split)
    document = load_document(chosen.annotation_file)
    return build_dataset(
        document,
        chosen.annotation_file,
        image_root=image_root_of(chosen, document),
        split=split,
        max_bad=max_bad,
        check_files=check_files,
        masks=masks,
    )


def find(root: Path) -> List[Found]:
    """Every split below a folder.

    Raises:
        DataError: the folder is missing or holds no COCO data set.
    """
    root = Path(root)
    if not root.is_dir():
        found = "a file" if root.exists() else "nothing"
        raise DataError(f"[open_dataset] {str(root)!r} must be a folder, found {found}. Check the path.")
    every = _original(root) + _roboflow(root) + _at_root(root)
    if not every:
        inside = ", ".join(sorted(p.name for p in root.iterdir())[:10]) or "nothing"
        raise DataError(
            f"[open_dataset] {str(root)!r} must hold a COCO data set, found {inside}. "
            f"Searched for {'; '.join(_SEARCHED)}. Lay the files out as one of these."
        )
    return every


def _original(root: Path) -> List[Found]:
    every = []
    for file in sorted((root / "annotations").glob("instances_*.json")):
        name = file.stem[len("instances_") :]
        every.append(Found(name, file, (root / name, root / "images" / name, root / "images", root)))
    return every


def _roboflow(root: Path) -> List[Found]:
    files = sorted(root.glob("*/_annotations.coco.json"))
    return [Found(file.parent.name, file, (file.parent,)) for file in files]


def _at_root(root: Path) -> List[Found]:
    every = []
    for start in ("coco_", "instances_"):
        for file in sorted(root.glob(start + "*.json")):
            name = file.stem[len(start) :]
            every.append(Found(name, file, (root, root / "images", root / name, root / "images" / name)))
    return every


def choose(root: Path, every: List[Found], split: str) -> Found:
    """The one split of that name.

    Raises:
        DataError: there is none, or several.
    """
    exact = [found for found in every if found.split == split]
    wanted = exact or [found for found in every if found.plain == _ALIASES.get(split, split)]
    if not wanted:
        have = ", ".join(sorted({found.plain for found in every}))
        raise DataError(
            f"[open_dataset] {str(root)!r} has no split {split!r}, found {have}. Pass one of these."
        )
    if len(wanted) > 1:
        files = ", ".join(str(found.annotation_file) for found in wanted)
        raise DataError(
            f"[open_dataset] split {split!r} of {str(root)!r} is ambiguous, found {files}. "
            "Pass the split as the file spells it, or move one of them away."
        )
    return wanted[0]


def image_root_of(chosen: Found, document: Any) -> Path:
    """The first candidate that holds one of the first images; the likeliest where none does."""
    names = _first_names(document, str(chosen.annotation_file))
    for root in chosen.image_roots:
        if any((root / name).exists() for name in names):
            return root
    return next((root for root in chosen.image_roots if root.is_dir()), chosen.image_roots[0])


def _first_names(document: Any, where: str) -> List[str]:
    images: Optional[Any] = document.get("images") if isinstance(document, dict) else None
    if not isinstance(images, list):
        return []
    names = [entry.get("file_name") for entry in images[:20] if isinstance(entry, dict)]
    safe = [name for name in names if isinstance(name, str) and name]
    for name in safe:
        check_name(name, where=where)
    return safe
