"""Tensors from files that somebody else may have written; nothing in them is ever run."""

from __future__ import annotations

import argparse
import json
import pickle
import struct
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from detrx.errors import CheckpointError, TrustError

MAX_HEADER = 64 * 2**20
"""Bytes of a safetensors header beyond which a file is refused."""
_HARMLESS: list[Any] = [
    argparse.Namespace,
    (PurePosixPath, "pathlib.PosixPath"),
    (PurePosixPath, "pathlib._local.PosixPath"),
]
"""What training scripts put beside their weights, and which is only data: their arguments."""
_PICKLE = (b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")


def read_safetensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Tensors and metadata of a safetensors file.

    Raises:
        CheckpointError: missing, empty, truncated or not such a file.
        TrustError: a pickle in disguise, or a header that would eat the memory.
    """
    _check_header(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return {key: file.get_tensor(key) for key in file.keys()}, dict(file.metadata() or {})  # noqa: SIM118
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of a safetensors file, without its tensors.

    Raises:
        CheckpointError, TrustError: as ``read_safetensors`` says.
    """
    _check_header(path)
    try:
        with safe_open(str(path), framework="pt") as file:
            return dict(file.metadata() or {})
    except (SafetensorError, ValueError, OSError) as error:
        raise _damaged(path, error) from error


def _damaged(path: Path, error: Exception) -> CheckpointError:
    return CheckpointError(f"[read] {path} is damaged: {error}; fetch or write it again")


def _first_bytes(path: Path, count: int) -> tuple[bytes, int]:
    try:
        with path.open("rb") as file:
            return file.read(count), path.stat().st_size
    except OSError as error:
        raise CheckpointError(f"[read] {path} cannot be opened: {error.strerror}") from error


def _check_header(path: Path) -> None:
    head, size = _first_bytes(path, 9)
    if head[8:9] != b"{" and head.startswith((b"PK\x03\x04", *_PICKLE)):
        raise TrustError(
            f"[read] {path} must be safetensors, found a pickle, which may run code; nothing was read"
        )
    if size < 9:
        raise CheckpointError(
            f"[read] {path} must be a safetensors file, found {size} bytes; fetch or write it again"
        )
    (length,) = struct.unpack("<Q", head[:8])
    if head[8:9] != b"{":
        raise CheckpointError(f"[read] {path} is not a safetensors file: it begins with {head!r}")
    if length > MAX_HEADER:
        raise TrustError(f"[read] {path} announces a header of {length} bytes, at most {MAX_HEADER} are read")
    if length + 8 > size:
        raise CheckpointError(
            f"[read] {path} is truncated: {size} bytes, its header alone needs {length + 8}; fetch it again"
        )


def read_pickled(path: Path) -> Any:
    """What ``torch.save`` wrote, as long as it is tensors, plain containers and argparse's Namespace.

    Raises:
        CheckpointError: missing, empty, truncated or not such a file.
        TrustError: the file asks for code to be run; nothing of it was.
    """
    head, size = _first_bytes(path, 4)
    if not head.startswith((b"PK\x03\x04", *_PICKLE)):
        raise CheckpointError(
            f"[read] {path} must be a file of torch.save, found {size} bytes that begin with {head!r}"
        )
    try:
        with torch.serialization.safe_globals(_HARMLESS):
            return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise TrustError(
            f"[read] {path} holds more than tensors and was not opened: {_refused(str(error))}. "
            "Save its state dict alone, where you trust it"
        ) from error
    except (RuntimeError, EOFError, OSError, ValueError, KeyError) as error:
        raise _damaged(path, error) from error


def _refused(message: str) -> str:
    lines = [line.strip() for line in message.splitlines() if "GLOBAL" in line or "Unsupported" in line]
    return lines[0] if lines else message.splitlines()[0]


def read_tensors(path: Path) -> dict[str, Tensor]:
    """A flat state dict from .safetensors, .pth, .pt or .bin, the EMA's where there is one.

    Raises:
        CheckpointError: unreadable, or no state dict inside.
        TrustError: the file would run code.
    """
    return read_weights(path)[0]


def read_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """As ``read_tensors``, and the arguments of the script that saved them, where it kept them; what detrx wrote of the
    model's classes is among them under "detrx".

    Raises:
        CheckpointError: unreadable, or no state dict inside.
        TrustError: the file would run code.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path)[0], {}
    found = read_pickled(path)
    args = found.get("args") if isinstance(found, dict) else None
    settings = dict(vars(args)) if isinstance(args, argparse.Namespace) else args
    settings = dict(settings) if isinstance(settings, dict) else {}
    if isinstance(found, dict) and isinstance(found.get("detrx"), str):
        settings["detrx"] = found["detrx"]
    return state_dict(found, source=str(path)), settings


def state_dict(found: Any, *, source: str) -> dict[str, Tensor]:
    """The weights inside what a training script saved: EMA first, then the model, then the thing itself."""
    for keys in (("ema", "module"), ("ema_model",), ("model",), ("state_dict",), ("module",)):
        inner = found
        for key in keys:
            inner = inner.get(key) if isinstance(inner, dict) else None
        if isinstance(inner, dict) and any(isinstance(value, Tensor) for value in inner.values()):
            found = inner
            break
    if not isinstance(found, dict) or not any(isinstance(value, Tensor) for value in found.values()):
        raise CheckpointError(
            f"[read] {source} must hold a state dict, found {type(found).__name__} without tensors"
        )
    return {str(key): value for key, value in found.items() if isinstance(value, Tensor)}


def read_json(path: Path) -> Any:
    """The content of a JSON file.

    Raises:
        CheckpointError: missing or not JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise CheckpointError(f"[read] {path} cannot be read: {error}") from error
