"""Ground truth and detections as the COCO library reads them, checked.

The library is given ids of our own (1, 2, 3, ...), because an annotation with id 0 counts as unmatched and
duplicate ids hide each other (measured: AP 1.000 becomes 0.500), and it sees nothing that is not finite,
because it answers such input with a wrong number or an unrelated error.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Dict, Iterable, List, Mapping, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx import rle
from detrx.data.segmentation import as_json
from detrx.errors import DataError
from detrx.types import Detections

if TYPE_CHECKING:
    from detrx.data.coco import Dataset

Id = Union[int, str]
Json = Dict[str, Any]


@dataclass(frozen=True)
class Prediction:
    """What a model found in one image of a data set."""

    image_id: Id
    """The image's id in the data set."""
    detections: Detections
    """Boxes in pixels of the image; its masks are not looked at."""
    masks: Optional[Sequence[Mapping[str, Any]]] = None
    """The masks of the first of them as COCO's packed run lengths, a thousandth of the size of the masks."""


@dataclass(frozen=True)
class Truth:
    """The ground truth under ids of our own, with the way from the data set's ids to them."""

    images: Dict[Any, int]
    classes: Dict[Any, int]
    """Category id -> 1, 2, 3, ..."""
    names: Tuple[str, ...]
    """In the order of the numbers in classes."""
    dataset: Json
    """What the library reads."""


# --- the truth


def _numbered(what: str, ids: Sequence[Any]) -> Dict[Any, int]:
    """Give ids 1, 2, 3, ... in their own order if they have one: it breaks ties in score."""
    try:
        repeated = [i for i, times in _count(ids).items() if times > 1]
    except TypeError as error:
        raise DataError(f"[score] {what} ids must be numbers or strings: {error}") from error
    if repeated:
        raise DataError(f"[score] {what} ids must differ, found more than once: {_some(repeated)}")
    ordered = sorted(ids) if all(isinstance(i, int) for i in ids) else ids
    return {found: n for n, found in enumerate(ordered, start=1)}


def _count(ids: Sequence[Any]) -> Dict[Any, int]:
    times: Dict[Any, int] = {}
    for i in ids:
        times[i] = times.get(i, 0) + 1
    return times


def _some(values: Sequence[Any], limit: int = 5) -> str:
    shown = ", ".join(repr(v) for v in values[:limit])
    return shown if len(values) <= limit else f"{shown} and {len(values) - limit} more"


def _listed(truth: Mapping[str, Any], key: str) -> List[Json]:
    found = truth.get(key)
    if not isinstance(found, list) or not all(isinstance(item, dict) for item in found):
        raise DataError(f"[score] the ground truth must hold a list of objects under {key!r}")
    if key != "annotations" and any("id" not in item for item in found):
        raise DataError(f"[score] each of {key!r} must have an id")
    return found


def read_truth(truth: Mapping[str, Any], iou_type: str) -> Truth:
    """Read the content of a COCO annotation file."""
    pictures, categories = _listed(truth, "images"), _listed(truth, "categories")
    images = _numbered("image", [i["id"] for i in pictures])
    classes = _numbered("category", [c["id"] for c in categories])
    by_id = {c["id"]: str(c.get("name", c["id"])) for c in categories}
    names = _distinct([by_id[i] for i in classes], list(classes))
    sizes = [
        {"id": images[i["id"]], "height": i.get("height", 0), "width": i.get("width", 0)} for i in pictures
    ]
    annotations = [
        _annotation(found, n, images, classes, iou_type)
        for n, found in enumerate(_listed(truth, "annotations"), start=1)
    ]
    return Truth(images, classes, names, _library_json(sizes, annotations, len(classes)))


def _distinct(names: List[str], ids: List[Any]) -> Tuple[str, ...]:
    times = _count(names)
    return tuple(n if times[n] == 1 else f"{n} ({i})" for n, i in zip(names, ids))


def _library_json(images: List[Json], annotations: List[Json], classes: int) -> Json:
    categories = [{"id": n, "name": str(n)} for n in range(1, classes + 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _annotation(
    found: Json, number: int, images: Dict[Any, int], classes: Dict[Any, int], iou_type: str
) -> Json:
    where = f"annotation {found.get('id', f'number {number}')!r} of the ground truth"
    out = _placed(found, where, images, classes)
    crowd = found.get("iscrowd") or 0
    out.update(id=number, iscrowd=int(crowd))
    if iou_type == "segm":
        out["segmentation"] = _segmentation(found, where)
    else:
        out["bbox"] = _xywh(found, where)
    area = found.get("area")
    if area is None and iou_type == "segm":
        raise DataError(f"[score] {where} must have an area: masks are sorted into sizes by it")
    out["area"] = out["bbox"][2] * out["bbox"][3] if area is None else _finite(area, f"area of {where}")
    return out


def _placed(found: Mapping[str, Any], where: str, images: Dict[Any, int], classes: Dict[Any, int]) -> Json:
    """The image and the class of an annotation or result, under ids of our own."""
    out: Json = {}
    for key, known in (("image_id", images), ("category_id", classes)):
        value = found.get(key)
        if not isinstance(value, (int, str, np.integer)) or value not in known:
            raise DataError(
                f"[score] {where} has {key} {value!r}, which is not in the ground truth. "
                "Score with the annotation file that the results belong to."
            )
        out[key] = known[value]
    return out


def _finite(value: Any, where: str) -> float:
    if isinstance(value, (int, float, np.number)) and math.isfinite(value):
        return float(value)
    raise DataError(f"[score] {where} must be a finite number, got {value!r}")


def _xywh(found: Mapping[str, Any], where: str) -> List[float]:
    box = found.get("bbox")
    if not isinstance(box, (list, tuple)) or len(box) != 4:
        raise DataError(f"[score] {where} must have a bbox of 4 numbers (x, y, w, h), got {box!r}")
    return [_finite(v, f"bbox of {where}") for v in box]


def _segmentation(found: Mapping[str, Any], where: str) -> Any:
    mask = found.get("segmentation")
    if (isinstance(mask, dict) and {"counts", "size"} <= set(mask)) or (isinstance(mask, list) and mask):
        return dict(mask) if isinstance(mask, dict) else mask
    raise DataError(f"[score] {where} must have a segmentation of polygons or RLE, got {type(mask).__name__}")


def read_dataset(dataset: Dataset, iou_type: str = "bbox") -> Truth:
    """A data set; for "segm" one that was opened with its masks."""
    images = _numbered("image", [r.id for r in dataset.images])
    classes = {i: n for n, i in enumerate(dataset.category_ids, start=1)}
    sizes = [{"id": images[r.id], "height": r.height, "width": r.width} for r in dataset.images]
    annotations: List[Json] = []
    for record in dataset.images:
        boxes = np.array(record.boxes, dtype=np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        rows = zip(boxes.tolist(), record.labels.tolist(), record.crowd.tolist(), record.areas.tolist())
        for box, label, crowd, area in rows:
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": images[record.id],
                    "category_id": label + 1,
                    "bbox": box,
                    "area": area,
                    "iscrowd": int(crowd),
                }
            )
        if iou_type == "segm":
            for row, mask in zip(annotations[len(annotations) - len(boxes) :], record.masks or ()):
                row["segmentation"] = as_json(mask)
    return Truth(images, classes, tuple(dataset.names), _library_json(sizes, annotations, len(dataset.names)))


# --- the detections


def read_results(results: Sequence[Mapping[str, Any]], truth: Truth, iou_type: str) -> List[Json]:
    out = []
    for number, found in enumerate(results, start=1):
        where = f"result {number}"
        if not isinstance(found, Mapping):
            raise DataError(f"[score] {where} must be an object, got {type(found).__name__}")
        one = _placed(found, where, truth.images, truth.classes)
        one.update(id=number, iscrowd=0, score=_finite(found.get("score"), f"score of {where}"))
        if iou_type == "segm":
            one["segmentation"] = _segmentation(found, where)
            one["area"] = _mask_area(one["segmentation"], where)
        else:
            one["bbox"] = _xywh(found, where)
            one["area"] = one["bbox"][2] * one["bbox"][3]
        out.append(one)
    return out


def _mask_area(mask: Any, where: str) -> float:
    from faster_coco_eval import mask as masks

    if not isinstance(mask, dict) or isinstance(mask["counts"], list):
        raise DataError(f"[score] {where} must have its mask as compressed RLE")
    return float(masks.area(mask))


def read_predictions(predictions: Iterable[Prediction], truth: Truth, iou_type: str = "bbox") -> List[Json]:
    """Results under ids of our own; for "segm" with the masks, whose areas then count."""
    out: List[Json] = []
    seen: Dict[Any, None] = {}
    for one in predictions:
        if one.image_id not in truth.images:
            raise DataError(
                f"[score] a prediction is for image {one.image_id!r}, which is not in the ground truth. "
                "Score with the data set and split that was predicted."
            )
        if one.image_id in seen:
            raise DataError(
                f"[score] there must be one prediction for an image, found two for {one.image_id!r}"
            )
        seen[one.image_id] = None
        start = len(out)
        _append(out, one, truth.images[one.image_id], truth)
        if iou_type == "segm":
            out[start:] = [
                {**row, "segmentation": dict(mask), "area": float(rle.area(mask))}
                for row, mask in zip(out[start:], one.masks or ())
            ]
    return out


def _append(out: List[Json], one: Prediction, image: int, truth: Truth) -> None:
    found = one.detections
    boxes = np.asarray(found.boxes, dtype=np.float64)
    bad = ~(np.isfinite(found.scores) & np.isfinite(boxes).all(axis=1))
    if bad.any():
        raise DataError(
            "[score] scores and boxes must be finite, "
            f"detection {int(bad.argmax())} of image {one.image_id!r} is not"
        )
    labels = _own_labels(found, truth, one.image_id)
    sizes = boxes[:, 2:] - boxes[:, :2]
    boxes = np.concatenate([boxes[:, :2], sizes], axis=1)
    areas = sizes.prod(axis=1)
    number = len(out)
    rows = zip(boxes.tolist(), np.asarray(found.scores, np.float64).tolist(), labels.tolist(), areas.tolist())
    for box, value, label, area in rows:
        number += 1
        out.append(
            {
                "id": number,
                "image_id": image,
                "category_id": label,
                "bbox": box,
                "score": value,
                "area": area,
                "iscrowd": 0,
            }
        )


def _own_labels(found: Detections, truth: Truth, image_id: Id) -> NDArray[np.int64]:
    """(N,) class numbers of our own, 1, 2, 3, ..., for the labels of the detections."""
    if found.class_names:
        number = {name: n for n, name in enumerate(truth.names, start=1)}
        table = [number.get(name, 0) for name in found.class_names]
    elif found.category_ids:
        table = [truth.classes.get(i, 0) for i in found.category_ids]
    else:
        table = list(range(1, len(truth.names) + 1))
    labels = np.asarray(found.labels, dtype=np.int64)
    inside = (labels >= 0) & (labels < len(table))
    out = np.where(inside, np.asarray(table or [0], dtype=np.int64)[np.where(inside, labels, 0)], 0)
    if len(labels) and out.min() == 0:
        label = int(labels[out.argmin()])
        name = found.class_names[label] if 0 <= label < len(found.class_names) else label
        raise DataError(
            f"[score] a detection in image {image_id!r} is of class {name!r}, unknown to the ground truth. "
            f"It has: {', '.join(truth.names)}"
        )
    return out
