"""``inspect``: an engine, or what TensorRT's tools wrote about one."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Callable, Dict, List, Optional, Sequence, Tuple, Union

from detrx.errors import ConfigError
from detrx.estimate.devices import DEVICES, Device, device_called
from detrx.inspect.kernels import Kernel, read_kernels
from detrx.inspect.layers import images_of, read_layers, short
from detrx.inspect.live import Seen, look
from detrx.inspect.profile import Profile, read_profile, times_of
from detrx.inspect.proof import SLACK, LayerReport, Level, levels_of, next_step, report_of, tensor_peak
from detrx.inspect.work import own_work, work_of_nodes

NONE, UNTOLD = "no arithmetic", "not told"
MUCH = 0.5
"""A share of the work in fp32, above which an engine that was built for less is reported."""
SILENT = ("conv", "matmul", "attention", "region")
"""Operations with a matrix product."""


@dataclass(frozen=True)
class Inspection:
    """What is inside an engine."""

    source: str
    version: str
    """The TensorRT that described it, as far as that is known."""
    device: Optional[str]
    runs: int
    """Runs that the times are of; 0 where that is not known or nothing was measured."""
    ms: Optional[float]
    """All layers together; None without a profile."""
    gflop: float
    """Operations of all layers whose work is known; a multiply-add is two."""
    layers: Tuple[LayerReport, ...]
    time_by_precision: Dict[str, float]
    """Shares of the time; empty without a profile. Layers that only move data are NONE, silent ones UNTOLD."""
    work_by_precision: Dict[str, float]
    """Shares of the known work."""
    time_by_operation: Dict[str, float]
    levels: Tuple[Level, Level, Level]
    reached: int
    """The highest level of evidence that shows tensor cores; 0 for none."""
    next: str
    """What would reach the next."""
    kernels: Tuple[Kernel, ...]
    """Of the trace, those with the most time first."""
    notes: Tuple[str, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def inspect(
    path: Union[str, Path],
    *,
    profile: Union[str, Path, None] = None,
    kernels: Union[str, Path, None] = None,
    onnx: Union[str, Path, None] = None,
    device: Optional[str] = None,
    runs: int = 50,
) -> Inspection:
    """Say what is inside an engine, and whether tensor cores run it.

    Args:
        path: an ``.engine`` or ``.plan`` of detrx, which is opened and run here; or the ``.json`` of
            ``trtexec --exportLayerInfo``.
        profile: the ``.json`` of ``trtexec --exportProfile``; an engine is measured here where it is not given.
        kernels: a trace, as :func:`detrx.inspect.kernels.read_kernels` takes it.
        onnx: the file that the engine was built from, for the work of layers whose own shapes do not say it.
        device: a name in ``detrx.estimate.devices.DEVICES``; None takes this machine's for an engine.
        runs: how many to measure, of an engine.

    Raises:
        ConfigError: no such device, or runs below 1.
        EngineError: a file is another kind, or another engine's.
        CheckpointError, DeviceError, MissingBackendError: as an engine is opened.
    """
    known = [name for name, one in DEVICES.items() if one.tensor_cores]
    if device is not None and device not in known:
        raise ConfigError(f"[inspect] device must be one of {', '.join(known)}, got {device!r}")
    if runs < 1:
        raise ConfigError(f"[inspect] runs must be 1 or more, got {runs}")
    place = Path(path)
    if place.suffix == ".json":
        told = read_layers(place)
        seen = Seen(told, None, told.version, precision="", images=images_of(told.layers), gpu="")
    else:
        seen = look(place, runs=runs, measure=profile is None)
    timed = read_profile(Path(profile)) if profile is not None else seen.profile
    where = DEVICES[device] if device is not None else device_called(seen.gpu)
    reports = _reports(seen, timed, None if onnx is None else Path(onnx), where)
    traced = read_kernels(Path(kernels)) if kernels is not None else ()
    notes = _notes(seen, reports, where)
    return _inspection(str(path), seen.version, where, timed, reports, traced, notes)


def _reports(
    seen: Seen, timed: Optional[Profile], onnx: Optional[Path], device: Optional[Device]
) -> Tuple[LayerReport, ...]:
    layers = seen.layers.layers
    times: Sequence[Optional[float]] = times_of(layers, timed) if timed else [None] * len(layers)
    if onnx is None:
        work = own_work(layers)
    else:
        from detrx.estimate.run import node_operations

        work = work_of_nodes(layers, node_operations(str(onnx), batch=seen.images))
    return tuple(
        report_of(layer, ms=ms, work=many, device=device) for layer, ms, many in zip(layers, times, work)
    )


def _inspection(
    source: str,
    version: str,
    device: Optional[Device],
    timed: Optional[Profile],
    reports: Tuple[LayerReport, ...],
    kernels: Tuple[Kernel, ...],
    notes: Sequence[str],
) -> Inspection:
    levels = levels_of(reports, kernels, device)
    return Inspection(
        source=source,
        version=version,
        device=device.name if device else None,
        runs=timed.runs if timed else 0,
        ms=sum(layer.ms or 0 for layer in reports) if timed else None,
        gflop=sum(layer.gflop or 0 for layer in reports),
        layers=reports,
        time_by_precision=shares(reports, precision_of, _time),
        work_by_precision=shares(reports, precision_of, _work),
        time_by_operation=shares(reports, lambda layer: layer.operation, _time),
        levels=levels,
        reached=max((level.number for level in levels if level.reached), default=0),
        next=next_step(levels),
        kernels=kernels,
        notes=tuple(notes),
    )


def precision_of(layer: LayerReport) -> str:
    """The type that a layer computes in, or which of two reasons there is none."""
    return layer.precision or (NONE if layer.operation == "reformat" else UNTOLD)


def _time(layer: LayerReport) -> float:
    return layer.ms or 0.0


def _work(layer: LayerReport) -> float:
    return layer.gflop or 0.0


def shares(
    layers: Sequence[LayerReport], key: Callable[[LayerReport], str], amount: Callable[[LayerReport], float]
) -> Dict[str, float]:
    """How an amount of layers is shared out over a key, the largest share first; empty where there is none."""
    whole = sum(map(amount, layers))
    found: Dict[str, float] = {}
    for layer in layers:
        found[key(layer)] = found.get(key(layer), 0.0) + amount(layer)
    ordered = sorted(found.items(), key=lambda item: -item[1])
    return {name: some / whole for name, some in ordered if some} if whole else {}


def _notes(seen: Seen, reports: Sequence[LayerReport], device: Optional[Device]) -> List[str]:
    notes = []
    if seen.layers.profiles:
        notes.append(f"{seen.layers.profiles} layers of further optimisation profiles are left out")
    unknown = [layer for layer in reports if layer.gflop is None and layer.operation in SILENT]
    if unknown:
        first = short(unknown[0].name, most=40)
        of = f"{len(unknown)} of {len(reports)} layers"
        notes.append(f"not known from shapes: the work of {of}, as of {first}; --onnx tells it")
    for layer in reports:
        if device and layer.tflops and layer.tflops > SLACK * tensor_peak(device, layer.precision or "fp16"):
            notes.append(
                f"{short(layer.name, most=40)} would do {layer.tflops:.3g} TOP/s, more than {device.name} can: "
                "the times are of another device or of other shapes"
            )
            break
    wide = shares(reports, lambda layer: layer.precision, _work).get("fp32", 0.0)
    if seen.precision not in ("", "fp32") and wide > MUCH:
        notes.append(f"built as {seen.precision}, but {wide:.0%} of the known work is in fp32")
    return notes
