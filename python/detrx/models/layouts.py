"""Write a model in the layout of another project, and read it back without loss."""

from __future__ import annotations

import argparse
import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from detrx.errors import CheckpointError, ConfigError
from detrx.models import hub
from detrx.models.checkpoint import load_model, replace_whole, save_checkpoint
from detrx.models.config import DetrConfig
from detrx.models.convert_detr import to_original, to_transformers
from detrx.models.detr import Detr
from detrx.models.lighten import lighten
from detrx.models.zoo import Model, build
from detrx.types import ModelInfo

LAYOUTS = ("detrx", "facebook", "transformers")
"""One .safetensors file; a .pth as of facebookresearch/detr; a folder as of transformers."""


@dataclass(frozen=True)
class Converted:
    """What was written."""

    path: Path
    layout: str
    info: ModelInfo
    tensors: int
    notes: tuple[str, ...]
    """What the layout cannot say, for people."""


def convert(
    source: str | Path,
    out: str | Path,
    *,
    to: str,
    dc5: bool = False,
    layers: int | None = None,
    queries: int | None = None,
) -> Converted:
    """Write any weights that ``load_model`` reads in another layout, or with less to compute.

    Args:
        source: a file, a folder of transformers, or a published name.
        out: the file to write, for transformers the folder.
        to: one of LAYOUTS.
        dc5: the weights are of a DC5 model, which neither they nor their file's name say.
        layers: decoder layers to keep, from the first on; None: all.
        queries: queries to keep, of the rt family; None: all.

    Raises:
        ConfigError: no such layout, ``out`` does not end as it asks, or more layers or queries than there are.
        CheckpointError: unreadable, or a model that the layout has no place for.
        TrustError: the file would run code.
        DownloadError: a published name that cannot be fetched.
    """
    out = Path(out)
    _check_out(out, to)
    model, info = load_model(hub.local(source))
    if dc5:
        model, info = _dilated(model, info)
    if layers is not None or queries is not None:
        model = lighten(model, layers=layers, queries=queries)
    if to == "detrx":
        tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
        out.parent.mkdir(parents=True, exist_ok=True)
        save_checkpoint(out, tensors, info=info, config=model.config)
        return Converted(out, to, info, len(tensors), ())
    if not isinstance(model, Detr):
        raise CheckpointError(
            f"[convert] only the detr family goes to {to}, {info.model} is none; use --to detrx"
        )
    write = save_facebook if to == "facebook" else save_transformers
    return Converted(out, to, info, write(out, model, info), _notes(to, model, info))


def _check_out(out: Path, to: str) -> None:
    if to not in LAYOUTS:
        raise ConfigError(f"[convert] to must be one of {', '.join(LAYOUTS)}, got {to!r}")
    ending = {"detrx": ".safetensors", "facebook": ".pth", "transformers": ""}[to]
    if out.suffix != ending and (ending or out.is_file()):
        raise ConfigError(
            f"[convert] for {to} the output must end in {ending or 'nothing: it is a folder'}, got {out}"
        )


def _dilated(model: Model, info: ModelInfo) -> tuple[Detr, ModelInfo]:
    """The same weights with the last stage dilated."""
    if not isinstance(model, Detr):
        raise ConfigError(f"[convert] dc5 is for the detr family, {info.model} is none")
    name = info.model if info.model.endswith("-dc5") else f"{info.model}-dc5"
    again = build(dataclasses.replace(model.config, dilated=True, name=name), classes=model.classes)
    again.load_state_dict(model.state_dict())
    return again.eval(), dataclasses.replace(info, model=name)


def _notes(to: str, model: Detr, info: ModelInfo) -> tuple[str, ...]:
    notes = []
    if not info.marked:
        notes.append(
            "this model was trained with grey around its pictures; the other code masks its padding instead"
        )
    if to == "transformers" and not info.sides:
        notes.append("transformers stretches pictures to the canvas, where detrx keeps their shape")
    if to == "facebook" and not model.config.backbone.startswith("resnet"):
        notes.append(f"facebookresearch/detr has no {model.config.backbone}; only detrx reads this file")
    return tuple(notes)


def save_facebook(path: Path, model: Detr, info: ModelInfo) -> int:
    """Write ``{"model": ..., "args": Namespace}`` as the original main.py does; returns the number of tensors.

    The arguments tell of DC5 and of the attention heads; the description of the classes is added under "detrx".

    Raises:
        CheckpointError: a model that the original code has not.
    """
    tensors = _on_cpu(to_original(model))
    whole = {
        "model": tensors,
        "args": argparse.Namespace(**_arguments(model.config)),
        "detrx": info.to_json(),
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    replace_whole(path, lambda draft: torch.save(whole, draft))
    return len(tensors)


def _arguments(config: DetrConfig) -> dict[str, Any]:
    """The options of the original main.py that define a model."""
    return {
        "backbone": config.backbone,
        "dilation": config.dilated,
        "position_embedding": config.positions,
        "enc_layers": config.encoder_layers,
        "dec_layers": config.decoder_layers,
        "dim_feedforward": config.feedforward,
        "hidden_dim": config.hidden,
        "dropout": config.dropout,
        "nheads": config.heads,
        "num_queries": config.queries,
        "pre_norm": config.norm_first,
        "aux_loss": config.auxiliary,
        "masks": config.masks,
    }


def save_transformers(folder: Path, model: Detr, info: ModelInfo) -> int:
    """Write a folder for ``from_pretrained`` of transformers 4.x or 5.x; returns the number of tensors.

    Raises:
        CheckpointError: a model that transformers has not.
    """
    tensors = _on_cpu(to_transformers(model))
    folder.mkdir(parents=True, exist_ok=True)
    replace_whole(
        folder / "model.safetensors", lambda draft: save_file(tensors, str(draft), metadata={"format": "pt"})
    )
    _write_json(folder / "config.json", _their_config(model, info))
    _write_json(folder / "preprocessor_config.json", _their_preprocessor(info))
    return len(tensors)


def _on_cpu(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {key: tensor.detach().cpu().contiguous().clone() for key, tensor in tensors.items()}


def _write_json(path: Path, content: Mapping[str, Any]) -> None:
    text = json.dumps(content, indent=2) + "\n"
    replace_whole(path, lambda draft: draft.write_text(text, encoding="utf-8"))


def _their_config(model: Detr, info: ModelInfo) -> dict[str, Any]:
    config = model.config
    names = column_names(config, info)
    return {
        "architectures": ["DetrForSegmentation" if config.masks else "DetrForObjectDetection"],
        "model_type": "detr",
        "use_timm_backbone": True,
        "use_pretrained_backbone": False,
        "backbone": config.backbone,
        "dilation": config.dilated,
        "d_model": config.hidden,
        "encoder_layers": config.encoder_layers,
        "decoder_layers": config.decoder_layers,
        "encoder_attention_heads": config.heads,
        "decoder_attention_heads": config.heads,
        "encoder_ffn_dim": config.feedforward,
        "decoder_ffn_dim": config.feedforward,
        "activation_function": "relu",
        "dropout": config.dropout,
        "num_queries": config.queries,
        "position_embedding_type": config.positions,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "detrx": json.loads(info.to_json()),
    }


def column_names(config: DetrConfig, info: ModelInfo) -> list[str]:
    """The name of every column of the head; "N/A" where one stands for no class."""
    if not config.columns:
        return list(info.names)
    names = ["N/A"] * config.head_classes
    for column, name in zip(config.columns, info.names, strict=True):
        names[column] = name
    return names


def _their_preprocessor(info: ModelInfo) -> dict[str, Any]:
    height, width = info.canvas
    size = {"height": height, "width": width}
    if info.sides:
        size = {"shortest_edge": info.sides[0], "longest_edge": info.sides[1]}
    return {
        "image_processor_type": "DetrImageProcessor",
        "format": "coco_panoptic" if info.things else "coco_detection",
        "do_resize": True,
        "size": size,
        "resample": 2,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(info.mean),
        "image_std": list(info.std),
        "do_pad": True,
    }
