"""Evaluate what ships: the same files, the same letterbox and the same decoding as in use."""

from __future__ import annotations

import dataclasses
import json
import sys
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Callable, Dict, Iterator, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx import rle
from detrx.data.catalog import open_dataset
from detrx.errors import ConfigError, DataError
from detrx.evaluation.coco import Metrics, Prediction, score
from detrx.images import read_image
from detrx.preprocess import lay
from detrx.runtime.backend import Backend, find_model, open_backend
from detrx.types import Detections, Letterbox, ModelInfo, Raw

if TYPE_CHECKING:
    from detrx.data.coco import Dataset, ImageRecord

MASKS = 100
"""Masks of an image that are scored, the best: COCO counts so many detections of each class and image."""
Progress = Callable[[int, int], None]
"""Called with the images done and the images in all."""


def evaluate(
    model: Union[str, Path],
    *,
    data: Union[str, Path],
    split: str = "test",
    device: str = "auto",
    threads: Optional[int] = None,
    batch: int = 1,
    limit: Optional[int] = None,
    out: Union[str, Path, None] = None,
    progress: Optional[bool] = None,
) -> Metrics:
    """Score a model on a split of a data set.

    Args:
        model: weights, an exported file or a run folder.
        data: the data set's folder.
        split: which part of it.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads for the model; None leaves it to the library.
        batch: images to one call, where the model leaves it open.
        limit: only the first so many images.
        out: a folder for metrics.json, predictions.json (COCO results), the plots and index.html; or None.
        progress: show a bar; None shows one where the output is a terminal.

    Raises:
        ConfigError: a setting that is out of range, or no such model file.
        DataError: a data set that cannot be read, or that has other classes than the model.
        MissingBackendError: something to run or score with is not installed.
    """
    for name, value in (("batch", batch), ("limit", limit)):
        if value is not None and value < 1:
            raise ConfigError(f"[evaluate] {name} must be 1 or more, got {value}")
    with closing(open_backend(find_model(model), device=device, threads=threads)) as backend:
        dataset = open_dataset(Path(data), split=split, masks=backend.info.masks)
        show = sys.stderr.isatty() if progress is None else progress
        with bar(show) as report:
            metrics, predictions = evaluate_backend(
                backend, dataset, batch=batch, limit=limit, progress=report
            )
    if out is not None:
        write_report(
            Path(out), metrics, predictions, dataset, title=f"{Path(model).name} on {data} ({split})"
        )
    return metrics


def evaluate_backend(
    backend: Backend,
    dataset: Dataset,
    *,
    batch: int = 1,
    limit: Optional[int] = None,
    progress: Optional[Progress] = None,
) -> Tuple[Metrics, List[Prediction]]:
    """Score a loaded model on a data set.

    Args:
        backend: its fixed batch, where it has one, is used.
        dataset: its class names must be the model's, in any order.
        batch: images to one call, where the backend leaves it open.
        limit: only the first so many images.
        progress: called after every call of the backend.

    Raises:
        DataError: an image cannot be read, or the classes differ.
    """
    if limit is not None:
        dataset = dataclasses.replace(dataset, images=dataset.images[:limit])
    predictions = predict_dataset(backend, dataset, batch=batch, progress=progress)
    return score(dataset, predictions), predictions


@dataclass(frozen=True)
class Answer:
    """What a model says of one picture of a data set."""

    record: ImageRecord
    raw: Raw
    """Of the whole batch."""
    index: int
    """The picture's place in it."""
    box: Letterbox


def predict_dataset(
    backend: Backend,
    dataset: Dataset,
    *,
    batch: int = 1,
    progress: Optional[Progress] = None,
    also: Optional[Callable[[Answer], None]] = None,
) -> List[Prediction]:
    """Run a loaded model over a data set, as ``evaluate_backend`` does before it scores.

    Args:
        also: is shown each answer, for another score of the same.

    Raises:
        DataError: an image cannot be read, or the classes differ.
    """
    predictions = []
    for answer in answers(backend, dataset, batch=batch, progress=progress):
        predictions.append(_prediction(answer, backend.info))
        if also is not None:
            also(answer)
    return predictions


def answers(
    backend: Backend, dataset: Dataset, *, batch: int = 1, progress: Optional[Progress] = None
) -> Iterator[Answer]:
    """Run a loaded model over a data set, picture by picture in its order.

    Raises:
        DataError: an image cannot be read, or the classes differ.
    """
    _check_classes(backend.info, dataset)
    size, records = backend.batch or batch, dataset.images
    for start in range(0, len(records), size):
        yield from _answers(backend, records[start : start + size], size)
        if progress is not None:
            progress(min(start + size, len(records)), len(records))


def _check_classes(info: ModelInfo, dataset: Dataset) -> None:
    """Raise DataError unless model and data set have the same class names, in any order."""
    if sorted(info.names) != sorted(dataset.names):
        raise DataError(
            "[evaluate] model and data set must have the same classes; "
            f"the model has: {', '.join(info.names)}; "
            f"{dataset.annotation_file} has: {', '.join(dataset.names)}"
        )


def _answers(backend: Backend, records: Sequence[ImageRecord], size: int) -> Iterator[Answer]:
    """Run one batch; a short one is filled with its last image, whose answers are dropped."""
    pictures = [read_image(record.path) for record in records]
    pictures += pictures[-1:] * (size - len(pictures))
    pixels, boxes = lay(pictures, backend.info, free=getattr(backend, "free", False))
    raw = backend.infer(pixels)
    for i, (record, box) in enumerate(zip(records, boxes)):
        yield Answer(record, raw, i, box)


def _prediction(answer: Answer, info: ModelInfo) -> Prediction:
    raw, i, box, masks = answer.raw, answer.index, answer.box, None
    if raw.masks is not None and answer.record.masks is not None:
        masks = [rle.encode(box.undo_mask(field)) for field in raw.masks[i, :MASKS]]
    found = Detections(
        boxes=box.undo(raw.boxes[i]),
        scores=raw.scores[i],
        labels=raw.labels[i],
        class_names=info.names,
        category_ids=info.category_ids,
    )
    return Prediction(answer.record.id, found, masks)


class ModelBackend:
    """A live model as a backend, so that training evaluates as shipping does.

    Args:
        model: answers (B, 3, h, w) with Outputs; it is run in eval mode and put back afterwards.
        info: what an export of it would say.
        top: detections of an image.
    """

    batch: Optional[int] = None

    def __init__(self, model: Any, info: ModelInfo, *, top: int = 300) -> None:
        self._model = model
        self._top = top
        self.info = info
        self.description = f"{info.model} in training"

    def infer(self, pixels: NDArray[np.float32]) -> Raw:
        import torch

        from detrx.models.head import answers, decode_outputs

        training, place = self._model.training, next(self._model.parameters())
        self._model.eval()
        try:
            with torch.inference_mode():
                found = self._model(torch.from_numpy(pixels).to(place.device, place.dtype))
                answer = decode_outputs(found, top=min(self._top, answers(found)))
        finally:
            self._model.train(training)
        return Raw(*(tensor.cpu().numpy() for tensor in answer))

    def close(self) -> None:
        """The model is the caller's."""


@contextmanager
def bar(show: bool, *, text: str = "evaluating") -> Iterator[Optional[Progress]]:
    """A progress bar on the terminal, or None; gives the function to report to."""
    if not show:
        yield None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bar

    columns = (TextColumn(text), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as line:
        task = line.add_task(text)
        yield lambda done, total: line.update(task, completed=done, total=total)


def coco_results(predictions: Sequence[Prediction], dataset: Dataset) -> List[Dict[str, Any]]:
    """Predictions in COCO's result format, under the data set's own image and category ids."""
    ids = dict(zip(dataset.names, dataset.category_ids))
    out = []
    for one in predictions:
        masks = [{"segmentation": mask} for mask in one.masks or ()]
        masks += [{}] * (len(one.detections) - len(masks))
        for (box, value, _), name, mask in zip(one.detections, one.detections.names.tolist(), masks):
            x0, y0, x1, y1 = (round(float(v), 3) for v in box)
            out.append(
                {
                    "image_id": one.image_id,
                    "category_id": ids[name],
                    "bbox": [x0, y0, round(x1 - x0, 3), round(y1 - y0, 3)],
                    "score": round(value, 6),
                    **mask,
                }
            )
    return out


def write_report(
    out: Path, metrics: Metrics, predictions: Sequence[Prediction], dataset: Dataset, *, title: str
) -> Path:
    """Write metrics.json, predictions.json, the plots and index.html into a folder.

    Returns:
        The path of index.html.
    """
    from detrx.evaluation.plots import draw_report

    out.mkdir(parents=True, exist_ok=True)
    _write(out / "metrics.json", metrics.to_json())
    _write(out / "predictions.json", json.dumps(coco_results(predictions, dataset)))
    return draw_report(out, metrics, predictions, dataset, title=title)


def _write(path: Path, text: str) -> None:
    draft = path.with_name(path.name + ".part")
    draft.write_text(text, encoding="utf-8")
    draft.replace(path)
