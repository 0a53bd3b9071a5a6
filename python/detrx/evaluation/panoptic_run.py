"""Run a model with masks over a panoptic data set, and write what it says in COCO's panoptic format."""

from __future__ import annotations

import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Tuple, Union

from detrx.data.coco import Dataset, ImageRecord
from detrx.data.panoptic import open_panoptic, segments_of
from detrx.detector import Detector
from detrx.evaluation.panoptic import Division, PanopticMetrics, PanopticScore
from detrx.evaluation.run import check_classes
from detrx.images import opencv
from detrx.runtime.panoptic import THRESHOLD
from detrx.types import Panoptic

Progress = Callable[[int, int], None]
"""Called with the images done and the images in all."""


def evaluate_panoptic(
    model: Union[str, Path],
    *,
    data: Union[str, Path],
    split: str = "val",
    device: str = "auto",
    threads: Optional[int] = None,
    threshold: float = THRESHOLD,
    limit: Optional[int] = None,
    out: Union[str, Path, None] = None,
    progress: Optional[Progress] = None,
) -> PanopticMetrics:
    """Score a panoptic model on a split of a panoptic data set.

    Args:
        model: weights, an exported file or a run folder.
        data: the data set's folder.
        split: which part of it.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads; None leaves it to the library.
        threshold: the score that a segment must be above.
        limit: only the first so many images.
        out: a folder for metrics.json, and panoptic.json with its PNGs; or None.
        progress: called after every image.

    Raises:
        ConfigError: no such model file, or one without masks.
        DataError: a data set that cannot be read, or that has other classes than the model.
    """
    dataset = open_panoptic(Path(data), split=split)
    if limit is not None:
        dataset = dataclasses.replace(dataset, images=dataset.images[:limit])
    folder = None if out is None else Path(out)
    with closing(Detector(model, device=device, threads=threads)) as detector:
        check_classes(detector.info, dataset)
        score, answers = PanopticScore(len(dataset.names)), []
        for done, record in enumerate(dataset.images, 1):
            found = detector.panoptic(record.path, threshold=threshold)
            score.add(truth_of(record), division_of(found, dataset.names))
            if folder is not None:
                answers.append(_write(found, record, folder / "panoptic"))
            if progress is not None:
                progress(done, len(dataset.images))
    metrics = score.metrics(names=dataset.names, things=dataset.things)
    if folder is not None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "metrics.json").write_text(metrics.to_json(), encoding="utf-8")
        (folder / "panoptic.json").write_text(json.dumps(_document(dataset, answers)), encoding="utf-8")
    return metrics


def truth_of(record: ImageRecord) -> Division:
    """What the data set says of a picture.

    Raises:
        DataError: its PNG cannot be read or does not fit the JSON.
    """
    ids, numbers = segments_of(record)
    classes = dict(zip(numbers, record.labels.tolist()))
    return Division(ids, classes, tuple(n for n, crowd in zip(numbers, record.crowd) if crowd))


def division_of(found: Panoptic, names: Tuple[str, ...]) -> Division:
    """What a model says of a picture, its classes by their place among ``names``."""
    places = {name: i for i, name in enumerate(names)}
    return Division(found.segments_map, {one.id: places[found.name(one)] for one in found.segments})


def _write(found: Panoptic, record: ImageRecord, folder: Path) -> Dict[str, Any]:
    folder.mkdir(parents=True, exist_ok=True)
    name = f"{record.path.stem}.png"
    write_ids(found, folder / name)
    return found.to_coco(image_id=record.id, file_name=name)


def write_ids(found: Panoptic, path: Path) -> None:
    """The PNG of the segments' ids."""
    cv2 = opencv()
    path.write_bytes(cv2.imencode(".png", found.to_rgb()[..., ::-1])[1].tobytes())


def _document(dataset: Dataset, answers: List[Dict[str, Any]]) -> Dict[str, Any]:
    images = [
        {"id": one.id, "file_name": one.path.name, "height": one.height, "width": one.width}
        for one in dataset.images
    ]
    categories = [
        {"id": i, "name": name, "isthing": int(thing)}
        for i, name, thing in zip(dataset.category_ids, dataset.names, dataset.things)
    ]
    return {"images": images, "annotations": answers, "categories": categories}
