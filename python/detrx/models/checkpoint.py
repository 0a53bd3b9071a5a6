"""One file a checkpoint: safetensors, with all that is not a tensor as JSON in its header."""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from detrx.errors import CheckpointError, ConfigError
from detrx.models.config import KINDS, ModelConfig
from detrx.models.files import read_metadata, read_safetensors
from detrx.models.foreign import load_foreign
from detrx.models.zoo import Model, build
from detrx.types import ModelInfo

FORMAT_VERSION = 1
"""Rises when an older detrx could no longer read the file rightly."""
_KEY = "detrx"
_MODEL = ("ema.", "model.")
"""Where the weights to run are: a training state has its running average beside the weights that learn."""


@dataclass(frozen=True)
class Checkpoint:
    """What a checkpoint file holds."""

    info: ModelInfo
    """What the model is and was trained on."""
    config: ModelConfig
    """What builds the model."""
    tensors: dict[str, Tensor]
    """The model's under "model."; a training state's under its own prefixes."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Whatever JSON the writer added."""

    def part(self, prefix: str) -> dict[str, Tensor]:
        """The tensors whose names begin with ``prefix``, without it."""
        return {key[len(prefix) :]: value for key, value in self.tensors.items() if key.startswith(prefix)}


def save_checkpoint(
    path: str | Path,
    tensors: Mapping[str, Tensor],
    *,
    info: ModelInfo,
    config: ModelConfig,
    extra: Mapping[str, Any] | None = None,
) -> None:
    """Write a checkpoint so that ``path`` is always the old file or the new one, whole, even in a power cut.

    ``<stem>.json`` beside it repeats the header for people; nothing reads it.

    Args:
        path: ends in .safetensors.
        tensors: all on any device; the model's names begin with "model.".
        extra: JSON values.

    Raises:
        CheckpointError: the path has another ending.
        OSError: the disk is full or the folder cannot be written.
    """
    path = Path(path)
    if path.suffix != ".safetensors":
        raise CheckpointError(f"[save_checkpoint] path must end in .safetensors, got {path}")
    whole = {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}
    header = {
        "format_version": FORMAT_VERSION,
        "info": json.loads(info.to_json()),
        **_kind(config),
        "config": asdict(config),
        "extra": dict(extra or {}),
        "crc32": _checksum(whole),
    }
    text = json.dumps(header)
    replace_whole(path, lambda tmp: save_file(whole, str(tmp), metadata={_KEY: text}))
    pretty = json.dumps(
        {k: header[k] for k in ("format_version", "kind", "info", "config") if k in header}, indent=2
    )
    replace_whole(path.with_suffix(".json"), lambda tmp: tmp.write_text(pretty + "\n", encoding="utf-8"))


def _kind(config: ModelConfig) -> dict[str, str]:
    """The family; left out for the first one, whose files an older detrx reads."""
    kind = next(name for name, cls in KINDS.items() if isinstance(config, cls))
    return {} if kind == "rt" else {"kind": kind}


def _checksum(tensors: Mapping[str, Tensor]) -> int:
    total = 0
    for key in sorted(tensors):
        total = zlib.crc32(key.encode(), total)
        total = zlib.crc32(tensors[key].reshape(-1).view(torch.uint8).numpy().data, total)
    return total


def replace_whole(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a file so that ``path`` is always the old one or the new one, whole, even in a power cut."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        write(temporary)
        _sync(temporary)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    _sync(path.parent)


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def read_checkpoint(path: str | Path) -> Checkpoint:
    """Read what ``save_checkpoint`` wrote.

    Raises:
        CheckpointError: missing, damaged, not a detrx file, or written by a newer detrx.
        TrustError: a pickle in disguise or an impossible header.
    """
    path = Path(path)
    tensors, metadata = read_safetensors(path)
    if _KEY not in metadata:
        raise CheckpointError(
            f"[read_checkpoint] {path} must be a checkpoint of detrx, found tensors without its header; "
            "for the weights of other projects use load_model"
        )
    header = _header(path, metadata[_KEY])
    if header.get("crc32") != _checksum(tensors):
        raise CheckpointError(
            f"[read_checkpoint] {path} is damaged: its checksum differs; copy or train it again"
        )
    try:
        info = ModelInfo.from_json(json.dumps(header["info"]))
        return Checkpoint(info, _config(path, header), tensors, dict(header["extra"]))
    except (KeyError, TypeError, AttributeError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"[read_checkpoint] the header of {path} is not as detrx writes it: {error}"
        ) from error


def read_config(path: str | Path) -> ModelConfig | None:
    """The model of a checkpoint from its header alone, or None for the weights of other projects.

    Raises:
        CheckpointError, TrustError: as for ``read_checkpoint``.
    """
    path = Path(path)
    metadata = read_metadata(path) if path.suffix == ".safetensors" else {}
    return _config(path, _header(path, metadata[_KEY])) if _KEY in metadata else None


def _config(path: Path, header: Mapping[str, Any]) -> ModelConfig:
    try:
        settings: dict[str, Any] = {
            k: tuple(v) if isinstance(v, list) else v for k, v in header["config"].items()
        }
        return KINDS[header.get("kind", "rt")](**settings)
    except (KeyError, TypeError, AttributeError, ValueError, ConfigError) as error:
        raise CheckpointError(
            f"[read_checkpoint] the header of {path} is not as detrx writes it: {error}"
        ) from error


def _header(path: Path, text: str) -> dict[str, Any]:
    try:
        header = json.loads(text)
    except ValueError as error:
        raise CheckpointError(f"[read_checkpoint] the header of {path} is no JSON: {error}") from error
    version = header.get("format_version") if isinstance(header, dict) else None
    if not isinstance(version, int) or not 1 <= version <= FORMAT_VERSION:
        raise CheckpointError(
            f"[read_checkpoint] {path} must have a format_version from 1 to {FORMAT_VERSION}, "
            f"found {version!r}; a newer one needs a newer detrx"
        )
    return dict(header)


def load_model(path: str | Path) -> tuple[Model, ModelInfo]:
    """The model of a file, ready to run, in eval mode on the CPU.

    Reads checkpoints of detrx; official ones (.pth) of DETR, and of RT-DETR, RT-DETRv2, D-FINE and DEIM, of these the
    EMA where there is one; and folders or files of transformers with their config.json.

    Raises:
        CheckpointError: unreadable, or it fits none of these.
        TrustError: the file would run code.
    """
    path = Path(path)
    if path.suffix != ".safetensors" or _KEY not in read_metadata(path):
        model, info = load_foreign(path)
        return model.eval(), info
    found = read_checkpoint(path)
    model = build(found.config, classes=len(found.info.names))
    tensors = next((part for part in map(found.part, _MODEL) if part), {})
    load_exactly(model, tensors, source=str(path))
    return model.eval(), found.info


def load_exactly(model: nn.Module, tensors: Mapping[str, Tensor], *, source: str) -> None:
    """Load a state dict of which no tensor is missing, unknown, or of another shape or dtype.

    Raises:
        CheckpointError: with the number of differences and the first of each kind; nothing was loaded.
    """
    own = model.state_dict()
    missing = [key for key in own if key not in tensors]
    extra = [key for key in tensors if key not in own]
    misfit = [
        f"{key} {tuple(tensors[key].shape)} {tensors[key].dtype} for {tuple(value.shape)} {value.dtype}"
        for key, value in own.items()
        if key in tensors and (tensors[key].shape != value.shape or tensors[key].dtype != value.dtype)
    ]
    if missing or extra or misfit:
        raise CheckpointError(
            f"[load] {source} does not fit the model: {len(missing)} tensors missing {missing[:3]}, "
            f"{len(extra)} unknown {extra[:3]}, {len(misfit)} of another shape or dtype {misfit[:3]}"
        )
    model.load_state_dict(dict(tensors))
