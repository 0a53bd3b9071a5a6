"""Export a trained model, and let nothing out that does not answer as the model does."""

from __future__ import annotations

import dataclasses
import json
import logging
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from detrx.errors import ConfigError
from detrx.export.parity import ParityError, ParityReport, check
from detrx.images import IMAGE_SUFFIXES, read_image
from detrx.models import hub
from detrx.runtime.backend import find_model, open_backend
from detrx.types import ModelInfo

if TYPE_CHECKING:
    from detrx.runtime.backend import Backend

log = logging.getLogger(__name__)

TARGETS = ("onnx",)
PRECISIONS = ("fp32",)
GATE_IMAGES = 8


@dataclass(frozen=True)
class ExportResult:
    """One exported file that passed the gate."""

    path: Path
    info: ModelInfo
    report: ParityReport
    seconds: float
    bytes: int


def export(
    model: str | Path,
    *,
    to: str = "onnx",
    out: str | Path | None = None,
    precision: str = "fp32",
    batch: int | None = 1,
    top: int | None = None,
    canvas: tuple[int, int] | None = None,
    images: Sequence[str | Path] | None = None,
    data: str | Path | None = None,
) -> ExportResult:
    """Write a model for a runtime and compare the two on pictures before the file gets its name.

    Args:
        model: the weights, or a run folder.
        to: "onnx".
        out: the file to write; None puts it beside the weights.
        precision: "fp32".
        batch: images to one call, or None for any number.
        top: detections of an image; None for one a query, at most 300.
        canvas: (height, width), multiples of 32; None for the size that the model was trained at.
        images: pictures, or folders of them, to compare on.
        data: a data set to compare on; neither: generated scenes.

    Raises:
        ConfigError: a setting that does not exist or is out of range.
        CheckpointError: the weights cannot be read.
        ParityError: the file does not answer as the model; it is kept with ``.rejected`` added to its name.
        ExportError: no file could be written.
    """
    from detrx.export.onnx import write_onnx
    from detrx.models.checkpoint import load_model

    _check_choices(to, precision, batch, top)
    start = time.monotonic()
    source = find_model(model)
    with closing(open_backend(source, device="cpu")) as reference:
        loaded, info = load_model(source)
        info = _with_canvas(info, canvas)
        target = _target(out, source, to)
        target.parent.mkdir(parents=True, exist_ok=True)
        draft = target.with_name(f"{target.stem}.draft{os.getpid()}.onnx")
        try:
            write_onnx(loaded, info, draft, batch=batch, top=top)
            report = gate(reference, draft, info, images=images, data=data)
            _settle(draft, target, report)
        finally:
            draft.unlink(missing_ok=True)
    return ExportResult(target, info, report, time.monotonic() - start, target.stat().st_size)


def _check_choices(to: str, precision: str, batch: int | None, top: int | None) -> None:
    for name, value, known in (("to", to, TARGETS), ("precision", precision, PRECISIONS)):
        if value not in known:
            raise ConfigError(f"[export] {name} must be one of {', '.join(known)}, got {value!r}")
    if batch is not None and batch < 1:
        raise ConfigError(f"[export] batch must be 1 or more, or None for any number, got {batch}")
    if top is not None and top < 1:
        raise ConfigError(f"[export] top must be 1 or more, or None for one a query, got {top}")


def _target(out: str | Path | None, source: Path, to: str) -> Path:
    target = Path(out) if out is not None else source.with_suffix(f".{to}")
    if out is None and source.name in hub.FILES.values():  # the cache is no place for it
        target = Path(target.name)
    if target.suffix.lower() != f".{to}":  # it could be the weights themselves
        raise ConfigError(f"[export] out must end in .{to}, got {target}")
    return target


def _with_canvas(info: ModelInfo, canvas: tuple[int, int] | None) -> ModelInfo:
    """What the file says: a graph has one canvas, and no other way to scale pictures."""
    try:
        return dataclasses.replace(info, canvas=canvas or info.canvas, sides=())
    except (ValueError, IndexError) as error:
        raise ConfigError(f"[export] canvas must be two multiples of 32, got {canvas}") from error


def gate(
    reference: Backend,
    exported: Path,
    info: ModelInfo,
    *,
    images: Sequence[str | Path] | None = None,
    data: str | Path | None = None,
) -> ParityReport:
    """Compare a file with the model it was made from, on given pictures, a data set or generated scenes."""
    pictures = islice(_pictures(info, images, data), GATE_IMAGES)
    with closing(open_backend(exported, device="cpu")) as ran:
        return check(reference, ran, pictures)


def _pictures(
    info: ModelInfo, images: Sequence[str | Path] | None, data: str | Path | None
) -> Iterator[tuple[str, NDArray[np.uint8]]]:
    if images:
        for path in _files([Path(image) for image in images]):
            yield path.name, read_image(path)
    elif data is not None:
        from detrx.data.catalog import open_dataset, splits

        found = splits(Path(data))
        split = next((name for name in ("test", "val", "valid") if name in found), found[0])
        for record in open_dataset(Path(data), split=split).images:
            yield record.path.name, read_image(record.path)
    else:
        from detrx.data.synthetic import Scenes

        scenes = Scenes(size=info.canvas, seed=0)
        for step in range(GATE_IMAGES):
            yield f"scene {step}", scenes.frame(step * 25)[0]


def _files(paths: Sequence[Path]) -> Iterator[Path]:
    for path in paths:
        if path.is_dir():
            yield from sorted(p for p in path.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)
        else:
            yield path


def _settle(draft: Path, target: Path, report: ParityReport) -> None:
    """Give the draft its name, or the name of a rejected file."""
    if report.passed:
        draft.replace(target)
        return
    rejected = target.with_name(target.name + ".rejected")
    draft.replace(rejected)
    rejected.with_name(rejected.name + ".json").write_text(json.dumps(dataclasses.asdict(report), indent=1))
    raise ParityError(
        f"[export] {target.name} does not answer as the model does; it is kept as {rejected}.\n"
        f"{report.table()}",
        report,
    )
