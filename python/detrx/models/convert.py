"""Weights of other code bases under our names: official RT-DETRv2, D-FINE, DEIM, and transformers.

Our encoder and decoder carry the official names, so little is left to translate there; the backbone carries
timm's. Every table goes from our name to theirs, which makes a missing or an unused tensor visible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from detrx.errors import CheckpointError, ConfigError
from detrx.models.backbone import Backbone
from detrx.models.config import RtConfig
from detrx.models.rt import RtDetr
from detrx.models.zoo import RT_MODELS

_RECOMPUTED = re.compile(
    r"decoder\.(anchors|valid_mask)$|decoder\.decoder\.(up|reg_scale)$|encoder\.(feature_projector|pos_embed)"
)
"""Official tensors that follow from the canvas, are doubled, or only served a distillation (RT-DETRv4)."""
_OPTIONAL = ("num_batches_tracked", "num_points_scale")
"""Ours that may be missing: counters, and a constant that RT-DETR v1 did not save."""
_STEM = {
    "conv1.0": (1, 0),
    "conv1.1": (1, 1),
    "conv1.3": (2, 0),
    "conv1.4": (2, 1),
    "conv1.6": (3, 0),
    "bn1": (3, 1),
}
"""ResNet-D stem: timm's name to (which convolution, 0 convolution or 1 norm)."""

Rules = tuple[tuple[str, str], ...]
_OLD_OFFICIAL: Rules = (
    (r"^module\.", ""),
    (r"^((?:en|de)coder\.input_proj\.\d+)\.0\.", r"\1.conv."),
    (r"^((?:en|de)coder\.input_proj\.\d+)\.1\.", r"\1.norm."),
    (r"^decoder\.enc_output\.0\.", "decoder.enc_output.proj."),
    (r"^decoder\.enc_output\.1\.", "decoder.enc_output.norm."),
)
"""RT-DETR v1's spelling to that of v2."""
_OLD_TRANSFORMERS: Rules = (
    (r"^(class|bbox)_embed\.", r"model.decoder.\1_embed."),
    (r"\.out_proj\.", ".o_proj."),
    (r"encoder\.encoder\.(\d+)\.layers", r"encoder.aifi.\1.layers"),
    (r"(layers\.\d+)\.(?:mlp\.layers\.0|fc1)\.", r"\1.mlp.fc1."),
    (r"(layers\.\d+)\.(?:mlp\.layers\.1|fc2)\.", r"\1.mlp.fc2."),
    (r"\.n_points_scale$", ".num_points_scale"),
)
"""Spellings of transformers 4 and 5, and of its two model classes, to one."""
_TO_TRANSFORMERS: Rules = (
    (r"^encoder\.input_proj\.(\d+)\.conv", r"model.encoder_input_proj.\1.0"),
    (r"^encoder\.input_proj\.(\d+)\.norm", r"model.encoder_input_proj.\1.1"),
    (r"^encoder\.encoder\.(\d+)\.", r"model.encoder.aifi.\1."),
    (r"^encoder\.(fpn_blocks|pan_blocks)\.(\d+)\.cv([23])\.1\.", r"model.encoder.\1.\2.conv\3."),
    (r"^encoder\.(fpn_blocks|pan_blocks)\.(\d+)\.cv2\.0\.", r"model.encoder.\1.\2.csp_rep1."),
    (r"^encoder\.(fpn_blocks|pan_blocks)\.(\d+)\.cv3\.0\.", r"model.encoder.\1.\2.csp_rep2."),
    (r"^encoder\.(fpn_blocks|pan_blocks)\.(\d+)\.cv([14])\.", r"model.encoder.\1.\2.conv\3."),
    (r"^encoder\.downsample_convs\.(\d+)\.0\.cv", r"model.encoder.downsample_convs.\1.conv"),
    (r"^encoder\.", "model.encoder."),
    (r"^decoder\.input_proj\.(\d+)\.conv", r"model.decoder_input_proj.\1.0"),
    (r"^decoder\.input_proj\.(\d+)\.norm", r"model.decoder_input_proj.\1.1"),
    (r"^decoder\.enc_output\.proj", "model.enc_output.0"),
    (r"^decoder\.enc_output\.norm", "model.enc_output.1"),
    (r"^decoder\.(enc_\w+|denoising_class_embed)", r"model.\1"),
    (r"^decoder\.decoder\.", "model.decoder."),
    (r"^decoder\.dec_score_head", "model.decoder.class_embed"),
    (r"^decoder\.dec_bbox_head", "model.decoder.bbox_embed"),
    (r"^decoder\.", "model.decoder."),
    (r"\.cross_attn\.", ".encoder_attn."),
    (r"\.self_attn\.out_proj\.", ".self_attn.o_proj."),
    (r"(layers\.\d+)\.linear([12])\.", r"\1.mlp.fc\2."),
    (r"(layers\.\d+)\.norm1\.", r"\1.self_attn_layer_norm."),
    (r"(aifi\.\d+\.layers\.\d+)\.norm2\.", r"\1.final_layer_norm."),
    (r"(model\.decoder\.layers\.\d+)\.norm2\.", r"\1.encoder_attn_layer_norm."),
    (r"(model\.decoder\.layers\.\d+)\.norm3\.", r"\1.final_layer_norm."),
)


def official_name(key: str) -> str:
    """What the official repositories call our tensor ``key``."""
    if not key.startswith("backbone.net."):
        return key
    inner = key.removeprefix("backbone.net.")
    place = _resnet_place(inner)
    if place is None:
        return "backbone." + re.sub(r"^stages_(\d+)", r"stages.\1", inner)
    stage, block, part, norm, rest = place
    kind = "norm" if norm else "conv"
    if stage < 0:
        return f"backbone.conv1.conv1_{part}.{kind}.{rest}"
    # A pooled shortcut is one deeper: (pool, conv).
    branch = f"branch2{'abc'[part - 1]}" if part else ("short.conv" if stage else "short")
    return f"backbone.res_layers.{stage}.blocks.{block}.{branch}.{kind}.{rest}"


def transformers_name(key: str) -> str:
    """What transformers calls our tensor ``key``; attention's joint projection stands for q, k and v."""
    if not key.startswith("backbone.net."):
        return rewrite(key, _TO_TRANSFORMERS)
    inner, head = key.removeprefix("backbone.net."), "model.backbone.model."
    place = _resnet_place(inner)
    if place is None:
        inner = re.sub(r"^stages_(\d+)", r"encoder.stages.\1", re.sub(r"^stem\.", "embedder.", inner))
        inner = re.sub(r"\.conv\.(weight|bias)$", r".convolution.\1", inner)
        return head + re.sub(r"\.bn\.", ".normalization.", inner)
    stage, block, part, norm, rest = place
    kind = "normalization" if norm else "convolution"
    if stage < 0:
        return f"{head}embedder.embedder.{part - 1}.{kind}.{rest}"
    branch = f"layer.{part - 1}" if part else ("shortcut.1" if stage else "shortcut")
    return f"{head}encoder.stages.{stage}.layers.{block}.{branch}.{kind}.{rest}"


def _resnet_place(inner: str) -> tuple[int, int, int, int, str] | None:
    """(stage, block, part, is norm, rest) of a ResNet-D name of timm; stage -1: stem, part 0: shortcut."""
    stem, _, rest = inner.rpartition(".")
    if stem in _STEM:
        return (-1, 0, *_STEM[stem], rest)
    found = re.match(r"layer(\d)\.(\d+)\.(?:(conv|bn)(\d)|downsample\.([12]))\.(\w+)$", inner)
    if not found:
        return None
    stage, block, kind, part, short, rest = found.groups()
    return int(stage) - 1, int(block), int(part or 0), int(kind == "bn" or short == "2"), rest


def rewrite(key: str, rules: Rules) -> str:
    for pattern, new in rules:
        key = re.sub(pattern, new, key)
    return key


def from_official(model: RtDetr, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict out of an official one.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape.
    """
    theirs = normalised_official(tensors)
    found = {key: theirs[name] for key in model.state_dict() if (name := official_name(key)) in theirs}
    return _checked(model, found, set(theirs) - {official_name(key) for key in found})


def normalised_official(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """An official state dict in RT-DETRv2's spelling, without what is recomputed."""
    named = {rewrite(key, _OLD_OFFICIAL): tensor for key, tensor in tensors.items()}
    return {key: tensor for key, tensor in named.items() if not _RECOMPUTED.search(key)}


def from_transformers(model: RtDetr, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Our state dict out of that of ``RTDetrV2ForObjectDetection`` or ``DFineForObjectDetection``.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape.
    """
    theirs = {rewrite(key, _OLD_TRANSFORMERS): tensor for key, tensor in tensors.items()}
    found: dict[str, Tensor] = {}
    used: set[str] = set()
    for key in model.state_dict():
        name = transformers_name(key)
        parts = [name]
        if ".in_proj_" in name:
            stem, kind = name.split("in_proj_")
            parts = [f"{stem}{part}_proj.{kind}" for part in "qkv"]
        if all(part in theirs for part in parts):
            found[key] = torch.cat([theirs[part] for part in parts]) if len(parts) > 1 else theirs[name]
            used.update(parts)
    return _checked(model, found, set(theirs) - used)


def _checked(model: nn.Module, found: dict[str, Tensor], unused: set[str]) -> dict[str, Tensor]:
    own = model.state_dict()
    missing = [key for key in own if key not in found and not key.endswith(_OPTIONAL)]
    extra = sorted(key for key in unused if not key.endswith("num_batches_tracked"))
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
    kept = {key: own[key] for key in own if key not in found}
    return {**kept, **found}


def official_config(tensors: Mapping[str, Tensor]) -> tuple[RtConfig, int]:
    """The zoo entry and the class count whose shapes an official state dict has.

    Raises:
        CheckpointError: it is none of them.
    """
    theirs = {key: tuple(t.shape) for key, t in normalised_official(tensors).items()}
    score = theirs.get("decoder.enc_score_head.weight")
    if score is None:
        raise CheckpointError(
            "[convert] the weights must be RT-DETR's, RT-DETRv2's, D-FINE's or DEIM's, "
            f"which have decoder.enc_score_head.weight; found {sorted(theirs)[:3]}"
        )
    for config in RT_MODELS.values():
        if not _may_be(config, theirs):
            continue
        with torch.device("meta"):
            own = RtDetr(config, classes=score[0]).state_dict()
        wanted = {official_name(k): tuple(t.shape) for k, t in own.items() if not k.endswith(_OPTIONAL)}
        if wanted == {key: shape for key, shape in theirs.items() if not key.endswith(_OPTIONAL)}:
            return config, score[0]
    raise CheckpointError(
        f"[convert] {len(theirs)} tensors with {score[0]} classes fit none of {', '.join(RT_MODELS)}"
    )


def _may_be(config: RtConfig, theirs: Mapping[str, tuple[int, ...]]) -> bool:
    """Whether what is quick to see agrees; the whole comparison takes a second."""
    layers = sum(re.fullmatch(r"decoder\.dec_score_head\.\d+\.bias", key) is not None for key in theirs)
    width = theirs.get("encoder.lateral_convs.0.conv.weight", (0,))[0]
    fine = "decoder.pre_bbox_head.layers.0.weight" in theirs
    return (layers, width, fine) == (config.decoder_layers, config.hidden, config.head == "dfine")


def transformers_config(settings: Mapping[str, Any], tensors: Mapping[str, Tensor]) -> tuple[RtConfig, int]:
    """The configuration that a transformers ``config.json`` tells of, and its class count.

    Raises:
        CheckpointError: another model, or one with parts that this family has not.
    """
    kind = settings.get("model_type")
    if kind not in ("d_fine", "rt_detr_v2"):
        raise CheckpointError(f"[convert] model_type must be detr, d_fine or rt_detr_v2, found {kind!r}")
    _refuse_unknown(settings)
    theirs = {rewrite(key, _OLD_TRANSFORMERS): tensor for key, tensor in tensors.items()}
    fine = kind == "d_fine"
    score = theirs.get("model.enc_score_head.weight")
    if score is None:
        raise CheckpointError("[convert] the weights must have model.enc_score_head.weight, found none")
    backbone = _backbone_of(theirs)
    points = settings.get("decoder_n_points", 4)
    try:
        levels = tuple(settings.get("feat_strides", (8, 16, 32)))
        config = RtConfig(
            name=str(kind).replace("_", "-"),
            backbone=backbone,
            backbone_projection=backbone in ("resnet18d", "resnet34d"),
            levels=levels,
            hidden=settings.get("encoder_hidden_dim", 256),
            heads=settings.get("decoder_attention_heads", 8),
            neck="elan" if fine else "csp",
            neck_depth=round(3 * settings.get("depth_mult", 1.0)) if fine else 3,
            neck_expansion=settings.get("hidden_expansion", 1.0),
            attention_levels=tuple(levels[i] for i in settings.get("encode_proj_layers", (2,))),
            encoder_layers=settings.get("encoder_layers", 1),
            encoder_feedforward=settings.get("encoder_ffn_dim", 1024),
            decoder_hidden=settings.get("d_model", 256),
            decoder_layers=settings.get("decoder_layers", 6),
            eval_layer=settings.get("eval_idx", -1) if fine else -1,
            decoder_feedforward=settings.get("decoder_ffn_dim", 1024),
            points=tuple(points) if isinstance(points, (list, tuple)) else (points,) * len(levels),
            queries=settings.get("num_queries", 300),
            head="dfine" if fine else "rtdetrv2",
            bins=settings.get("max_num_bins", 32),
            reg_scale=float(settings.get("reg_scale", 4.0)),
            up=float(settings.get("up", 0.5)),
        )
    except (ConfigError, IndexError, TypeError, ValueError) as error:
        raise CheckpointError(f"[convert] config.json asks for what this family has not: {error}") from error
    return config, score.shape[0]


_FIXED = {
    "learn_initial_query": False,
    "normalize_before": False,
    "decoder_method": "default",
    "decoder_offset_scale": 0.5,
    "activation_function": "silu",
    "encoder_activation_function": "gelu",
    "decoder_activation_function": "relu",
    "layer_scale": 1.0,
    "top_prob_values": 4,
    "lqe_hidden_dim": 64,
    "lqe_layers": 2,
}
"""Settings of transformers that this family holds at one value."""


def _refuse_unknown(settings: Mapping[str, Any]) -> None:
    for name, value in _FIXED.items():
        if settings.get(name, value) != value:
            raise CheckpointError(f"[convert] {name} must be {value!r}, config.json has {settings[name]!r}")


def _backbone_of(theirs: Mapping[str, Tensor]) -> str:
    """The timm network whose shapes the backbone has."""
    shapes = {
        key: tuple(tensor.shape)
        for key, tensor in theirs.items()
        if key.startswith("model.backbone.") and not key.endswith("num_batches_tracked")
    }
    residual = any(".embedder.embedder." in key for key in shapes)
    names = [f"resnet{n}d" for n in (18, 34, 50, 101)] if residual else [f"hgnetv2_b{i}" for i in range(7)]
    for name in names:
        with torch.device("meta"):
            projection = name in ("resnet18d", "resnet34d")
            own = Backbone(name, levels=(8, 16, 32), projection=projection).state_dict(prefix="backbone.")
        if shapes == {
            transformers_name(key): tuple(tensor.shape)
            for key, tensor in own.items()
            if not key.endswith("num_batches_tracked")
        }:
            return name
    raise CheckpointError(
        f"[convert] the backbone of {len(shapes)} tensors must be one of {', '.join(names)}"
    )
