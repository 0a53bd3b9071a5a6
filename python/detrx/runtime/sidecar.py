"""What lies beside a TensorRT engine: ``model.engine.json``, without which detrx does not open the engine.

An engine is a program for one TensorRT and one kind of GPU. TensorRT says so only after it has begun to run what is in
the file, so all that can be compared is written beside it and compared before.
"""

from __future__ import annotations

import hashlib
import json
import mmap
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

from detrx.errors import CheckpointError, EngineError, TrustError
from detrx.runtime.onnx import MORE, OUTPUTS
from detrx.types import ModelInfo

FORMAT_VERSION = 1
FLAVOURS = ("tensorrt", "rtx")
REBUILD = "detrx export WEIGHTS --to engine"
"""What to type on the machine that runs the engine."""


@dataclass(frozen=True)
class Sidecar:
    """How an engine was built, and of what."""

    info: ModelInfo
    """The model inside."""
    version: str
    """The TensorRT that built it, as "10.3.0"."""
    flavour: str
    """"tensorrt", or "rtx" for TensorRT-RTX, whose engines are another format."""
    engine_sha256: str
    """Of the engine file."""
    onnx_sha256: str
    """Of the graph that it was built from."""
    precision: str = "fp32"
    """As "fp32" or "fp16"."""
    batch: Tuple[int, int, int] = (1, 1, 1)
    """Images to one call: (fewest, most likely, most)."""
    compute_capability: Optional[str] = None
    """Of the GPU that it was built on and runs on, as "8.7"; None for an engine that any GPU compiles for itself."""
    driver: Optional[str] = None
    """The NVIDIA driver of the building machine."""
    plugin_sha256: Optional[str] = None
    """Of the library with the plugins that it uses; None where it uses none."""
    gate: Mapping[str, Any] = field(default_factory=dict)
    """What the comparison with the original model found."""

    def __post_init__(self) -> None:
        if self.flavour not in FLAVOURS:
            raise ValueError(f"[Sidecar] flavour must be one of {', '.join(FLAVOURS)}, got {self.flavour!r}")
        if len(self.batch) != 3 or not 1 <= self.batch[0] <= self.batch[1] <= self.batch[2]:
            raise ValueError(f"[Sidecar] batch must be (fewest, most likely, most) images, got {self.batch}")
        version_of(self.version)

    def to_json(self) -> str:
        return json.dumps(
            {
                "format_version": FORMAT_VERSION,
                "info": json.loads(self.info.to_json()),
                "tensorrt": {"version": self.version, "flavour": self.flavour},
                "compute_capability": self.compute_capability,
                "driver": self.driver,
                "engine_sha256": self.engine_sha256,
                "onnx_sha256": self.onnx_sha256,
                "plugin_sha256": self.plugin_sha256,
                "precision": self.precision,
                "batch": dict(zip(("min", "opt", "max"), self.batch)),
                "gate": dict(self.gate),
            },
            indent=1,
        )

    @staticmethod
    def from_json(text: str) -> Sidecar:
        """Read what to_json wrote. Keys of later versions are passed over.

        Raises:
            EngineError: not JSON, a key is missing, or a value does not fit.
        """
        try:
            found: Dict[str, Any] = json.loads(text)
            if found["format_version"] != FORMAT_VERSION:
                raise ValueError(f"format_version must be {FORMAT_VERSION}, got {found['format_version']!r}")
            batch = found["batch"]
            return Sidecar(
                info=ModelInfo.from_json(json.dumps(found["info"])),
                version=found["tensorrt"]["version"],
                flavour=found["tensorrt"]["flavour"],
                engine_sha256=found["engine_sha256"],
                onnx_sha256=found["onnx_sha256"],
                precision=found["precision"],
                batch=(batch["min"], batch["opt"], batch["max"]),
                compute_capability=found["compute_capability"],
                driver=found["driver"],
                plugin_sha256=found["plugin_sha256"],
                gate=found["gate"],
            )
        except (AttributeError, CheckpointError, KeyError, TypeError, ValueError) as error:
            what = f"no {error}" if isinstance(error, KeyError) else str(error)
            raise EngineError(
                f"[Sidecar] not a description of an engine: {what}; `{REBUILD}` writes one"
            ) from error


def version_of(text: str) -> Tuple[int, int, int]:
    """``"10.3.0"`` as numbers; what follows the third is left out.

    Raises:
        ValueError: fewer than three numbers.
    """
    parts = text.split(".")
    if len(parts) < 3 or not all(part.isdigit() for part in parts[:3]):
        raise ValueError(f"a TensorRT version must be as 10.3.0, got {text!r}")
    return int(parts[0]), int(parts[1]), int(parts[2])


def sidecar_path(engine: Path) -> Path:
    """``model.engine.json`` of ``model.engine``."""
    return engine.with_name(f"{engine.name}.json")


def file_sha256(path: Path) -> str:
    """The SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    if path.stat().st_size:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            digest.update(content)
    return digest.hexdigest()


def read_sidecar(engine: Path) -> Sidecar:
    """The description beside an engine, and proof that the engine is the one that it describes.

    Raises:
        TrustError: there is no description.
        EngineError: it is damaged, or the engine is empty or not the one that was built.
    """
    place = sidecar_path(engine)
    if not place.is_file():
        raise TrustError(
            f"[engine] {engine} has no {place.name} beside it, and an engine is a program that would be run unseen; "
            f"copy the two together, or build it here: `{REBUILD}`"
        )
    try:
        sidecar = Sidecar.from_json(place.read_text(encoding="utf-8"))
    except (EngineError, UnicodeDecodeError) as error:
        raise EngineError(f"[engine] {place} is damaged: {error}") from error
    found = file_sha256(engine)
    if found != sidecar.engine_sha256:
        size = engine.stat().st_size
        raise EngineError(
            f"[engine] {engine} ({size} bytes, SHA-256 {found[:12]}) is not the file that {place.name} describes "
            f"(SHA-256 {sidecar.engine_sha256[:12]}): it is empty, cut off, changed or another engine's; "
            f"copy both again, or build it here: `{REBUILD}`"
        )
    return sidecar


def require_fit(
    path: Path,
    sidecar: Sidecar,
    *,
    version: Optional[Tuple[int, ...]] = None,
    flavour: str = "tensorrt",
    capability: str = "",
) -> None:
    """Refuse an engine of another TensorRT or another kind of GPU.

    Args:
        version: of the TensorRT that would run it; None does not compare.
        flavour: of the same, "tensorrt" or "rtx".
        capability: of the GPU that would run it, as "8.7"; empty does not compare.

    Raises:
        EngineError: it does not fit; both sides are named.
    """
    here = ".".join(map(str, version or ()))
    if version and (flavour != sidecar.flavour or tuple(version[:3]) != version_of(sidecar.version)):
        raise EngineError(
            f"[engine] {path} was built with {sidecar.flavour} {sidecar.version}, and this machine has {flavour} "
            f"{here}; engines run on the version that built them. Build it here: `{REBUILD}`"
        )
    if capability and sidecar.compute_capability and capability != sidecar.compute_capability:
        raise EngineError(
            f"[engine] {path} was built for a GPU of compute capability {sidecar.compute_capability}, and this one has "
            f"{capability}; engines run on the kind of GPU that built them. Build it here: `{REBUILD}`"
        )


def outputs_of(tensors: Dict[str, Any], path: Path) -> Tuple[str, ...]:
    """The outputs of a graph of detrx, in the order of Raw's fields.

    Raises:
        EngineError: it is another graph.
    """
    if "pixels" not in tensors or not set(OUTPUTS) <= set(tensors):
        raise EngineError(
            f"[engine] {path} must take 'pixels' and give {', '.join(OUTPUTS)}, its tensors are "
            f"{', '.join(sorted(tensors))}; build it from a graph of detrx: `{REBUILD}`"
        )
    return (*OUTPUTS, *(name for name in MORE if name in tensors))
