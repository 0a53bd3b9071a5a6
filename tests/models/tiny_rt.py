"""A configuration of the rt family that is built in a blink."""

from __future__ import annotations

from detrx.models.config import RtConfig

TINY_RT = RtConfig(
    backbone="mobilenetv2_035",
    levels=(16,),
    hidden=16,
    heads=2,
    neck_depth=1,
    encoder_feedforward=16,
    decoder_hidden=16,
    decoder_layers=3,
    decoder_feedforward=16,
    queries=4,
)
