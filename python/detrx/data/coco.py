"""COCO annotation files, read strictly: what cannot be used is skipped and counted, or refused.

What is an error, what is skipped and what only warns follows one rule: an error where the meaning is in doubt (ids that
clash, paths that leave the folder, boxes that look normalised), a skip where one entry is useless, a warning where
something was filled in and nothing lost. More than ``max_bad`` of skipped boxes or images is an error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx.data.annotations import Boxes, Picture, is_id, read_annotations, refuse
from detrx.data.document import load_document
from detrx.data.files import FileFinder, check_name
from detrx.data.report import ReadReport, Tally
from detrx.data.segmentation import Segmentation

MANY_BOXES = 300
"""More objects in one image than the queries of a usual model: said at load."""


@dataclass(frozen=True)
class ImageRecord:
    """One picture and its annotations."""

    id: Union[int, str]
    """The data set's own id."""
    path: Path
    width: int
    """Pixels as shown, EXIF applied."""
    height: int
    boxes: NDArray[np.float32]
    """(N, 4) corners x0, y0, x1, y1 in pixels, inside the picture, at least 1 pixel wide and high."""
    labels: NDArray[np.int64]
    """(N,) index into the data set's names."""
    crowd: NDArray[np.bool_]
    """(N,) True: a region of many objects; not trained on, ignored in evaluation."""
    areas: NDArray[np.float32]
    """(N,) pixels, of the mask where the file gives one, else of the box."""
    masks: Optional[Tuple[Segmentation, ...]] = None
    """N polygons or run lengths, drawn by segmentation.make_mask; None where they were not asked for."""


@dataclass(frozen=True)
class Dataset:
    """One split, all of it usable."""

    root: Path
    split: str
    names: Tuple[str, ...]
    """Class names in the order of their ids; a label is an index into them."""
    category_ids: Tuple[int, ...]
    """The file's own id of each class."""
    images: Tuple[ImageRecord, ...]
    """In the order of the file."""
    report: ReadReport
    annotation_file: Path
    things: Tuple[bool, ...] = ()
    """Whether each class is countable, for a panoptic data set; empty for all others."""

    def __len__(self) -> int:
        return len(self.images)

    @property
    def boxes(self) -> int:
        """All boxes, crowds included."""
        return sum(len(image.labels) for image in self.images)


def read_coco(
    annotation_file: Path,
    *,
    image_root: Optional[Path],
    split: str = "",
    max_bad: float = 0.01,
    check_files: bool = True,
    masks: bool = False,
) -> Dataset:
    """Read one COCO file.

    Args:
        image_root: file names are relative to it and may not leave it; None: pictures are not looked for.
        max_bad: largest share, in [0, 1], of skipped boxes and of skipped images.
        check_files: also open each picture's header: the file's size wins over the JSON's, broken files are skipped.
        masks: keep the masks too; an object without a usable one is skipped and counted.

    Raises:
        DataError: the file or more than max_bad of its entries cannot be used.
    """
    annotation_file = Path(annotation_file)
    document = load_document(annotation_file)
    return build_dataset(
        document,
        annotation_file,
        image_root=image_root,
        split=split,
        max_bad=max_bad,
        check_files=check_files,
        masks=masks,
    )


def build_dataset(
    document: Any,
    annotation_file: Path,
    *,
    image_root: Optional[Path],
    split: str,
    max_bad: float,
    check_files: bool = True,
    masks: bool = False,
) -> Dataset:
    """read_coco for a document that is parsed already."""
    tally, where = Tally(), str(annotation_file)
    images, annotations, categories = _sections(document, where)
    if "info" not in document:
        tally.warn("the file has no info section")
    names, ids = _categories(categories, annotations, where, tally)
    pictures, known = _images(images, where, image_root, check_files, tally)
    _limit(tally.bad("image: "), len(images), max_bad, "images", where, tally)
    labels = {c: i for i, c in enumerate(ids)}
    boxes = read_annotations(annotations, pictures, known, labels, where, tally, masks=masks)
    _limit(tally.bad("box: "), len(annotations), max_bad, "boxes", where, tally)
    if not boxes.image:
        raise refuse(
            where, "at least one image must have a box", "found none", "Check the export of the labels."
        )
    records = _records(pictures, boxes, tally)
    _warn_unused(names, boxes, tally)
    root = annotation_file.parent if image_root is None else Path(image_root)
    return Dataset(root, split, names, ids, records, tally.report(), annotation_file)


def _sections(document: Any, where: str) -> Tuple[List[Any], List[Any], List[Any]]:
    if not isinstance(document, dict):
        kind = type(document).__name__
        remedy = "Detections are not ground truth: pass the instances file."
        raise refuse(where, "a COCO file must be a JSON object", f"found a {kind}", remedy)
    for key in ("images", "annotations", "categories"):
        if not isinstance(document.get(key), list):
            found = f"found {type(document[key]).__name__}" if key in document else "found none"
            remedy = "Export the data set as COCO object detection."
            raise refuse(where, f"{key!r} must be a list", found, remedy)
    return document["images"], document["annotations"], document["categories"]


def _categories(
    categories: List[Any], annotations: List[Any], where: str, tally: Tally
) -> Tuple[Tuple[str, ...], Tuple[int, ...]]:
    """Names and ids in the order of the ids."""
    found: Dict[int, Tuple[str, Any]] = {}
    for entry in categories:
        if not isinstance(entry, dict) or not isinstance(entry.get("name"), str):
            raise refuse(where, "a category must have a name", f"found {str(entry)[:80]}", "Name it.")
        key = entry.get("id")
        if not isinstance(key, int) or isinstance(key, bool):
            raise refuse(
                where, "a category id must be a whole number", f"found {key!r}", "Number the categories."
            )
        if key in found:
            raise refuse(
                where, "category ids must differ", f"found {key} twice", "Number the categories anew."
            )
        found[key] = (entry["name"], entry.get("supercategory"))
    _check_names([name for name, _ in found.values()], where)
    parent = _unused_parent(found, annotations)
    if parent is not None:
        tally.warn(f"category {found[parent][0]!r} (id {parent}) only names the group of the others: dropped")
        del found[parent]
    if not found:
        raise refuse(
            where, "there must be at least one category", "found none", "Export the classes as well."
        )
    ids = tuple(sorted(found))
    return tuple(found[key][0] for key in ids), ids


def _check_names(names: List[str], where: str) -> None:
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise refuse(
            where, "category names must differ", f"found twice: {', '.join(twice)}", "Rename or merge them."
        )


def _unused_parent(found: Dict[int, Tuple[str, Any]], annotations: List[Any]) -> Optional[int]:
    """Roboflow's extra first category: of no group itself, the group of all others, and never used."""
    if len(found) < 2:
        return None
    first = min(found)
    name, group = found[first]
    if group not in ("none", None) or any(g != name for key, (_, g) in found.items() if key != first):
        return None
    used = any(isinstance(a, dict) and a.get("category_id") == first for a in annotations)
    return None if used else first


def _images(
    images: List[Any], where: str, image_root: Optional[Path], check_files: bool, tally: Tally
) -> Tuple[List[Picture], Dict[Any, Optional[int]]]:
    """The usable pictures, and for each known id its index in them (None: skipped)."""
    _check_image_ids(images, where)
    finder = None if image_root is None else FileFinder(Path(image_root), where=where, headers=check_files)
    pictures: List[Picture] = []
    known: Dict[Any, Optional[int]] = {}
    for at, entry in enumerate(images):
        if not isinstance(entry, dict) or not is_id(entry.get("id")):
            tally.skip("image: no id", f"images[{at}]")
            continue
        known[entry["id"]] = None
        name = entry.get("file_name")
        if not isinstance(name, str) or not name:
            tally.skip("image: no file_name", f"id {entry['id']!r}")
            continue
        check_name(name, where=where)
        width, height = _side(entry.get("width")), _side(entry.get("height"))
        if finder is None:
            path = Path(name)
        else:
            looked = finder.find(name, (height, width), tally)
            if looked is None:
                continue
            path, (height, width) = looked
        if not height or not width:
            tally.skip("image: no width and height", name)
            continue
        known[entry["id"]] = len(pictures)
        pictures.append(Picture(entry["id"], path, width, height))
    if finder is not None:
        finder.check_turned(len(images))
    return pictures, known


def _check_image_ids(images: List[Any], where: str) -> None:
    seen, twice = set(), []
    for entry in images:
        key = entry.get("id") if isinstance(entry, dict) else None
        if not is_id(key):
            continue
        if key in seen:
            twice.append(repr(key))
        seen.add(key)
    if twice:
        found = f"found {len(twice)} used twice: {', '.join(twice[:20])}"
        raise refuse(where, "image ids must differ", found, "Number the images anew, with their annotations.")


def _side(value: Any) -> int:
    """A whole number of pixels, 0 where there is none."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return 0
    return int(value) if 1 <= value <= 1_000_000 else 0


def _limit(bad: int, of: int, max_bad: float, what: str, where: str, tally: Tally) -> None:
    if bad <= max_bad * of:
        return
    lines = []
    for reason, count in tally.counts.items():
        if reason.startswith({"images": "image: ", "boxes": "box: "}[what]):
            lines.append(f"\n  {count} x {reason.split(': ', 1)[1]}: {', '.join(tally.examples[reason])}")
    share = f"{100 * max_bad:g} %"
    remedy = "Correct them, or pass a larger max_bad (--max-bad) to leave them out."
    found = f"found {bad} of {of}:{''.join(lines)}\n "
    raise refuse(where, f"at most {share} of the {what} may be unusable", found, remedy)


def _records(pictures: List[Picture], boxes: Boxes, tally: Tally) -> Tuple[ImageRecord, ...]:
    """The columns cut into one piece an image, in the order of the file."""
    owner = np.array(boxes.image, np.int64)
    order = np.argsort(owner, kind="stable")
    corners = np.array(boxes.corners, np.float32).reshape(-1, 4)[order]
    labels = np.array(boxes.label, np.int64)[order]
    crowd = np.array(boxes.crowd, np.bool_)[order]
    areas = np.array(boxes.area, np.float32)[order]
    masks = None if boxes.mask is None else tuple(boxes.mask[i] for i in order.tolist())
    ends = np.searchsorted(owner[order], np.arange(len(pictures) + 1))
    records = []
    for at, p in enumerate(pictures):
        cut = slice(ends[at], ends[at + 1])
        if cut.stop - cut.start > MANY_BOXES:
            tally.warn(
                f"images hold more than {MANY_BOXES} boxes, more than most models have queries", str(p.path)
            )
        own = None if masks is None else masks[cut]
        columns = corners[cut], labels[cut], crowd[cut], areas[cut]
        records.append(ImageRecord(p.id, p.path, p.width, p.height, *columns, own))
    return tuple(records)


def _warn_unused(names: Tuple[str, ...], boxes: Boxes, tally: Tally) -> None:
    used = set(boxes.label)
    unused = [name for label, name in enumerate(names) if label not in used]
    if unused:
        tally.warn(f"{len(unused)} of {len(names)} categories have no box here: {', '.join(unused[:20])}")
