"""The same random weights in transformers and in detrx."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from transformers import (
    DFineConfig,
    DFineForObjectDetection,
    HGNetV2Config,
    RTDetrResNetConfig,
    RTDetrV2Config,
    RTDetrV2ForObjectDetection,
)

from detrx.models.config import RtConfig
from detrx.models.convert import from_transformers
from detrx.models.rt import RtDetr
from detrx.models.zoo import build

CLASSES = 5
QUERIES = 20

DFINE = RtConfig(
    name="tiny-dfine",
    hidden=32,
    heads=4,
    neck_depth=1,
    neck_expansion=0.5,
    encoder_feedforward=48,
    decoder_hidden=32,
    decoder_layers=3,
    decoder_feedforward=48,
    queries=QUERIES,
)
RTDETRV2 = RtConfig(
    name="tiny-rtdetrv2",
    backbone="resnet18d",
    backbone_projection=True,
    hidden=32,
    heads=4,
    neck="csp",
    neck_depth=3,
    neck_expansion=0.5,
    encoder_feedforward=48,
    decoder_hidden=32,
    decoder_layers=3,
    decoder_feedforward=48,
    queries=QUERIES,
    head="rtdetrv2",
)


def shared_settings(config: RtConfig) -> dict[str, Any]:
    """The settings of both transformers configurations that say what ours says."""
    return {
        "num_labels": CLASSES,
        "freeze_backbone_batch_norms": False,
        "encoder_hidden_dim": config.hidden,
        "feat_strides": list(config.levels),
        "encoder_layers": config.encoder_layers,
        "encoder_ffn_dim": config.encoder_feedforward,
        "encoder_attention_heads": config.heads,
        "encode_proj_layers": [len(config.levels) - 1],
        "hidden_expansion": config.neck_expansion,
        "d_model": config.decoder_hidden,
        "num_queries": config.queries,
        "decoder_in_channels": [config.hidden] * len(config.levels),
        "decoder_ffn_dim": config.decoder_feedforward,
        "num_feature_levels": len(config.levels),
        "decoder_layers": config.decoder_layers,
        "decoder_attention_heads": config.heads,
    }


def dfine_config(config: RtConfig = DFINE) -> DFineConfig:
    stages = [f"stage{s.bit_length() - 2}" for s in config.levels]  # stride 8 is stage 2
    backbone = HGNetV2Config(
        depths=[1, 1, 2, 1],
        stem_channels=[3, 16, 16],
        stage_in_channels=[16, 64, 256, 512],
        stage_mid_channels=[16, 32, 64, 128],
        stage_out_channels=[64, 256, 512, 1024],
        hidden_sizes=[64, 256, 512, 1024],
        stage_num_blocks=[1, 1, 2, 1],
        stage_numb_of_layers=[3, 3, 3, 3],
        stage_kernel_size=[3, 3, 5, 5],
        use_learnable_affine_block=True,
        out_features=stages,
    )
    return DFineConfig(
        backbone_config=backbone,
        encoder_in_channels={8: [256, 512, 1024], 16: [512, 1024], 32: [1024]}[config.levels[0]],
        decoder_n_points=list(config.level_points),
        depth_mult=config.neck_depth / 3,
        max_num_bins=config.bins,
        reg_scale=config.reg_scale,
        **shared_settings(config),
    )


def rtdetrv2_config(config: RtConfig = RTDETRV2) -> RTDetrV2Config:
    backbone = RTDetrResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    return RTDetrV2Config(
        backbone_config=backbone,
        encoder_in_channels=[128, 256, 512],
        decoder_n_points=config.level_points[0],
        decoder_n_levels=len(config.levels),
        **shared_settings(config),
    )


def shake(model: nn.Module, *, seed: int = 0) -> None:
    """Random numbers wherever an initialisation is constant, and scores far enough apart for a firm top-k."""
    generator = torch.Generator().manual_seed(seed)

    def noise(tensor: torch.Tensor, scale: float) -> torch.Tensor:
        return torch.randn(tensor.shape, generator=generator) * scale

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.weight.copy_(1 + noise(module.weight, 0.1))
                module.bias.copy_(noise(module.bias, 0.1))
                module.running_mean.copy_(noise(module.running_mean, 0.1))
                module.running_var.copy_(1 + noise(module.running_var, 0.1).abs())
            elif isinstance(module, nn.Conv2d):
                fan = module.weight[0].numel()
                module.weight.copy_(noise(module.weight, (1.5 / fan) ** 0.5))
            elif isinstance(module, nn.Linear):
                module.weight.add_(noise(module.weight, 0.05))
                module.bias.add_(noise(module.bias, 0.05))
        score = model.model.enc_score_head
        score.weight.copy_(noise(score.weight, 0.3))


def dfine_pair(config: RtConfig = DFINE) -> tuple[DFineForObjectDetection, RtDetr]:
    """transformers' D-FINE and ours, equal weights, both in training mode."""
    torch.manual_seed(0)
    theirs = DFineForObjectDetection(dfine_config(config))
    return _pair(theirs, config)


def rtdetrv2_pair(config: RtConfig = RTDETRV2) -> tuple[RTDetrV2ForObjectDetection, RtDetr]:
    """transformers' RT-DETRv2 and ours, equal weights, both in training mode."""
    torch.manual_seed(0)
    theirs = RTDetrV2ForObjectDetection(rtdetrv2_config(config))
    return _pair(theirs, config)


def _pair(theirs: Any, config: RtConfig) -> tuple[Any, RtDetr]:
    shake(theirs)
    ours = build(config, classes=CLASSES)
    ours.load_state_dict(from_transformers(ours, theirs.state_dict()))
    return theirs.train(), ours.train()
