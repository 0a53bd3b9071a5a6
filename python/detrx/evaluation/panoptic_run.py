"""Run a panoptic model over a panoptic data set and score how it divides the pictures."""

from __future__ import annotations

import dataclasses
from contextlib import closing
from pathlib import Path
from typing import Optional, Tuple, Union

from detrx.data.coco import Dataset, ImageRecord
from detrx.data.panoptic import find_panoptic, open_panoptic, segments_of
from detrx.errors import ConfigError
from detrx.evaluation.panoptic import Division, PanopticMetrics, PanopticScore, division_of
from detrx.evaluation.panoptic_page import PanopticReport
from detrx.evaluation.run import Answer, Progress, answers
from detrx.runtime.backend import find_model, open_backend
from detrx.runtime.panoptic import THRESHOLD, divide
from detrx.types import ModelInfo, Panoptic


def is_panoptic(model: Union[str, Path], *, data: Union[str, Path], device: str = "auto") -> bool:
    """Whether the data set is panoptic and the model tells things from stuff; the model is only opened for the first.

    Raises:
        ConfigError: no such model file.
    """
    if not find_panoptic(Path(data)):
        return False
    with closing(open_backend(find_model(model), device=device)) as backend:
        return bool(backend.info.things)


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
        out: a folder for metrics.json, panoptic.json with its PNGs, and index.html; or None.
        progress: called after every image.

    Raises:
        ConfigError: no such model file, or one without masks.
        DataError: a data set that cannot be read, or that has other classes than the model.
    """
    if limit is not None and limit < 1:
        raise ConfigError(f"[evaluate] limit must be 1 or more, got {limit}")
    dataset = open_panoptic(Path(data), split=split)
    dataset = dataclasses.replace(dataset, images=dataset.images[:limit])
    with closing(open_backend(find_model(model), device=device, threads=threads)) as backend:
        title = f"{Path(model).name} on {data} ({split})"
        report = None if out is None else PanopticReport(Path(out), dataset, title=title)
        score = PanopticScore(len(dataset.names))
        for answer in answers(backend, dataset, progress=progress):
            truth, found = divisions(
                answer, dataset, info=backend.info, threshold=threshold, threads=threads or 1
            )
            score.add(truth, division_of(found))
            if report is not None:
                report.add(answer.record, truth, found)
    metrics = score.metrics(names=dataset.names, things=dataset.things)
    if report is not None:
        report.close(metrics)
    return metrics


def divisions(
    answer: Answer, dataset: Dataset, *, info: ModelInfo, threshold: float, threads: int = 1
) -> Tuple[Division, Panoptic]:
    """How a picture is divided: the truth, and what the model says with the labels of the data set.

    Raises:
        ConfigError: a model without masks.
        DataError: the picture's PNG cannot be read or does not fit the JSON.
    """
    found = divide(answer.raw, answer.index, answer.box, info=info, threshold=threshold, threads=threads)
    return truth_of(answer.record), of_dataset(found, dataset)


def of_dataset(found: Panoptic, dataset: Dataset) -> Panoptic:
    """The same, with the labels and category ids of a data set, whose classes may be in another order."""
    places = {name: i for i, name in enumerate(dataset.names)}
    labels = [places[found.name(one)] for one in found.segments]
    return Panoptic(
        found.segments_map,
        tuple(
            dataclasses.replace(one, label=label, category_id=dataset.category_ids[label])
            for one, label in zip(found.segments, labels)
        ),
        dataset.names,
    )


def truth_of(record: ImageRecord) -> Division:
    """What the data set says of a picture.

    Raises:
        DataError: its PNG cannot be read or does not fit the JSON.
    """
    ids, numbers = segments_of(record)
    classes = dict(zip(numbers, record.labels.tolist()))
    return Division(ids, classes, tuple(n for n, crowd in zip(numbers, record.crowd) if crowd))
