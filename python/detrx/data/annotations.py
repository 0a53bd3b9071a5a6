"""The annotations of a COCO file as columns: each is checked, clipped to its picture, or skipped and counted."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from detrx.data.report import Tally
from detrx.data.segmentation import Segmentation, read_segmentation
from detrx.errors import DataError

_LARGEST = 1e7
"""Pixels; a coordinate beyond is a mistake."""


@dataclass
class Picture:
    """An image entry on its way to an ImageRecord."""

    id: Union[int, str]
    path: Path
    width: int
    height: int


@dataclass
class Boxes:
    """The usable annotations as columns."""

    image: List[int]
    corners: List[Tuple[float, float, float, float]]
    label: List[int]
    crowd: List[bool]
    area: List[float]
    mask: Optional[List[Segmentation]] = None
    """None where masks are not asked for."""


def refuse(where: str, must: str, found: str, remedy: str) -> DataError:
    return DataError(f"[read_coco] {where}: {must}, {found}. {remedy}")


def is_id(value: Any) -> bool:
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def read_annotations(
    annotations: List[Any],
    pictures: List[Picture],
    known: Dict[Any, Optional[int]],
    labels: Dict[int, int],
    where: str,
    tally: Tally,
    *,
    masks: bool = False,
) -> Boxes:
    """The usable ones; with ``masks`` only those with a usable mask."""
    boxes = Boxes([], [], [], [], [], [] if masks else None)
    largest, seen = 0.0, set()
    for at, entry in enumerate(annotations):
        if not isinstance(entry, dict):
            tally.skip("box: not an object", f"annotations[{at}]")
            continue
        if "segments_info" in entry:
            remedy = "Pass the instances file."
            raise refuse(where, "annotations must be boxes", "found panoptic segments", remedy)
        key = entry.get("id")
        name = f"annotation {key!r}" if key is not None else f"annotations[{at}]"
        seen.add(key if isinstance(key, (int, str)) else None)
        corners = _corners(entry, name, tally)
        if corners is not None:
            largest = max(largest, corners[2], corners[3])
            _add(boxes, entry, name, corners, pictures, known, labels, tally)
    if 0 < largest <= 1.5:
        remedy = "Multiply them by the width and height of each image."
        raise refuse(where, "boxes must be in pixels", "all are <= 1.5: they look normalised", remedy)
    if len(seen) < len(annotations) or 0 in seen or any(isinstance(key, str) for key in seen):
        tally.warn("annotation ids are missing, 0, text or used twice: numbered anew")
    return boxes


def _corners(entry: Dict[str, Any], name: str, tally: Tally) -> Optional[Tuple[float, float, float, float]]:
    """x0, y0, x1, y1 as the file says, or None where it says nothing usable."""
    box = entry.get("bbox")
    if not isinstance(box, (list, tuple)) or not box:
        reason = "box: a segmentation alone" if entry.get("segmentation") else "box: no bbox"
        tally.skip(reason, name)
        return None
    numbers = len(box) == 4 and all(isinstance(v, (int, float)) and not isinstance(v, bool) for v in box)
    if not numbers or not all(-_LARGEST < v < _LARGEST for v in box):
        tally.skip("box: not four finite numbers of pixels", f"{name} {str(box)[:60]}")
        return None
    x, y, w, h = box
    if w <= 0 or h <= 0:
        tally.skip("box: no area (width or height <= 0)", f"{name} {box}")
        return None
    return float(x), float(y), float(x) + float(w), float(y) + float(h)


def _add(
    boxes: Boxes,
    entry: Dict[str, Any],
    name: str,
    corners: Tuple[float, float, float, float],
    pictures: List[Picture],
    known: Dict[Any, Optional[int]],
    labels: Dict[int, int],
    tally: Tally,
) -> None:
    """One annotation, clipped to its picture, or the reason why not."""
    image, category = entry.get("image_id"), entry.get("category_id")
    if not is_id(image) or image not in known:
        return tally.skip("box: unknown image_id", f"{name} image_id {image!r}")
    if not isinstance(category, int) or isinstance(category, bool) or category not in labels:
        return tally.skip("box: unknown category_id", f"{name} category_id {category!r}")
    at = known[image]
    if at is None:
        return None  # its picture was skipped and counted
    if _has_short_polygon(entry.get("segmentation")):
        return tally.skip("box: a polygon of fewer than 3 points", name)
    picture = pictures[at]
    x0, y0, x1, y1 = corners
    inside = (max(x0, 0.0), max(y0, 0.0), min(x1, float(picture.width)), min(y1, float(picture.height)))
    if inside[2] <= inside[0] or inside[3] <= inside[1]:
        return tally.skip("box: outside its image", f"{name} {entry['bbox']}")
    if inside[2] - inside[0] < 1 or inside[3] - inside[1] < 1:
        return tally.skip("box: less than a pixel wide or high", f"{name} {entry['bbox']}")
    if boxes.mask is not None:
        try:
            size = (picture.height, picture.width)
            boxes.mask.append(read_segmentation(entry.get("segmentation"), size=size))
        except ValueError as error:
            return tally.skip(f"box: {error}", name)
    if min(x0, y0) < -1 or x1 > picture.width + 1 or y1 > picture.height + 1:
        tally.warn("boxes reach out of their image: clipped", f"{name} {entry['bbox']}")
    boxes.image.append(at)
    boxes.corners.append(inside)
    boxes.label.append(labels[category])
    boxes.crowd.append(_crowd(entry, name, tally))
    boxes.area.append(_area(entry, name, corners, tally))
    return None


def _has_short_polygon(segmentation: Any) -> bool:
    return isinstance(segmentation, list) and any(isinstance(p, list) and len(p) < 6 for p in segmentation)


def _crowd(entry: Dict[str, Any], name: str, tally: Tally) -> bool:
    value = entry.get("iscrowd")
    if value not in (0, 1):
        tally.warn("iscrowd is missing or neither 0 nor 1: taken as 0", name)
        return False
    return bool(value)


def _area(
    entry: Dict[str, Any], name: str, corners: Tuple[float, float, float, float], tally: Tally
) -> float:
    value = entry.get("area")
    if isinstance(value, (int, float)) and not isinstance(value, bool) and 0 < value < _LARGEST * _LARGEST:
        return float(value)
    tally.warn("area is missing or not a positive number: width x height of the box taken", name)
    return (corners[2] - corners[0]) * (corners[3] - corners[1])
