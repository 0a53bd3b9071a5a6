"""The COCO numbers of a set of detections, by faster-coco-eval and as pycocotools counts them; no torch."""

from __future__ import annotations

import gc
import json
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Dict, Iterable, Iterator, List, Mapping, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DataError, MissingBackendError
from detrx.evaluation.tables import (
    Json,
    Prediction,
    Truth,
    read_dataset,
    read_predictions,
    read_results,
    read_truth,
)

if TYPE_CHECKING:
    from detrx.data.coco import Dataset

__all__ = ["Metrics", "Prediction", "score", "score_files", "score_results"]


@dataclass(frozen=True)
class Metrics:
    """The COCO numbers, each in [0, 1], or -1 where there is no truth of that kind."""

    ap: float
    """Mean over IoU 0.50, 0.55, ... 0.95 and over the classes that occur."""
    ap50: float
    ap75: float
    ap_small: float
    """Objects under 32 x 32 pixels."""
    ap_medium: float
    ap_large: float
    """Objects over 96 x 96 pixels."""
    ar_1: float
    """Recall with the one best detection of each class and image."""
    ar_10: float
    ar_100: float
    """Recall with ``top`` detections of each class and image, 100 unless told otherwise."""
    ar_small: float
    ar_medium: float
    ar_large: float
    per_class: Dict[str, Tuple[float, float]] = field(default_factory=dict)
    """Class name -> (ap, ap50)."""
    masks: Dict[str, float] = field(default_factory=dict)
    """The twelve numbers by the overlap of masks in place of boxes, ap to ar_large; empty for models without masks."""
    masks_per_class: Dict[str, Tuple[float, float]] = field(default_factory=dict)
    """Class name -> (ap, ap50) of masks."""
    panoptic: Dict[str, float] = field(default_factory=dict)
    """pq, sq, rq, pq_things and pq_stuff of a panoptic model while it trains; else empty."""
    counts: Dict[str, int] = field(default_factory=dict)
    """images, truths (crowds among them), crowds, detections, images_without_detections."""

    @property
    def main(self) -> float:
        """What models are compared by: panoptic quality where it was measured, else the AP of masks, else of boxes."""
        return self.panoptic.get("pq", self.masks.get("ap", self.ap))

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def score(
    truth: Union[Dataset, Mapping[str, Any]], predictions: Iterable[Prediction], *, top: int = 100
) -> Metrics:
    """Score detections as pycocotools scores boxes and, where truth and predictions both have them, masks.

    Args:
        truth: a data set, or the content of a COCO annotation file.
        predictions: at most one for each image; an image without one counts as nothing found. The classes of
            the detections go to those of the truth by name, else by category id, else by index.
        top: how many detections of each class and image count.

    Raises:
        DataError: an id, number or class that does not fit; the message names it.
        MissingBackendError: faster-coco-eval is not installed.
    """
    with _no_collection():
        ready = read_truth(truth, "bbox") if isinstance(truth, Mapping) else read_dataset(truth)
        found = list(predictions)
        metrics = _evaluate(ready, read_predictions(found, ready), iou_type="bbox", top=top)
        if isinstance(truth, Mapping) or not _have_masks(truth, found):
            return metrics
        ready = read_dataset(truth, "segm")
        masks = _evaluate(ready, read_predictions(found, ready, "segm"), iou_type="segm", top=top)
    names = [item.name for item in fields(Metrics) if isinstance(getattr(masks, item.name), float)]
    return replace(
        metrics, masks={name: getattr(masks, name) for name in names}, masks_per_class=masks.per_class
    )


def _have_masks(truth: Dataset, found: Sequence[Prediction]) -> bool:
    """Whether data set and predictions both do."""
    known = bool(truth.images) and all(image.masks is not None for image in truth.images)
    return known and bool(found) and all(one.masks is not None for one in found)


def score_results(
    truth: Mapping[str, Any], results: Sequence[Mapping[str, Any]], *, iou_type: str = "bbox", top: int = 100
) -> Metrics:
    """Score results in COCO's format: image_id, category_id, score and bbox (x, y, w, h) or segmentation.

    Args:
        truth: the content of a COCO annotation file.
        results: the content of a COCO result file.
        iou_type: "bbox" or "segm".
        top: how many detections of each class and image count.

    Raises:
        DataError: an id, number or class that does not fit; the message names it.
        MissingBackendError: faster-coco-eval is not installed.
    """
    if iou_type not in ("bbox", "segm"):
        raise DataError(f'[score_results] iou_type must be "bbox" or "segm", got {iou_type!r}')
    with _no_collection():
        ready = read_truth(truth, iou_type)
        return _evaluate(ready, read_results(results, ready, iou_type), iou_type=iou_type, top=top)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Without the cyclic collector: it would walk a million small objects again and again (a fifth of the time)."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def score_files(gt_json: Path, results_json: Path, *, iou_type: str = "bbox", top: int = 100) -> Metrics:
    """Score a COCO result file against a COCO annotation file, as score_results does."""
    truth, results = _load(Path(gt_json)), _load(Path(results_json))
    if isinstance(results, dict):  # some tools wrap the list as an annotation file does
        results = results.get("annotations")
    if not isinstance(truth, dict) or not isinstance(results, list):
        raise DataError(
            f"[score_files] {gt_json} must hold an object with images, annotations and categories, and "
            f"{results_json} a list of results"
        )
    return score_results(truth, results, iou_type=iou_type, top=top)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except OSError as error:
        raise DataError(f"[score_files] cannot read {path}: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise DataError(f"[score_files] {path} is not JSON: {error}") from error


# --- the numbers


def _evaluate(truth: Truth, results: List[Json], *, iou_type: str, top: int) -> Metrics:
    if top < 1:
        raise DataError(f"[score] top must be at least 1, got {top}")
    annotations = truth.dataset["annotations"]
    precision, recall = _tables(truth, results, iou_type, top)
    found_in = {r["image_id"] for r in results}
    counts = {
        "images": len(truth.images),
        "truths": len(annotations),
        "crowds": sum(a["iscrowd"] for a in annotations),
        "detections": len(results),
        "images_without_detections": len(truth.images) - len(found_in),
    }
    per_class = {
        name: (_mean(precision[:, :, k, 0, 2]), _mean(precision[0, :, k, 0, 2]))
        for k, name in enumerate(truth.names)
    }
    return Metrics(**_twelve(precision, recall), per_class=per_class, counts=counts)  # type: ignore[arg-type]


def _tables(
    truth: Truth, results: List[Json], iou_type: str, top: int
) -> Tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Precision (IoU, recall, class, size, top) and recall (IoU, class, size, top), -1 for no truth."""
    many = sorted({1, min(10, top), top})
    many = [many[0]] * (3 - len(many)) + many
    if not truth.images or not truth.classes:
        return np.full((10, 101, len(truth.names), 4, 3), -1.0), np.full((10, len(truth.names), 4, 3), -1.0)
    coco, evaluator = _library()
    held, given = coco(), coco()
    held.dataset = truth.dataset
    given.dataset = {**truth.dataset, "annotations": results}
    for table in (held, given):
        table.createIndex()
    run = evaluator(held, given, iou_type, print_function=_quiet)
    run.params.maxDets = many
    run.evaluate()
    run.accumulate()
    return np.asarray(run.eval["precision"]), np.asarray(run.eval["recall"])


def _quiet(*_: Any) -> None:
    """The library's chatter goes nowhere."""


def _library() -> Tuple[Any, Any]:
    try:
        from faster_coco_eval import COCO, COCOeval_faster
    except ImportError as error:
        remedy = "Scoring needs it. Type: pip install faster-coco-eval"
        raise MissingBackendError("faster-coco-eval", remedy) from error
    return COCO, COCOeval_faster


def _mean(values: NDArray[np.float64]) -> float:
    known = values[values > -1]
    return float(known.mean()) if known.size else -1.0


def _twelve(precision: NDArray[np.float64], recall: NDArray[np.float64]) -> Dict[str, float]:
    """The twelve that pycocotools prints; IoU 0.50 is row 0, 0.75 row 5; sizes all, small, medium, large."""
    out = {
        "ap": _mean(precision[:, :, :, 0, 2]),
        "ap50": _mean(precision[0, :, :, 0, 2]),
        "ap75": _mean(precision[5, :, :, 0, 2]),
    }
    sizes = ("small", "medium", "large")
    out.update({f"ap_{s}": _mean(precision[:, :, :, n, 2]) for n, s in enumerate(sizes, start=1)})
    out.update({f"ar_{n}": _mean(recall[:, :, 0, i]) for i, n in enumerate((1, 10, 100))})
    out.update({f"ar_{s}": _mean(recall[:, :, n, 2]) for n, s in enumerate(sizes, start=1)})
    return out
