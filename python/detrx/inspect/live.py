"""An engine on the GPU of this machine: what it says of itself, and its layers measured."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Optional

import numpy as np

from detrx.errors import ConfigError
from detrx.inspect.layers import EngineLayers, parse_layers, plain
from detrx.inspect.profile import Profile
from detrx.runtime import probe
from detrx.runtime.sidecar import read_sidecar
from detrx.runtime.tensorrt import open_model

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
    gpu: str
    """The board or the card, as the system calls it."""


def look(path: Path, *, runs: int, measure: bool) -> Seen:
    """Open an engine, read its layers, and measure them over some runs.

    Raises:
        ConfigError: the file is no engine.
        EngineError, TrustError, DeviceError, MissingBackendError: as :func:`detrx.runtime.tensorrt.open_model` says.
    """
    if path.suffix not in SUFFIXES:
        raise ConfigError(
            f"[inspect] expected an .engine, a .plan, or the .json of `trtexec --exportLayerInfo`, got {path}"
        )
    sidecar = read_sidecar(path)
    backend = open_model(path, device="auto", threads=None)
    try:
        layers = parse_layers(backend.layers_json(), what=str(path))
        rows = None
        if measure:
            pixels = np.zeros((sidecar.batch[1], 3, *sidecar.info.canvas), np.float32)
            for _ in range(WARMUP):
                backend.infer(pixels)
            rows = tuple((plain(name), ms) for name, ms in backend.profile(runs))
        gpu = f"{probe.jetson()} {backend.description}"
    finally:
        backend.close()
    profile = None if rows is None else Profile(rows, runs)
    return Seen(layers, profile, f"{sidecar.flavour} {sidecar.version}", sidecar.precision, gpu)
