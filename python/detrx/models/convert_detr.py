"""Weights of DETR under our names, and under those of the original code and of transformers: both ways.

Every table goes from our name to theirs. Only attention differs in more than its name: transformers keeps the three
packed projections apart.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detrx.errors import CheckpointError, ConfigError
from detrx.models.coco_names import COCO_IDS, COCO_NAMES, PANOPTIC_IDS
from detrx.models.config import DetrConfig
from detrx.models.convert import Rules, rewrite
from detrx.models.detr import Detr

RESNETS: dict[tuple[str, tuple[int, ...]], str] = {
    ("basic", (2, 2, 2, 2)): "resnet18",
    ("basic", (3, 4, 6, 3)): "resnet34",
    ("bottleneck", (3, 4, 6, 3)): "resnet50",
    ("bottleneck", (3, 4, 23, 3)): "resnet101",
    ("bottleneck", (3, 8, 36, 3)): "resnet152",
}
"""timm's names by kind of block and blocks of each stage."""
_COCO_COLUMNS = 91
"""What COCO's models have: one column an id of 0 to 90."""
_PANOPTIC_COLUMNS = 250
"""What COCO's panoptic models have; ids end at 200."""
_MASK_PARTS = ("mask_head.", "bbox_attention.")
"""What a model with masks has beside the detector, in all layouts."""
_OLD_TRANSFORMERS: Rules = (
    (r"^model\.backbone\.conv_encoder\.model\.", "model.backbone.model."),
    (r"^model\.backbone\.position_embedding\.", "model.position_embedding."),
    (r"\.out_proj\.", ".o_proj."),
    (r"(layers\.\d+)\.fc([12])\.", r"\1.mlp.fc\2."),
)
"""transformers 4 to 5; 5 itself writes files in the spelling of 4."""
_NEW_MASKS: Rules = (
    (r"^bbox_attention\.([qk])_proj\.", r"bbox_attention.\1_linear."),
    (r"^mask_head\.conv([12])\.conv\.", r"mask_head.lay\1."),
    (r"^mask_head\.conv([12])\.norm\.", r"mask_head.gn\1."),
    *((rf"^mask_head\.fpn_stages\.{i}\.fpn_adapter\.", f"mask_head.adapter{i + 1}.") for i in range(3)),
    *((rf"^mask_head\.fpn_stages\.{i}\.refine\.conv\.", f"mask_head.lay{i + 3}.") for i in range(3)),
    *((rf"^mask_head\.fpn_stages\.{i}\.refine\.norm\.", f"mask_head.gn{i + 3}.") for i in range(3)),
    (r"^mask_head\.output_conv\.", "mask_head.out_lay."),
)
"""The mask head of transformers 5 as 4, the original code and detrx spell it."""
_TO_TRANSFORMERS: Rules = (
    (r"^backbone\.net\.", "model.backbone.model."),
    (r"^positions\.row_embed\.", "model.position_embedding.row_embeddings."),
    (r"^positions\.col_embed\.", "model.position_embedding.column_embeddings."),
    (r"^input_proj\.", "model.input_projection."),
    (r"^query_embed\.", "model.query_position_embeddings."),
    (r"^class_embed\.", "class_labels_classifier."),
    (r"^bbox_embed\.", "bbox_predictor."),
    (r"^transformer\.decoder\.norm\.", "model.decoder.layernorm."),
    (r"^transformer\.", "model."),
    (r"\.multihead_attn\.", ".encoder_attn."),
    (r"_attn\.out_proj\.", "_attn.o_proj."),
    (r"(layers\.\d+)\.linear([12])\.", r"\1.mlp.fc\2."),
    (r"(layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(encoder\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"(decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
)


def original_name(key: str, *, masks: bool = False) -> str:
    """What facebookresearch/detr calls our tensor ``key``; the detector of a model with masks is a part of it."""
    key = re.sub(r"^backbone\.net\.", "backbone.0.body.", key)
    key = re.sub(r"^positions\.", "backbone.1.", key)
    return _inside(key) if masks else key


def _inside(key: str) -> str:
    return key if key.startswith(_MASK_PARTS) else f"detr.{key}"


def _plain_original(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Without the prefix of distributed training, and that of the detector in a model with masks."""
    return {key.removeprefix("module.").removeprefix("detr."): tensor for key, tensor in tensors.items()}


def transformers_name(key: str) -> str:
    """What transformers 5 calls our tensor ``key``; attention's packed projection stands for q, k and v."""
    return rewrite(key, _TO_TRANSFORMERS)


def is_original(tensors: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is of the original code, panoptic ones included."""
    return any(
        re.match(r"(module\.)?(detr\.)?transformer\.encoder\.layers\.0\.self_attn\.", key) for key in tensors
    )


def from_original(model: Detr, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict out of an original one.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape.
    """
    theirs = _plain_original(tensors)
    found = {key: theirs[name] for key in model.state_dict() if (name := original_name(key)) in theirs}
    return _checked(model, found, set(theirs) - {original_name(key) for key in found})


def to_original(model: Detr) -> dict[str, Tensor]:
    """The model's weights as the original code names them, for ``{"model": ...}``.

    Raises:
        CheckpointError: a model that the original code has not.
    """
    _refuse_ours(model)
    masks = model.config.masks
    return {
        original_name(key, masks=masks): tensor for key, tensor in model.state_dict().items() if _counts(key)
    }


def from_transformers(model: Detr, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict out of that of ``DetrForObjectDetection`` or ``DetrForSegmentation``, of transformers 4 or 5.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape.
    """
    theirs = _plain_transformers(tensors)
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for key in model.state_dict():
        parts = _parts(transformers_name(key))
        if all(part in theirs for part in parts):
            found[key] = torch.cat([theirs[part] for part in parts]) if len(parts) > 1 else theirs[parts[0]]
            used.update(parts)
    return _checked(model, found, set(theirs) - used)


def to_transformers(model: Detr) -> dict[str, Tensor]:
    """The model's weights in the spelling of transformers 4, which 5 reads and writes too.

    Raises:
        CheckpointError: a model that transformers has not.
    """
    _refuse_ours(model)
    if model.config.norm_first:
        raise CheckpointError("[convert] transformers has no pre-norm DETR; convert to facebook or detrx")
    out: dict[str, Tensor] = {}
    for key, tensor in model.state_dict().items():
        parts = _parts(transformers_name(key))
        chunks = tensor.chunk(3) if len(parts) > 1 else (tensor,)
        out |= {_as_transformers_4(part): chunk for part, chunk in zip(parts, chunks) if _counts(key)}
    return {_inside(key): tensor for key, tensor in out.items()} if model.config.masks else out


def _plain_transformers(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """As transformers 5 spells them, with timm's ResNet and a mask head as in 4, and no prefix for the detector."""
    plain = {key.removeprefix("detr."): tensor for key, tensor in tensors.items()}
    rules = (*_OLD_TRANSFORMERS, *_NEW_MASKS)
    return {_plain_resnet(rewrite(key, rules)): tensor for key, tensor in plain.items()}


def _as_transformers_4(name: str) -> str:
    name = name.replace("model.backbone.model.", "model.backbone.conv_encoder.model.")
    return name.replace("_attn.o_proj.", "_attn.out_proj.").replace(".mlp.fc", ".fc")


def _parts(name: str) -> list[str]:
    if ".in_proj_" not in name:
        return [name]
    stem, kind = name.split("in_proj_")
    return [f"{stem}{part}_proj.{kind}" for part in "qkv"]


def _plain_resnet(key: str) -> str:
    """transformers' own ResNet, without timm, to the names of timm's."""
    head, dot, rest = key.partition("model.backbone.model.")
    if not dot or not rest.startswith(("embedder.", "encoder.")):
        return key
    rest = re.sub(r"^embedder\.embedder\.convolution", "conv1", rest)
    rest = re.sub(r"^embedder\.embedder\.normalization", "bn1", rest)
    found = re.match(
        r"encoder\.stages\.(\d)\.layers\.(\d+)\.(?:shortcut|layer\.(\d))\.(conv|norm)\w+\.(\w+)", rest
    )
    if found:
        stage, block, part, kind, what = found.groups()
        own = (
            f"{'bn' if kind == 'norm' else 'conv'}{int(part) + 1}"
            if part
            else f"downsample.{int(kind == 'norm')}"
        )
        rest = f"layer{int(stage) + 1}.{block}.{own}.{what}"
    return f"{head}{dot}{rest}"


def _counts(key: str) -> bool:
    """Whether a tensor is part of what the model answers, and not what training alone reads."""
    return not key.endswith("num_batches_tracked") and not key.startswith("aids.")


def _refuse_ours(model: Detr) -> None:
    if not model.config.no_object:
        raise CheckpointError(
            '[convert] only a head with "no object" has a place in other layouts; keep this model in detrx\'s'
        )


def _checked(model: nn.Module, found: dict[str, Tensor], unused: set[str]) -> dict[str, Tensor]:
    own = model.state_dict()
    missing = [key for key in own if key not in found and _counts(key)]
    extra = sorted(filter(_counts, unused))
    misfit = [
        f"{key} {tuple(tensor.shape)} for {tuple(own[key].shape)}"
        for key, tensor in found.items()
        if tensor.shape != own[key].shape
    ]
    if missing or extra or misfit:
        raise CheckpointError(
            f"[convert] the weights must fit the model: {len(missing)} missing {missing[:3]}, "
            f"{len(extra)} unknown {extra[:3]}, {len(misfit)} of another shape {misfit[:3]}"
        )
    return {**{key: own[key] for key in own if key not in found}, **found}


def original_config(
    tensors: Mapping[str, Tensor], settings: Mapping[str, Any], *, name: str, names: tuple[str, ...] = ()
) -> tuple[DetrConfig, int]:
    """The configuration and the class count of an original state dict.

    Args:
        tensors: the state dict.
        settings: the arguments of a training checkpoint, or nothing. Heads and DC5 leave no trace in the weights.
        name: the file's, which then tells of DC5.
        names: the classes, where they are known.

    Raises:
        CheckpointError: a layout that is not known.
    """
    theirs = _plain_original(tensors)
    try:
        hidden = theirs["input_proj.weight"].shape[0]
        rows = theirs["class_embed.weight"].shape[0]
        found = {
            "backbone": _backbone_name(settings, theirs, "backbone.0.body."),
            "dilated": bool(settings.get("dilation", "dc5" in name.lower())),
            "hidden": hidden,
            "heads": int(settings.get("nheads", 8 if hidden % 8 == 0 else 1)),
            "encoder_layers": _layers(theirs, "transformer.encoder."),
            "decoder_layers": _layers(theirs, "transformer.decoder."),
            "feedforward": theirs["transformer.encoder.layers.0.linear1.weight"].shape[0],
            "dropout": float(settings.get("dropout", 0.1)),
            "queries": theirs["query_embed.weight"].shape[0],
            "positions": "learned" if "backbone.1.row_embed.weight" in theirs else "sine",
            "norm_first": "transformer.encoder.norm.weight" in theirs,
            "masks": _has_masks(theirs),
        }
    except (KeyError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"[convert] not the weights of a DETR: {error} is missing among {len(theirs)} tensors"
        ) from error
    return _configured(found, rows - 1, names)


def _configured(found: dict[str, Any], columns: int, names: tuple[str, ...] = ()) -> tuple[DetrConfig, int]:
    """Published weights mask padding; COCO's 91 columns are 80 classes, unless they are called otherwise, and with
    masks its 250 are 133."""
    panoptic = bool(found["masks"]) and columns == _PANOPTIC_COLUMNS
    by_id = (panoptic or columns == _COCO_COLUMNS) and (
        not names
        or names[: len(COCO_NAMES)] == COCO_NAMES
        or (len(names) == columns and tuple(names[i] for i in COCO_IDS) == COCO_NAMES)
    )
    ids = PANOPTIC_IDS if panoptic else COCO_IDS
    more: dict[str, Any] = {"head_classes": columns, "columns": ids} if by_id else {}
    ending = ("-dc5" if found["dilated"] else "") + ("-panoptic" if found["masks"] else "")
    name = f"detr-{str(found['backbone']).replace('resnet', 'r')}{ending}"
    try:
        config = DetrConfig(**{**found, **more, "name": name, "masked": True, "frozen_norm": True})
    except (ConfigError, TypeError) as error:
        raise CheckpointError(f"[convert] the weights ask for what this family has not: {error}") from error
    return config, len(ids) if by_id else columns


def _has_masks(theirs: Mapping[str, Tensor]) -> bool:
    return any(key.startswith(_MASK_PARTS) for key in theirs)


def _layers(theirs: Mapping[str, Tensor], head: str) -> int:
    return len({key.split(".")[3] for key in theirs if key.startswith(f"{head}layers.")})


def _resnet_of(theirs: Mapping[str, Tensor], head: str) -> str:
    """timm's name of the ResNet whose blocks the names tell of."""
    inner = [key.removeprefix(head) for key in theirs if key.startswith(head)]
    blocks = [
        {found[1] for key in inner if (found := re.match(rf"layer{i}\.(\d+)\.", key))} for i in (1, 2, 3, 4)
    ]
    kind = "bottleneck" if "layer1.0.conv3.weight" in inner else "basic"
    name = RESNETS.get((kind, tuple(map(len, blocks))))
    if name is None:
        raise CheckpointError(
            f"[convert] the backbone must be a ResNet-18, 34, 50, 101 or 152, found {kind} blocks "
            f"{tuple(map(len, blocks))}"
        )
    return name


def transformers_config(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[DetrConfig, int]:
    """The configuration that a transformers ``config.json`` of model_type detr tells of, and its class count.

    Raises:
        CheckpointError: it has parts that this family has not.
    """
    theirs = _plain_transformers(tensors)
    for one, other in (
        ("encoder_attention_heads", "decoder_attention_heads"),
        ("encoder_ffn_dim", "decoder_ffn_dim"),
    ):
        if settings.get(one) != settings.get(other):
            raise CheckpointError(f"[convert] {one} and {other} must be equal in config.json")
    if settings.get("activation_function", "relu") != "relu":
        raise CheckpointError("[convert] activation_function must be relu in config.json")
    if "class_labels_classifier.weight" not in theirs:
        raise CheckpointError("[convert] the weights must have class_labels_classifier.weight, found none")
    found = {
        "backbone": _backbone_name(settings, theirs, "model.backbone.model."),
        "dilated": bool(settings.get("dilation", False)),
        "hidden": settings.get("d_model", 256),
        "heads": settings.get("encoder_attention_heads", 8),
        "encoder_layers": settings.get("encoder_layers", 6),
        "decoder_layers": settings.get("decoder_layers", 6),
        "feedforward": settings.get("encoder_ffn_dim", 2048),
        "dropout": settings.get("dropout", 0.1),
        "queries": settings.get("num_queries", 100),
        "positions": settings.get("position_embedding_type", "sine"),
        "masks": _has_masks(theirs),
    }
    return _configured(found, theirs["class_labels_classifier.weight"].shape[0] - 1, label_names(settings))


def label_names(settings: Mapping[str, Any]) -> tuple[str, ...]:
    """The names of ``id2label`` in order, or none where they are only numbered or incomplete."""
    labels = settings.get("id2label")
    if not isinstance(labels, dict) or not all(str(i) in labels for i in range(len(labels))):
        return ()
    names = tuple(str(labels[str(i)]) for i in range(len(labels)))
    return () if all(re.fullmatch(r"LABEL_\d+", name) for name in names) else names


def _backbone_name(settings: Mapping[str, Any], theirs: Mapping[str, Tensor], head: str) -> str:
    """As the settings say, but the weights know better of which ResNet they are."""
    inner = settings.get("backbone_config") or {}
    name = inner.get("backbone") if isinstance(inner, dict) else None
    name = name or settings.get("backbone")
    if isinstance(name, str) and not name.startswith("resnet"):
        return name.split(".")[0]
    return _resnet_of(theirs, head)
