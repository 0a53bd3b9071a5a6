"""COCO's panoptic format: a JSON of segments, and a PNG a picture whose colours are their ids. Read strictly."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, Dict, List, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx import panoptic_ids
from detrx.data.annotations import refuse
from detrx.data.catalog import Found, choose, image_root_of
from detrx.data.coco import Dataset, ImageRecord, build_dataset
from detrx.data.document import load_document
from detrx.data.files import check_name
from detrx.data.segmentation import PngSegment, read_ids
from detrx.errors import DataError

_SEARCHED = (
    "annotations/panoptic_<split>.json or panoptic_<split>.json, with the PNGs in a folder of that name"
)


def find_panoptic(root: Path) -> List[Found]:
    """The panoptic splits below a folder, none where there are none."""
    root = Path(root)
    every = []
    for folder in (root / "annotations", root):
        for file in sorted(folder.glob("panoptic_*.json")):
            name = file.stem[len("panoptic_") :]
            every.append(Found(name, file, (root / name, root / "images" / name, root / "images", root)))
    return every


def open_panoptic(root: Path, *, split: str, max_bad: float = 0.01, check_files: bool = True) -> Dataset:
    """Read one split of a panoptic data set: every record has a box and a mask of each segment.

    Args:
        split: as "train", "val", or as the files spell it ("val2017").
        max_bad: largest share, in [0, 1], of skipped segments and of skipped images.
        check_files: also open each picture's header.

    Raises:
        DataError: no such folder or split, or the file or more than max_bad of its entries cannot be used.
    """
    root = Path(root)
    every = find_panoptic(root)
    if not every:
        raise DataError(
            f"[open_panoptic] {str(root)!r} must hold a panoptic data set, found none. Searched for {_SEARCHED}."
        )
    chosen = choose(root, every, split)
    document = load_document(chosen.annotation_file)
    return read_panoptic(
        document,
        chosen.annotation_file,
        image_root=image_root_of(chosen, document),
        segment_root=_segment_root(root, chosen.annotation_file),
        split=split,
        max_bad=max_bad,
        check_files=check_files,
    )


def _segment_root(root: Path, file: Path) -> Path:
    """Where the PNGs lie: beside the JSON or at the root, in a folder of its name."""
    places = (file.parent / file.stem, root / file.stem)
    for place in places:
        if place.is_dir():
            return place
    raise DataError(
        f"[open_panoptic] the PNGs of {file} must lie in {places[0]} or {places[1]}, found neither. Unpack them there."
    )


def read_panoptic(
    document: Any,
    annotation_file: Path,
    *,
    image_root: Path,
    segment_root: Path,
    split: str = "",
    max_bad: float = 0.01,
    check_files: bool = True,
) -> Dataset:
    """A parsed panoptic file as a data set; segments become annotations whose masks lie in the PNGs.

    Raises:
        DataError: the file or more than max_bad of its entries cannot be used.
    """
    where = str(annotation_file)
    sizes = _sizes(document, where)
    annotations: List[Dict[str, Any]] = []
    for entry in document["annotations"]:
        annotations += _segments_of(entry, sizes, Path(segment_root), where)
    found = build_dataset(
        {**document, "annotations": [{**one, "id": i + 1} for i, one in enumerate(annotations)]},
        annotation_file,
        image_root=image_root,
        split=split,
        max_bad=max_bad,
        check_files=check_files,
        masks=True,
    )
    return dataclasses.replace(found, things=_things(document["categories"], found.category_ids, where))


def _sizes(document: Any, where: str) -> Dict[Any, Tuple[int, int]]:
    """(height, width) of each image that is described well; build_dataset tells of the others."""
    lists = isinstance(document, dict) and all(
        isinstance(document.get(key), list) for key in ("images", "annotations", "categories")
    )
    if not lists:
        remedy = "Pass panoptic_<split>.json."
        raise refuse(
            where, "a panoptic file must have images, annotations and categories", "found others", remedy
        )
    return {
        image["id"]: (image["height"], image["width"])
        for image in document["images"]
        if isinstance(image, dict)
        and isinstance(image.get("id"), (int, str))
        and all(isinstance(image.get(side), int) for side in ("height", "width"))
    }


def _segments_of(
    entry: Any, sizes: Dict[Any, Tuple[int, int]], root: Path, where: str
) -> List[Dict[str, Any]]:
    """The segments of one picture as annotations with boxes."""
    segments = entry.get("segments_info") if isinstance(entry, dict) else None
    name = entry.get("file_name") if isinstance(entry, dict) else None
    if not isinstance(segments, list) or not isinstance(name, str) or not name:
        found = f"found {str(entry)[:80]}"
        raise refuse(where, "an annotation must have file_name and segments_info", found, "Export it again.")
    check_name(name, where=where)
    path = root / name
    if root.resolve() not in path.resolve().parents:
        raise refuse(
            where, "a PNG must lie in its folder", f"{name} leads out of it", "Copy files, do not link."
        )
    if not path.is_file():
        raise refuse(where, f"the PNG of each picture must lie in {root}", f"{name} is missing", "Unpack it.")
    image = entry.get("image_id")
    size = sizes.get(image, (0, 0)) if isinstance(image, (int, str)) else (0, 0)
    ids = [one.get("id") if isinstance(one, dict) else None for one in segments]
    if not all(isinstance(i, int) and 1 <= i <= panoptic_ids.MOST for i in ids) or len(set(ids)) < len(ids):
        found = f"found {str(ids)[:80]} for {name}"
        raise refuse(where, "segment ids must differ and be colours from 1 on", found, "Number them anew.")
    return [
        {**one, "image_id": image, "segmentation": PngSegment(str(path), one["id"], size)} for one in segments
    ]


def _things(categories: List[Any], ids: Tuple[int, ...], where: str) -> Tuple[bool, ...]:
    kinds = {one["id"]: one.get("isthing") for one in categories}
    if any(kinds[i] not in (0, 1) for i in ids):
        remedy = "Say of each category whether it is a thing."
        raise refuse(where, "isthing must be 0 or 1 in every category", "found others", remedy)
    return tuple(bool(kinds[i]) for i in ids)


def segments_of(record: ImageRecord) -> Tuple[NDArray[np.int32], Tuple[int, ...]]:
    """The (H, W) segment ids of a picture, and the id of each of its annotations; 0 is nobody's.

    Raises:
        DataError: the PNG has a segment that the JSON has not, or lacks one.
    """
    masks = [mask for mask in record.masks or () if isinstance(mask, PngSegment)]
    if not masks:
        return np.zeros((record.height, record.width), np.int32), ()
    ids = read_ids(masks[0].path, size=masks[0].size)
    wanted, found = {mask.id for mask in masks}, set(np.unique(ids).tolist()) - {0}
    if wanted != found:
        raise DataError(
            f"[read_panoptic] {masks[0].path} must have the segments of the JSON; only in the PNG: "
            f"{sorted(found - wanted)[:5]}, only in the JSON: {sorted(wanted - found)[:5]}. Replace one of them."
        )
    return ids, tuple(mask.id for mask in masks)
