"""The models by name; variants by ``dataclasses.replace``. Free of torch until something is built."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, Union, overload

from detrx.errors import ConfigError
from detrx.models.config import DetrConfig, ModelConfig, RtConfig

if TYPE_CHECKING:
    from detrx.models.detr import Detr
    from detrx.models.rt import RtDetr

    Model = Union[RtDetr, Detr]
    """What ``build`` answers."""
else:
    Model = Any

__all__ = [
    "DETR_MODELS",
    "MODELS",
    "RT_MODELS",
    "DetrConfig",
    "Model",
    "ModelConfig",
    "RtConfig",
    "build",
    "config_for",
]

_S = RtConfig(name="rt-s", neck_depth=1, neck_expansion=0.5)
_M = RtConfig(name="rt-m", backbone="hgnetv2_b2", neck_depth=2, decoder_layers=4)
_L = RtConfig(name="rt-l", backbone="hgnetv2_b4", decoder_layers=6)
_N = RtConfig(
    name="rt-n",
    levels=(16, 32),
    hidden=128,
    decoder_hidden=128,
    neck_depth=2,
    neck_expansion=0.34,
    encoder_feedforward=512,
    decoder_feedforward=512,
)
_P = replace(
    _N,
    name="rt-p",
    backbone="mobilenetv2_100",
    levels=(8, 16),
    neck="light",
    attention_levels=(32,),
    decoder_layers=2,
)
_X = replace(_L, name="rt-x", backbone="hgnetv2_b5", hidden=384, encoder_feedforward=2048, reg_scale=8.0)
_R50 = RtConfig(name="rtdetrv2-r50", backbone="resnet50d", head="rtdetrv2", neck="csp", decoder_layers=6)
_R18 = replace(
    _R50,
    name="rtdetrv2-r18",
    backbone="resnet18d",
    backbone_projection=True,
    neck_expansion=0.5,
    decoder_layers=3,
)
_R34 = replace(_R18, name="rtdetrv2-r34", backbone="resnet34d", decoder_layers=4)
_R50M = replace(_R50, name="rtdetrv2-r50m", neck_expansion=0.5, eval_layer=2)
_R101 = replace(_R50, name="rtdetrv2-r101", backbone="resnet101d", hidden=384, encoder_feedforward=2048)

RT_MODELS: dict[str, RtConfig] = {
    config.name: config for config in (_P, _N, _S, _M, _L, _X, _R18, _R34, _R50M, _R50, _R101)
}
"""A small one for CPUs, D-FINE's five sizes (arXiv 2410.13842) and RT-DETRv2's five (arXiv 2407.17140)."""

_DETR = DetrConfig()
_EDGE = DetrConfig(encoder_layers=3, decoder_layers=3, feedforward=1024, frozen_norm=False)
DETR_MODELS: dict[str, DetrConfig] = {
    "detr-r18": replace(_DETR, backbone="resnet18"),
    "detr-r34": replace(_DETR, backbone="resnet34"),
    "detr-r50": _DETR,
    "detr-r50-dc5": replace(_DETR, dilated=True),
    "detr-r101": replace(_DETR, backbone="resnet101"),
    "detr-r101-dc5": replace(_DETR, backbone="resnet101", dilated=True),
    "detr-r18-panoptic": replace(_DETR, backbone="resnet18", masks=True),
    "detr-r50-panoptic": replace(_DETR, masks=True),
    "detr-r50-dc5-panoptic": replace(_DETR, dilated=True, masks=True),
    "detr-r101-panoptic": replace(_DETR, backbone="resnet101", masks=True),
    "detr-mobilenetv2": replace(_EDGE, backbone="mobilenetv2_100"),
    "detr-mobilenetv2-dc5": replace(_EDGE, backbone="mobilenetv2_100", dilated=True),
    "detr-efficientvit-b0": replace(_EDGE, backbone="efficientvit_b0"),
    "detr-repvit-m0-9": replace(_EDGE, backbone="repvit_m0_9"),
}
DETR_MODELS = {name: replace(config, name=name) for name, config in DETR_MODELS.items()}
"""The published seven (arXiv 2005.12872), smaller ResNets, and backbones for the edge with half the layers."""

MODELS: dict[str, ModelConfig] = {**RT_MODELS, **DETR_MODELS}
"""Every model."""


def config_for(name: str) -> ModelConfig:
    """The configuration of a name.

    Raises:
        ConfigError: there is no such model.
    """
    if name not in MODELS:
        raise ConfigError(f"[zoo] model must be one of {', '.join(MODELS)}, got {name!r}")
    return MODELS[name]


@overload
def build(config: RtConfig, *, classes: int) -> RtDetr: ...


@overload
def build(config: DetrConfig, *, classes: int) -> Detr: ...


@overload
def build(config: ModelConfig, *, classes: int) -> Model: ...


def build(config: ModelConfig, *, classes: int) -> Any:
    """A freshly initialised model, on the CPU, in training mode.

    Raises:
        ConfigError: no such backbone, it has no maps of the wanted strides, or the head has not so many columns.
    """
    if classes < 1:
        raise ConfigError(f"[zoo] classes must be at least 1, got {classes}")
    # Here, so that the names can be read without torch.
    if isinstance(config, RtConfig):
        from detrx.models.rt import RtDetr

        return RtDetr(config, classes=classes)
    if config.columns and len(config.columns) != classes:
        raise ConfigError(f"[zoo] the head's columns stand for {len(config.columns)} classes, got {classes}")
    from detrx.models.detr import Detr

    return Detr(config, classes=classes)
