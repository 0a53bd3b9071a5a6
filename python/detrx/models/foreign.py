"""Models from files that other projects wrote, with what is known of their classes and pixels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from detrx.errors import CheckpointError
from detrx.models.coco_names import COCO_IDS, COCO_NAMES
from detrx.models.convert import from_official, from_transformers, official_config, transformers_config
from detrx.models.files import read_json, read_tensors
from detrx.models.rt import RtDetr
from detrx.models.zoo import build
from detrx.types import ModelInfo

_CANVAS = (640, 640)
"""All official models were trained on it."""
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")


def load_foreign(path: Path) -> tuple[RtDetr, ModelInfo]:
    """The model and what is known of it.

    Raises:
        CheckpointError: unreadable, or no model of this family.
        TrustError: the file would run code.
    """
    if path.is_dir():
        return _from_folder(path, _read_all(path))
    if path.suffix not in _ENDINGS:
        raise CheckpointError(f"[load_model] {path} must end in one of {', '.join(_ENDINGS)}, or be a folder")
    tensors = read_tensors(path)
    if any(key.startswith("model.") for key in tensors) and (path.parent / "config.json").is_file():
        return _from_folder(path.parent, tensors)
    config, classes = official_config(tensors)
    model = build(config, classes=classes)
    model.load_state_dict(from_official(model, tensors))
    return model, _info(config.name, _usual_names(classes), origin=f"official layout, {path.name}")


def _read_all(folder: Path) -> dict[str, Tensor]:
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        files = sorted(folder.glob(pattern))
        if files:
            return {key: tensor for file in files for key, tensor in read_tensors(file).items()}
    raise CheckpointError(
        f"[load_model] {folder} must hold config.json and model.safetensors, found no weights"
    )


def _from_folder(folder: Path, tensors: Mapping[str, Tensor]) -> tuple[RtDetr, ModelInfo]:
    settings = read_json(folder / "config.json")
    if not isinstance(settings, dict):
        raise CheckpointError(f"[load_model] {folder / 'config.json'} must hold an object")
    config, classes = transformers_config(settings, tensors)
    model = build(config, classes=classes)
    model.load_state_dict(from_transformers(model, tensors))
    labels = settings.get("id2label") or {}
    numbered = isinstance(labels, dict) and all(str(i) in labels for i in range(classes))
    named = tuple(str(labels[str(i)]) for i in range(classes)) if numbered else None
    info = _info(config.name, named or _usual_names(classes), origin=f"transformers layout, {folder.name}")
    return model, _as_preprocessed(folder, info)


def _usual_names(classes: int) -> tuple[str, ...]:
    return COCO_NAMES if classes == len(COCO_NAMES) else tuple(f"class {i}" for i in range(classes))


def _info(model: str, names: tuple[str, ...], *, origin: str) -> ModelInfo:
    """The official models take pixels in [0, 1] as they are, without ImageNet's mean and deviation."""
    ids = COCO_IDS if names == COCO_NAMES else tuple(range(len(names)))
    return ModelInfo(
        model=model,
        names=names,
        category_ids=ids,
        canvas=_CANVAS,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        licence=f"not stated in the file ({origin}); ask its publisher",
    )


def _as_preprocessed(folder: Path, info: ModelInfo) -> ModelInfo:
    """What preprocessor_config.json says of size and normalisation."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return info
    found: dict[str, Any] = read_json(file)
    try:
        size = found.get("size") or {}
        if "height" in size and "width" in size:
            info = replace(info, canvas=(int(size["height"]), int(size["width"])))
        if found.get("do_normalize"):
            mean, std = (tuple(float(v) for v in found[key]) for key in ("image_mean", "image_std"))
            info = replace(info, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"[load_model] {file} is not usable: {error}") from error
    return info
