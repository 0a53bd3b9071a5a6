"""Explain a model: on pictures, over a data set, or both."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from detrx.data.catalog import open_dataset
from detrx.detector import to_array
from detrx.errors import ConfigError, DataError
from detrx.evaluation.run import bar
from detrx.explain.look import Asked, Watched, look, open_watched
from detrx.explain.numbers import write_look, write_use
from detrx.explain.page import write_page
from detrx.explain.paint import paint, sheets, write_png
from detrx.explain.slot_plots import write_figures
from detrx.explain.slots import SlotUse, watch
from detrx.explain.views import Scene
from detrx.live.files import PictureSource
from detrx.live.source import open_source

PICTURES = 20
"""Of a folder, where no limit is set: the page holds them all."""


@dataclass(frozen=True)
class ExplainReport:
    """What was written."""

    page: Path
    files: tuple[Path, ...]
    """Pictures and numbers, beside the page and in a folder for each picture."""
    notes: tuple[str, ...]
    """A line for each picture: its name, and what is shown of how many detections, or why it was skipped."""
    left: int
    """Pictures of the folder that were not looked at, for they are past the limit."""
    use: SlotUse | None
    """What the queries do over the data set."""


def explain(
    model: str | Path,
    picture: Any = None,
    *,
    data: str | Path | None = None,
    split: str = "test",
    out: str | Path = "runs/explain",
    threshold: float = 0.5,
    most: int = 6,
    queries: Sequence[int] = (),
    points: Sequence[tuple[float, float]] = (),
    per_head: bool = False,
    slots: int = 20,
    limit: int | None = None,
    device: str = "auto",
    threads: int | None = None,
    progress: bool | None = None,
) -> ExplainReport:
    """Show what a model looks at, as PNG files, numbers and one page.

    For a ``detr`` model: the encoder's self-attention from points and the decoder's attention of each detection, of
    the last layers (figures 3 and 6 of arXiv 2005.12872). For an ``rt`` model: the points that the decoder samples,
    layer by layer. Over a data set: where each query answers, and how often (figure 7).

    Args:
        model: weights, a run folder or a published name.
        picture: a path, folder or pattern, a (H, W, 3) uint8 RGB array, a PIL image; or None with ``data``.
        data: a data set's folder; its truth is not looked at.
        split: which part of it.
        out: a folder for index.html and the rest.
        threshold: the least score of a detection, in [0, 1]; where none has it the best 5 are explained.
        most: detections of a picture, the best first.
        queries: explain these instead.
        points: x, y in pixels of the picture, for ``detr`` models; empty takes the centres of the best detections.
        per_head: also every attention head by itself.
        slots: queries in the plot of a data set.
        limit: only the first so many pictures; None takes all of a data set and 20 of a folder.
        device: "auto", "cpu" or "cuda".
        threads: CPU threads for the model; None leaves it to the library.
        progress: show a bar; None shows one where stderr is a terminal.

    Raises:
        ConfigError: neither picture nor data set, a graph in place of weights, or something out of range.
        DataError, SourceError: a picture or data set that cannot be read or is empty.
        CheckpointError, DownloadError, DeviceError, MissingBackendError: the model cannot be loaded or run.
    """
    _check(picture, data, threshold=threshold, most=most, slots=slots, limit=limit, threads=threads)
    if threads is not None:
        torch.set_num_threads(threads)
    watched = open_watched(model, device=device)
    (folder := Path(out)).mkdir(parents=True, exist_ok=True)
    show = sys.stderr.isatty() if progress is None else progress
    asked = Asked(threshold, most, tuple(queries), tuple(points))
    pictures, left = ([], 0) if picture is None else _open(picture, limit or PICTURES)
    scenes, files, notes = _explain_pictures(watched, pictures, folder, asked, per_head=per_head, show=show)
    use = None if data is None else _explain_data(watched, Path(data), split, limit, threshold, show)
    files += [] if use is None else [*write_figures(use, folder, most=slots), *write_use(use, folder)]
    page, title = folder / "index.html", f"What {Path(model).name} looks at"
    write_page(page, scenes, use, title=title, model=_describe(watched), slots=slots)
    return ExplainReport(page, tuple(files), tuple(notes), left, use)


def _check(picture: Any, data: str | Path | None, *, threshold: float, **counts: int | None) -> None:
    if picture is None and data is None:
        raise ConfigError(
            "[explain] a picture or a data set must be given: `detrx explain MODEL PICTURE`, or --data ROOT"
        )
    if not 0 <= threshold <= 1:
        raise ConfigError(f"[explain] threshold must be in [0, 1], got {threshold}")
    for name, value in counts.items():
        if value is not None and value < 1:
            raise ConfigError(f"[explain] {name} must be 1 or more, got {value}")


def _describe(watched: Watched) -> str:
    info = watched.info
    names = ", ".join(info.names[:8]) + (", ..." if len(info.names) > 8 else "")
    kind = (
        "sampling points of the deformable decoder"
        if watched.transformer is None
        else "attention of the last layers"
    )
    return f"{info.model}, {len(info.names)} classes: {names}. Shown: {kind}."


def _open(picture: Any, limit: int) -> tuple[Sequence[tuple[str, Any]], int]:
    """(name, path or array) of each picture, and how many are left out.

    Raises:
        ConfigError: something that is no pictures.
        SourceError: there is nothing.
    """
    if not isinstance(picture, (str, Path)):
        return [("picture", picture)], 0
    text = str(picture).strip()
    if "://" in text or text.isdigit() or text.startswith("/dev/video"):
        raise ConfigError(f"[explain] picture must be a file, a folder or a pattern, got {text!r}")
    with open_source(text) as source:
        if not isinstance(source, PictureSource):
            raise ConfigError(
                f"[explain] picture must be a picture, got the video {text}; take frames out of it: "
                f"`ffmpeg -i {text} -vf fps=1 frame-%03d.png`"
            )
        paths = source.paths
    return [(path.name, path) for path in paths[:limit]], max(0, len(paths) - limit)


def _explain_pictures(
    watched: Watched,
    pictures: Sequence[tuple[str, Any]],
    out: Path,
    asked: Asked,
    *,
    per_head: bool,
    show: bool,
) -> tuple[list[Scene], list[Path], list[str]]:
    """The scenes, the files written, and a line for each picture; of several those that cannot be read are skipped."""
    scenes: list[Scene] = []
    files: list[Path] = []
    notes: list[str] = []
    taken: set[str] = set()
    with bar(show and len(pictures) > 1, text="looking") as report:
        for done, (name, picture) in enumerate(pictures, 1):
            try:
                image = to_array(picture)
            except DataError as error:
                if done == len(pictures) and not scenes:
                    raise
                notes.append(f"{name}: skipped, {error}")
                continue
            seen = look(watched, image, name=name, asked=asked)
            scene = paint(seen, threshold=asked.threshold, per_head=per_head)
            folder = out / _fresh(Path(name).stem, taken)
            folder.mkdir(exist_ok=True)
            files += _write_scene(scene, folder) + write_look(seen, folder, threshold=asked.threshold)
            scenes.append(scene)
            notes.append(f"{name}: {scene.note}")
            if report is not None:
                report(done, len(pictures))
    return scenes, files, notes


def _fresh(stem: str, taken: set[str]) -> str:
    """The folder of a picture: two of one name keep apart."""
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}-{number}"
    taken.add(name)
    return name


def _write_scene(scene: Scene, folder: Path) -> list[Path]:
    drawn = {"found": scene.base}
    for subject in scene.subjects:
        for view in subject.views:
            ending = "" if view is subject.views[0] else "-" + view.title.partition(",")[0].replace(" ", "-")
            drawn[f"{subject.key}{ending}"] = view.picture
    files = []
    for name, picture in drawn.items():
        files.append(folder / f"{name}.png")
        write_png(files[-1], picture)
    for name, figure in sheets(scene).items():
        files.append(folder / f"{name}.png")
        figure.savefig(files[-1], dpi=130, facecolor="white")
    return files


def _explain_data(
    watched: Watched, root: Path, split: str, limit: int | None, threshold: float, show: bool
) -> SlotUse:
    dataset = open_dataset(root, split=split)
    records = dataset.images[:limit]
    if not records:
        raise DataError(
            f"[explain] split {split!r} of {root} must hold pictures, found none; `detrx data check {root}`"
        )
    with bar(show, text="looking") as report:
        return watch(watched, records, threshold=threshold, progress=report)
