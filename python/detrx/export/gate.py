"""What the gate of every export looks at: pictures, and where precision was given away, AP."""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detrx.export.parity import EXACT, Limits, ParityReport, check
from detrx.export.plugin_backend import PluginBackend
from detrx.images import IMAGE_SUFFIXES, read_image
from detrx.preprocess import lay
from detrx.runtime.backend import open_backend
from detrx.types import ModelInfo

if TYPE_CHECKING:
    from detrx.data.coco import Dataset
    from detrx.runtime.backend import Backend

GATE_IMAGES = 8
AP_IMAGES = 500
CALIBRATION_IMAGES = 128
FEW = 16
"""With fewer pictures to calibrate on there is a warning."""

log = logging.getLogger(__name__)


def open_graph(path: Path, *, plugin: bool) -> Backend:
    """A written graph on the CPU."""
    return PluginBackend(path) if plugin else open_backend(path, device="cpu")


def gate(
    reference: Backend,
    exported: Backend,
    *,
    images: Sequence[str | Path] | None = None,
    data: str | Path | None = None,
    limits: Limits = EXACT,
    baseline: Backend | None = None,
) -> ParityReport:
    """Compare what was exported with the model it was made from.

    Args:
        reference: the model.
        exported: what was written.
        images: pictures, or folders of them.
        data: a data set; with neither, generated scenes.
        limits: of the precision.
        baseline: the same graph in float32. With ``data`` the AP of the two is measured.
    """
    pictures = islice(named_pictures(exported.info, images, data), GATE_IMAGES)
    report = check(reference, exported, pictures, limits=limits)
    if data is None or baseline is None:
        return report
    # The one arrow that goes up: an export is refused by the number that evaluation prints, and by no other.
    from detrx.evaluation.run import evaluate_backend

    dataset = _open(Path(data), ("val", "valid", "test"), exported.info)
    aps = [100 * evaluate_backend(b, dataset, limit=AP_IMAGES)[0].ap for b in (baseline, exported)]
    many = min(AP_IMAGES, len(dataset.images))
    return dataclasses.replace(report, ap=(aps[0], aps[1]), ap_images=many)


def named_pictures(
    info: ModelInfo, images: Sequence[str | Path] | None, data: str | Path | None
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    """Name and pixels of the given pictures, of a data set's, or of generated scenes."""
    if images:
        for path in _files([Path(image) for image in images]):
            yield path.name, read_image(path)
    elif data is not None:
        for record in _open(Path(data), ("test", "val", "valid"), info).images:
            yield record.path.name, read_image(record.path)
    else:
        from detrx.data.synthetic import Scenes

        scenes = Scenes(size=info.canvas, seed=0)
        for step in range(GATE_IMAGES):
            yield f"scene {step}", scenes.frame(step * 25)[0]


def calibration_files(folder: str | Path | None, data: str | Path | None, info: ModelInfo) -> list[Path]:
    """Pictures to calibrate on: of a folder, else of a data set's training split, evenly spread; empty for none."""
    if folder is not None:
        files = list(_files([Path(folder)]))
    elif data is not None:
        files = [record.path for record in _open(Path(data), ("train",), info).images]
    else:
        return []
    step = max(1, len(files) // CALIBRATION_IMAGES)
    return files[::step][:CALIBRATION_IMAGES]


def laid(files: Sequence[Path], info: ModelInfo, batch: int) -> Iterator[NDArray[np.float32]]:
    """(batch, 3, h, w) pixels of each picture, which is repeated; black ones, of a covered lens, are passed over.

    Raises:
        DataError: a picture cannot be read.
    """
    if 0 < len(files) < FEW:
        log.warning(
            "calibrating on %d pictures: what they do not show is cut off; give some hundred", len(files)
        )
    for path in files:
        picture = read_image(path)
        if picture.any():
            yield lay([picture] * batch, info)[0]
        else:
            log.warning("%s is black and is left out of the calibration", path)


def _open(root: Path, wanted: Sequence[str], info: ModelInfo) -> Dataset:
    """The first of the wanted splits that there is, of the segments where the model tells things from stuff."""
    from detrx.data.catalog import open_dataset, splits
    from detrx.data.panoptic import find_panoptic, open_panoptic

    divided = [found.plain for found in find_panoptic(root)] if info.things else []
    names = divided or splits(root)
    split = next((name for name in wanted if name in names), names[0])
    return open_panoptic(root, split=split) if divided else open_dataset(root, split=split)


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            yield path
