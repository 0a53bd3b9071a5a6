"""An engine on the GPU of this machine: what it says of itself, and its layers measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from detrx.errors import ConfigError, MissingBackendError
from detrx.export.engine import find_trtexec
from detrx.inspect import trtexec
from detrx.inspect.layers import EngineLayers, parse_layers, plain
from detrx.inspect.profile import EXPORT, Profile
from detrx.runtime import probe
from detrx.runtime.sidecar import Sidecar, read_sidecar
from detrx.runtime.tensorrt import TensorRtBackend, open_model

SUFFIXES = (".engine", ".plan")
WARMUP = 10


@dataclass(frozen=True)
class Seen:
    """What was seen of an engine."""

    layers: EngineLayers
    profile: Optional[Profile]
    version: str
    precision: str
    """What it was built for, as its description says."""
    images: int
    """Of one run."""
    gpu: str
    """The board or the card, as the system calls it."""


def look(path: Path, *, runs: int, measure: bool) -> Seen:
    """Open an engine, read its layers, and measure them over some runs; by trtexec where nothing else opens it.

    Raises:
        ConfigError: the file is no engine.
        EngineError, TrustError, DeviceError, MissingBackendError: as :func:`detrx.runtime.tensorrt.open_model` says.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"[inspect] expected an .engine, a .plan, or the .json of `trtexec --exportLayerInfo`, got {path}"
        )
    if not path.is_file():
        raise ConfigError(f"[inspect] no such file: {path}")
    sidecar = read_sidecar(path)
    try:
        backend = open_model(path, device="auto", threads=None)
    except MissingBackendError as error:
        return _by_trtexec(path, sidecar, runs, error)
    try:
        layers = parse_layers(backend.layers_json(), what=str(path))
        profile = _measure(backend, sidecar, runs) if measure else None
        gpu = f"{probe.jetson()} {backend.description}"
    finally:
        backend.close()
    return Seen(
        layers, profile, f"{sidecar.flavour} {sidecar.version}", sidecar.precision, sidecar.batch[1], gpu
    )


def _measure(backend: TensorRtBackend, sidecar: Sidecar, runs: int) -> Profile:
    pixels = np.zeros((sidecar.batch[1], 3, *sidecar.info.canvas), np.float32)
    for _ in range(WARMUP):
        backend.infer(pixels)
    return Profile(tuple((plain(name), ms) for name, ms in backend.profile(runs)), runs)


def _by_trtexec(path: Path, sidecar: Sidecar, runs: int, missing: MissingBackendError) -> Seen:
    try:
        if sidecar.flavour == "rtx":
            raise missing
        program = find_trtexec(None)
    except MissingBackendError:
        raise MissingBackendError(
            "a TensorRT that runs it",
            f"{missing} Or write its layers and times where there is trtexec, and inspect these: {EXPORT}",
        ) from missing
    layers, profile, gpu = trtexec.measure(program, path, sidecar, runs=runs)
    where = f"{probe.jetson()} {gpu}"
    return Seen(
        layers, profile, f"{sidecar.flavour} {sidecar.version}", sidecar.precision, sidecar.batch[1], where
    )
