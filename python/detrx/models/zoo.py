"""The models by name; variants by ``dataclasses.replace``. Free of torch until something is built."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from detrx.errors import ConfigError
from detrx.models.config import RtConfig

if TYPE_CHECKING:
    from detrx.models.rt import RtDetr

__all__ = ["MODELS", "RtConfig", "build", "config_for"]

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

MODELS: dict[str, RtConfig] = {
    config.name: config for config in (_N, _S, _M, _L, _X, _R18, _R34, _R50M, _R50, _R101)
}
"""D-FINE's five sizes (arXiv 2410.13842) and RT-DETRv2's five (arXiv 2407.17140)."""


def config_for(name: str) -> RtConfig:
    """The configuration of a name.

    Raises:
        ConfigError: there is no such model.
    """
    if name not in MODELS:
        raise ConfigError(f"[zoo] model must be one of {', '.join(MODELS)}, got {name!r}")
    return MODELS[name]


def build(config: RtConfig, *, classes: int) -> RtDetr:
    """A freshly initialised model, on the CPU, in training mode.

    Raises:
        ConfigError: no such backbone, or it has no maps of the wanted strides.
    """
    # Here, so that the names can be read without torch.
    from detrx.models.rt import RtDetr

    if classes < 1:
        raise ConfigError(f"[zoo] classes must be at least 1, got {classes}")
    return RtDetr(config, classes=classes)
