"""Models from files that other projects wrote, with what is known of their classes and pixels."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from torch import Tensor

from detrx.errors import CheckpointError
from detrx.models import convert_detr
from detrx.models.coco_names import COCO_IDS, COCO_NAMES, PANOPTIC_IDS, PANOPTIC_NAMES
from detrx.models.config import DetrConfig
from detrx.models.convert import from_official, from_transformers, official_config, transformers_config
from detrx.models.detr import Detr
from detrx.models.files import read_json, read_tensors, read_weights
from detrx.models.zoo import Model, build
from detrx.types import ModelInfo

_CANVAS = (640, 640)
"""All official models of the rt family were trained on it."""
_DETR_CANVAS, _DETR_SIDES = (800, 1344), (800, 1333)
"""What DETR is scored at, and a canvas that holds such a picture where it lies on its long side."""
_ENDINGS = (".safetensors", ".pth", ".pt", ".bin")


def load_foreign(path: Path) -> tuple[Model, ModelInfo]:
    """The model and what is known of it.

    Raises:
        CheckpointError: unreadable, or no model of this family.
        TrustError: the file would run code.
    """
    if path.is_dir():
        return _from_folder(path, _read_all(path))
    if path.suffix not in _ENDINGS:
        raise CheckpointError(f"[load_model] {path} must end in one of {', '.join(_ENDINGS)}, or be a folder")
    tensors, settings = read_weights(path)
    if (
        any(key.startswith(("model.", "detr.model.")) for key in tensors)
        and (path.parent / "config.json").is_file()
    ):
        return _from_folder(path.parent, tensors)
    if convert_detr.is_original(tensors):
        return _original_detr(path, tensors, settings)
    config, classes = official_config(tensors)
    model = build(config, classes=classes)
    model.load_state_dict(from_official(model, tensors))
    return model, _info(config.name, _usual_names(classes), origin=f"official layout, {path.name}")


def _original_detr(
    path: Path, tensors: Mapping[str, Tensor], settings: Mapping[str, Any]
) -> tuple[Detr, ModelInfo]:
    told = _told(settings)
    config, classes = convert_detr.original_config(
        tensors, settings, name=path.name, names=told.names if told else ()
    )
    model = build(config, classes=classes)
    model.load_state_dict(convert_detr.from_original(model, tensors))
    info = _detr_info(config, classes, (), origin=f"layout of facebookresearch/detr, {path.name}")
    return _described(model, info, told)


def _told(settings: Mapping[str, Any]) -> ModelInfo | None:
    """What detrx wrote of the model, where it was detrx that wrote the file."""
    told = settings.get("detrx")
    if told is None:
        return None
    return ModelInfo.from_json(told if isinstance(told, str) else json.dumps(told))


def _described(model: Detr, info: ModelInfo, told: ModelInfo | None) -> tuple[Detr, ModelInfo]:
    if told is None:
        return model, info
    if len(told.names) != model.classes:
        raise CheckpointError(
            f"[load_model] the file says that it has {len(told.names)} classes, its head has {model.classes}"
        )
    model.config = replace(model.config, masked=told.marked, name=told.model)
    return model, told


def _detr_info(config: DetrConfig, classes: int, names: tuple[str, ...], *, origin: str) -> ModelInfo:
    """DETR takes ImageNet's normalisation and looks away from what is not picture."""
    if config.columns == PANOPTIC_IDS:
        names, ids = PANOPTIC_NAMES, PANOPTIC_IDS
    elif config.columns == COCO_IDS:
        names, ids = COCO_NAMES, COCO_IDS
    else:
        names = names or _usual_names(classes)
        ids = _ids(names)
    return ModelInfo(
        model=config.name,
        names=names,
        category_ids=ids,
        canvas=_DETR_CANVAS,
        licence=f"not stated in the file ({origin}); Apache-2.0 where it is facebookresearch/detr's own",
        marked=True,
        sides=_DETR_SIDES,
        things=tuple(i in COCO_IDS for i in ids) if config.columns == PANOPTIC_IDS else (),
    )


def _read_all(folder: Path) -> dict[str, Tensor]:
    for pattern in ("model*.safetensors", "pytorch_model*.bin"):
        files = sorted(folder.glob(pattern))
        if files:
            return {key: tensor for file in files for key, tensor in read_tensors(file).items()}
    raise CheckpointError(
        f"[load_model] {folder} must hold config.json and model.safetensors, found no weights"
    )


def _from_folder(folder: Path, tensors: Mapping[str, Tensor]) -> tuple[Model, ModelInfo]:
    settings = read_json(folder / "config.json")
    if not isinstance(settings, dict):
        raise CheckpointError(f"[load_model] {folder / 'config.json'} must hold an object")
    if settings.get("model_type") == "detr":
        return _transformers_detr(folder, settings, tensors)
    config, classes = transformers_config(settings, tensors)
    model = build(config, classes=classes)
    model.load_state_dict(from_transformers(model, tensors))
    labels = settings.get("id2label") or {}
    numbered = isinstance(labels, dict) and all(str(i) in labels for i in range(classes))
    named = tuple(str(labels[str(i)]) for i in range(classes)) if numbered else None
    info = _info(config.name, named or _usual_names(classes), origin=f"transformers layout, {folder.name}")
    return model, _as_preprocessed(folder, info)


def _transformers_detr(
    folder: Path, settings: Mapping[str, Any], tensors: Mapping[str, Tensor]
) -> tuple[Detr, ModelInfo]:
    config, classes = convert_detr.transformers_config(settings, tensors)
    model = build(config, classes=classes)
    model.load_state_dict(convert_detr.from_transformers(model, tensors))
    names = convert_detr.label_names(settings)
    if len(names) != classes:
        names = ()
    info = _detr_info(config, classes, names, origin=f"transformers layout, {folder.name}")
    return _described(model, _as_preprocessed(folder, info), _told(settings))


def _usual_names(classes: int) -> tuple[str, ...]:
    return COCO_NAMES if classes == len(COCO_NAMES) else tuple(f"class {i}" for i in range(classes))


def _info(model: str, names: tuple[str, ...], *, origin: str) -> ModelInfo:
    """The official models take pixels in [0, 1] as they are, without ImageNet's mean and deviation."""
    return ModelInfo(
        model=model,
        names=names,
        category_ids=_ids(names),
        canvas=_CANVAS,
        mean=(0.0, 0.0, 0.0),
        std=(1.0, 1.0, 1.0),
        licence=f"not stated in the file ({origin}); ask its publisher",
    )


def _ids(names: tuple[str, ...]) -> tuple[int, ...]:
    return COCO_IDS if names == COCO_NAMES else tuple(range(len(names)))


def _as_preprocessed(folder: Path, info: ModelInfo) -> ModelInfo:
    """What preprocessor_config.json says of size and normalisation."""
    file = folder / "preprocessor_config.json"
    if not file.is_file():
        return info
    found: dict[str, Any] = read_json(file)
    try:
        size = found.get("size") or {}
        if isinstance(size, int):  # as transformers wrote it at first
            size = {"shortest_edge": size, "longest_edge": found.get("max_size", 1333)}
        if "height" in size and "width" in size:
            info = replace(info, canvas=(int(size["height"]), int(size["width"])), sides=())
        if info.sides and "shortest_edge" in size:
            info = replace(info, sides=(int(size["shortest_edge"]), int(size.get("longest_edge", 1333))))
        if found.get("do_normalize"):
            mean, std = (tuple(float(v) for v in found[key]) for key in ("image_mean", "image_std"))
            info = replace(info, mean=(mean[0], mean[1], mean[2]), std=(std[0], std[1], std[2]))
    except (AttributeError, KeyError, TypeError, ValueError, IndexError) as error:
        raise CheckpointError(f"[load_model] {file} is not usable: {error}") from error
    return info
