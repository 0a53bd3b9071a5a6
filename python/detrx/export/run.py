"""Export a trained model, and let nothing out that does not answer as the model does."""

from __future__ import annotations

import dataclasses
import json
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from detrx.errors import ConfigError, DetrxError
from detrx.export.calibrate import Progress
from detrx.export.engine import Built, EngineSettings, build_engine, check_settings, gpu
from detrx.export.gate import gate, open_graph
from detrx.export.levels import PRECISIONS, Leveled, level
from detrx.export.parity import LIMITS, ParityError, ParityReport
from detrx.export.plugin_nodes import ALL, GRAPHS, NEWER
from detrx.models import hub
from detrx.runtime.backend import Backend, find_model, open_backend
from detrx.runtime.sidecar import Sidecar, file_sha256, sidecar_path
from detrx.types import ModelInfo

TARGETS = ("onnx", "engine")


@dataclass(frozen=True)
class ExportResult:
    """One exported file that passed the gate."""

    path: Path
    info: ModelInfo
    report: ParityReport
    seconds: float
    bytes: int
    kept: str = ""
    """What stayed in a higher precision, and why, as a table."""
    engine: str = ""
    """Of an engine: which TensorRT built it, and whether the engine itself was compared."""


@dataclass(frozen=True)
class _Job:
    """What was asked for, checked."""

    source: Path
    target: Path
    info: ModelInfo
    precision: str
    nodes: frozenset[str]
    batch: int | None
    top: int | None
    images: Sequence[str | Path] | None
    data: str | Path | None
    calibrate: str | Path | None
    progress: Progress | None


def export(
    model: str | Path,
    *,
    to: str = "onnx",
    out: str | Path | None = None,
    graph: str = "pure",
    precision: str = "fp32",
    batch: int | None = 1,
    top: int | None = None,
    canvas: tuple[int, int] | None = None,
    images: Sequence[str | Path] | None = None,
    data: str | Path | None = None,
    calibrate: str | Path | None = None,
    engine: EngineSettings | None = None,
    progress: Progress | None = None,
) -> ExportResult:
    """Write a model for a runtime and compare the two on pictures before the file gets its name.

    Args:
        model: the weights, or a run folder.
        to: "onnx" or "engine".
        out: the file to write; None puts it beside the weights.
        graph: "pure", or "plugin" with nodes of ours for TensorRT 8.5 to 11.
        precision: "fp32", "fp16", "bf16", "int8" (convolutions of backbone and encoder), "int8-b" (linear layers
            too), "int8-cpu" (for ONNX Runtime on a processor) or "int4" (weights of linear layers, for size).
        batch: images to one call, or None for any number.
        top: detections of an image; None for one a query, at most 300.
        canvas: (height, width), multiples of 32; None for the size that the model was trained at.
        images: pictures, or folders of them, to compare on.
        data: a data set to compare on, and to measure the AP that a lower precision costs; neither: generated scenes.
        calibrate: a folder of pictures that int8 is calibrated on; None takes the data set's training split.
        engine: how the engine is built; for the plugin graph its target also says which nodes are used.
        progress: called with the calibration pictures done and in all.

    Raises:
        ConfigError: a setting that does not exist or is out of range.
        CheckpointError: the weights cannot be read.
        ParityError: the file does not answer as the model; it is kept with ``.rejected`` added to its name.
        ExportError: no file could be written.
        EngineError: TensorRT refuses the graph.
    """
    from detrx.models.checkpoint import load_model

    settings = engine or EngineSettings()
    _check_choices(to, graph, precision, batch, top, settings)
    start = time.monotonic()
    source = find_model(model)
    nodes = frozenset[str]() if graph == "pure" else ALL if settings.target == "8.5" else NEWER
    loaded, info = load_model(source)
    # A range of batches is the engine's; its graph then takes any number.
    size = batch if settings.batch == (1, 1, 1) else None
    place, info = _target(out, source, to), _with_canvas(info, canvas)
    job = _Job(source, place, info, precision, nodes, size, top, images, data, calibrate, progress)
    leveled, report, said = _write(job, loaded, to=to, settings=settings)
    seconds = time.monotonic() - start
    return ExportResult(job.target, job.info, report, seconds, job.target.stat().st_size, leveled.table, said)


def _write(job: _Job, loaded: Any, *, to: str, settings: EngineSettings) -> tuple[Leveled, ParityReport, str]:
    """Write, compare and name the file: what stayed precise, how far it is, and what to say of an engine."""
    job.target.parent.mkdir(parents=True, exist_ok=True)
    with closing(open_backend(job.source, device="cpu")) as reference, _drafts(job.target) as drafts:
        leveled, report = _graph(job, loaded, reference, drafts)
        if to == "onnx":
            _settle(drafts[1], job.target, report)
            return leveled, report, ""
        return leveled, report, _engine(job, drafts[1], report, reference, settings)


def _check_choices(
    to: str, graph: str, precision: str, batch: int | None, top: int | None, engine: EngineSettings
) -> None:
    for name, value, known in (
        ("to", to, TARGETS),
        ("graph", graph, GRAPHS),
        ("precision", precision, PRECISIONS),
    ):
        if value not in known:
            raise ConfigError(f"[export] {name} must be one of {', '.join(known)}, got {value!r}")
    if batch is not None and batch < 1:
        raise ConfigError(f"[export] batch must be 1 or more, or None for any number, got {batch}")
    if top is not None and top < 1:
        raise ConfigError(f"[export] top must be 1 or more, or None for one a query, got {top}")
    if graph == "plugin" and engine.target == "rtx":
        raise ConfigError("[export] TensorRT-RTX has no plugins; pass --graph pure")
    check_settings(engine)


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


@contextmanager
def _drafts(target: Path) -> Iterator[tuple[Path, Path, Path]]:
    """Files that do not outlive the export: the float32 graph, the one in its precision, and what runs of it here."""
    names = ("fp32", "draft", "runs")
    found = tuple(target.with_name(f"{target.stem}.{name}{os.getpid()}.onnx") for name in names)
    try:
        yield found[0], found[1], found[2]
    finally:
        for path in found:
            path.unlink(missing_ok=True)


def _graph(
    job: _Job, loaded: Any, reference: Backend, drafts: tuple[Path, Path, Path]
) -> tuple[Leveled, ParityReport]:
    """Write the graph in its precision, and compare it with the model."""
    import onnx

    from detrx.export.onnx import check_graph, write_onnx
    from detrx.runtime.onnx import PRECISION_KEY

    exact, lowered, runs = drafts
    write_onnx(loaded, job.info, exact, batch=job.batch, top=job.top, nodes=job.nodes)
    leveled = level(
        onnx.load(str(exact)),
        job.info,
        precision=job.precision,
        calibrate=job.calibrate,
        data=job.data,
        images=job.images,
        progress=job.progress,
    )
    check_graph(leveled.model, job.info)
    for path, made in ((lowered, leveled.model), (runs, leveled.runnable)):
        made.metadata_props.add(key=PRECISION_KEY, value=job.precision)
        path.write_bytes(made.SerializeToString())
    plugin, exactly = bool(job.nodes), job.precision == "fp32"
    limits = LIMITS[job.precision]
    with closing(open_graph(runs, plugin=plugin)) as ran:
        if exactly or job.data is None:
            return leveled, gate(reference, ran, images=job.images, data=job.data, limits=limits)
        with closing(open_graph(exact, plugin=plugin)) as baseline:
            found = gate(reference, ran, images=job.images, data=job.data, limits=limits, baseline=baseline)
            return leveled, found


def _engine(
    job: _Job, graph: Path, report: ParityReport, reference: Backend, settings: EngineSettings
) -> str:
    """Build the engine of a graph that passed; write its description beside it. Answers with what to say of it."""
    if not report.passed:
        _settle(graph, job.target, report)
    draft = job.target.with_name(f"{job.target.stem}.draft{os.getpid()}.engine")
    beside = sidecar_path(draft)
    try:
        built = build_engine(graph, draft, settings)
        sidecar = _sidecar(job, graph, draft, built, report, settings)
        beside.write_text(sidecar.to_json(), encoding="utf-8")  # no engine is opened without
        ran, itself = _compare(job, draft, reference)
        found = {**sidecar.gate, "engine": ran, **(_numbers(itself) if itself else {})}
        beside.write_text(dataclasses.replace(sidecar, gate=found).to_json(), encoding="utf-8")
        _settle(draft, job.target, itself or report, beside)
    finally:
        draft.unlink(missing_ok=True)
        beside.unlink(missing_ok=True)
    name = "TensorRT-RTX" if built.flavour == "rtx" else "TensorRT"
    return f"built by {name} {built.version}; the engine itself: {ran}"


def _sidecar(
    job: _Job, graph: Path, engine: Path, built: Built, report: ParityReport, settings: EngineSettings
) -> Sidecar:
    capability, driver = gpu()
    return Sidecar(
        info=job.info,
        version=built.version,
        flavour=built.flavour,
        engine_sha256=file_sha256(engine),
        onnx_sha256=file_sha256(graph),
        precision=job.precision,
        batch=settings.batch if job.batch is None else (job.batch,) * 3,
        compute_capability=None if built.flavour == "rtx" else capability,
        driver=driver,
        plugin_sha256=file_sha256(built.plugins) if built.plugins else None,
        gate={"compared": "the ONNX graph", **_numbers(report)},
    )


def _numbers(report: ParityReport) -> dict[str, Any]:
    found: dict[str, Any] = {"score": report.score, "box": report.box, "pictures": len(report.images)}
    if report.ap is not None:
        found.update(ap=report.ap, ap_images=report.ap_images)
    return found


def _compare(job: _Job, engine: Path, reference: Backend) -> tuple[str, ParityReport | None]:
    """Run the engine itself beside the model, where there is something that runs it."""
    try:
        with closing(open_backend(engine)) as ran:
            found = gate(reference, ran, images=job.images, data=job.data, limits=LIMITS[job.precision])
    except (DetrxError, ImportError) as error:
        return f"not compared, its graph was: {str(error).splitlines()[0][:200]}", None
    return "compared", found


def _settle(draft: Path, target: Path, report: ParityReport, beside: Path | None = None) -> None:
    """Give the draft its name, or the name of a rejected file."""
    if report.passed:
        draft.replace(target)
        if beside is not None:
            beside.replace(sidecar_path(target))
        return
    rejected = target.with_name(target.name + ".rejected")
    draft.replace(rejected)
    rejected.with_name(rejected.name + ".json").write_text(json.dumps(dataclasses.asdict(report), indent=1))
    raise ParityError(
        f"[export] {target.name} does not answer as the model does; it is kept as {rejected}.\n"
        f"{report.table()}",
        report,
    )
