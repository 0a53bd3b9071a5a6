"""From settings to what a run needs: device, data, model, the description that travels with the weights."""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from detrx.data.catalog import open_dataset, splits
from detrx.data.coco import Dataset
from detrx.data.loader import TrainLoader, default_workers
from detrx.data.transforms import ExtraTransform
from detrx.errors import ConfigError, DataError, DeviceError
from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.losses.detr import DetrCriterion
from detrx.losses.stages import Total, alone
from detrx.models.backbone import load_backbone_weights
from detrx.models.checkpoint import read_config
from detrx.models.transplant import Transplant, transplant
from detrx.models.zoo import DetrConfig, Model, ModelConfig, RtConfig, build, config_for
from detrx.ops.match_weights import MatchWeights
from detrx.train.config import TrainConfig
from detrx.train.defaults import settled
from detrx.train.distributed import ALONE, Team
from detrx.types import ModelInfo

USUAL_STEPS = 3000
"""A run without a length gets about so many optimiser steps: a DETR learns little in fewer."""
FEWEST_EPOCHS, MOST_EPOCHS = 12, 400
_DETR_ONLY = ("no_object", "groups", "encoder_head", "dropout")


def choose_device(name: str, *, local: int | None = None) -> torch.device:
    """The device of a run; "auto" is CUDA where there is one.

    Args:
        local: the number of this process on this machine, where there are several: each has its own GPU.

    Raises:
        DeviceError: CUDA was asked for and there is none, or not that many.
    """
    if name == "cpu" or (name == "auto" and not torch.cuda.is_available()):
        return torch.device("cpu")
    try:
        device = torch.device("cuda" if name == "auto" else name)
        if local is not None and device.index is None:
            device = torch.device("cuda", local)
    except RuntimeError as error:
        raise ConfigError(f"[train] device must be auto, cpu, cuda or cuda:N, found {name!r}") from error
    if (device.index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"[train] device {name} must exist, found {torch.cuda.device_count()} CUDA devices; try cpu"
        )
    return device


def seed_everything(seed: int) -> None:
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@dataclass(frozen=True)
class Data:
    """The splits of a run."""

    train: Dataset
    val: Dataset
    """The training split itself where the data set has no split to evaluate on."""


def open_data(config: TrainConfig, *, masks: bool = False) -> Data:
    """Open the splits, with their masks where the model learns them.

    Raises:
        ConfigError: no data set was named.
        DataError: it cannot be read, has nothing to learn from, or its splits have different classes.
    """
    if not config.data:
        raise ConfigError(
            "[train] data must name the folder of a data set, found nothing; type: detrx train FOLDER"
        )
    root = Path(config.data)
    train = open_dataset(root, split=config.train_split, masks=masks)
    if not any(len(image.labels) for image in train.images):
        raise DataError(f"[train] {train.annotation_file} must have boxes to learn from, found none")
    has_val = config.val_split in splits(root) or config.val_split != "val"
    val = open_dataset(root, split=config.val_split, masks=masks) if has_val else train
    if val.names != train.names:
        raise DataError(
            f"[train] the splits must have the same classes, found {train.names} in {train.annotation_file} "
            f"and {val.names} in {val.annotation_file}"
        )
    return Data(train, val)


def learns_masks(config: TrainConfig, state: Path | None) -> bool:
    """Whether the run needs the masks of its data: as it says, or since the weights that it goes on from have them.

    Raises:
        CheckpointError, TrustError: weights that cannot be read.
    """
    source = state or (Path(config.weights) if config.weights else None)
    return config.masks or bool(source and getattr(read_config(source), "masks", False))


def model_config(config: TrainConfig, base: ModelConfig | None = None) -> ModelConfig:
    """The zoo's model, or that of the weights that a run starts from, with the run's changes.

    Raises:
        ConfigError: no such model, or a change that does not fit it.
    """
    base = base or config_for(config.model)
    return _detr_config(config, base) if isinstance(base, DetrConfig) else _rt_config(config, base)


def _detr_config(config: TrainConfig, base: DetrConfig) -> DetrConfig:
    """A head of one column a class; grey borders are part of the picture, as the loader lays them."""
    for name in ("levels", "backbone_padding", "masks"):
        if getattr(config, name):
            raise ConfigError(f"[train] {name} is for the rt family, found it with {base.name}; leave it out")
    names = ("backbone", "queries", "decoder_layers", "hidden", *_DETR_ONLY)
    changes = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    if config.hidden is not None:
        changes["feedforward"] = base.feedforward * config.hidden // base.hidden
    changes.update(head_classes=0, columns=(), masked=False, frozen_norm=bool(config.freeze_norm))
    return dataclasses.replace(base, **changes)


def _rt_config(config: TrainConfig, base: RtConfig) -> RtConfig:
    for name in _DETR_ONLY:
        if getattr(config, name) is not None:
            raise ConfigError(
                f"[train] {name} is for the detr family, found it with {base.name}; leave it out"
            )
    wanted: dict[str, Any] = {
        "backbone": config.backbone,
        "backbone_padding": config.backbone_padding,
        "levels": config.levels,
        "queries": config.queries,
        "decoder_layers": config.decoder_layers,
        "masks": config.masks or None,
    }
    if config.hidden is not None:
        wanted.update(dict.fromkeys(("hidden", "decoder_hidden"), config.hidden))
        wanted.update(dict.fromkeys(("encoder_feedforward", "decoder_feedforward"), 4 * config.hidden))
    changes = {name: value for name, value in wanted.items() if value is not None}
    if "backbone" in changes:
        changes.setdefault("backbone_projection", False)
    if "levels" in changes:
        changes["points"] = ()
    return dataclasses.replace(base, **changes)


def make_model(config: TrainConfig, shape: ModelConfig, *, classes: int) -> tuple[Model, str]:
    """Build the model, with the backbone's weights where there are some; the second value says so, for the user.

    Raises:
        CheckpointError: weights that cannot be read or do not fit.
    """
    model = build(shape, classes=classes)
    if not config.backbone_weights:
        return model, "random weights"
    report = load_backbone_weights(model.backbone, config.backbone_weights)
    return model, f"backbone from {config.backbone_weights} ({len(report.taken)} tensors)"


def tune_model(
    shape: ModelConfig, *, names: tuple[str, ...], start: tuple[Model, ModelInfo]
) -> tuple[Model, Transplant]:
    """Build the model with all that the weights ``start`` know of it, and what became of each tensor.

    Raises:
        CheckpointError: they are of another model.
    """
    model = build(shape, classes=len(names))
    return model, transplant(model, start[0], names=names, other_names=start[1].names)


def make_loader(
    config: TrainConfig,
    train: Dataset,
    info: ModelInfo,
    *,
    extra: ExtraTransform | None = None,
    team: Team = ALONE,
) -> TrainLoader:
    """The batches of a run, or a process's share; ``extra`` transforms each picture after detrx's own augmentation."""
    batch = settled("batch", config.batch)
    return TrainLoader(
        train,
        canvas=config.canvas,
        batch=batch,
        share=team.share(batch),
        augment=config.augment,
        seed=config.seed,
        workers=default_workers() if config.workers is None else config.workers,
        mean=info.mean,
        std=info.std,
        extra=extra,
    )


def describe(
    config: TrainConfig, train: Dataset, *, masks: bool = False, before: ModelInfo | None = None
) -> ModelInfo:
    """What the weights will say of themselves.

    Args:
        masks: whether the model has them.
        before: what the weights said that the run starts from or goes on from; pixels stay normalised as theirs.
    """
    start = config.weights or config.backbone_weights
    pixels: dict[str, Any] = {"mean": before.mean, "std": before.std} if before else {}
    return ModelInfo(
        model=config.model,
        names=train.names,
        category_ids=train.category_ids,
        canvas=config.canvas,
        licence=f"trained by detrx from {Path(start).name}"
        if start
        else "trained by detrx from random weights",
        masks=masks,
        **pixels,
    )


def loss_for(config: LossConfig, shape: ModelConfig) -> LossConfig:
    """The losses with the bins of the model that they teach; no denoising queries where the model takes none."""
    if isinstance(shape, DetrConfig):
        return dataclasses.replace(config, denoise=0)
    return dataclasses.replace(config, bins=shape.bins, reg_scale=shape.reg_scale, up=shape.up)


def criterion_for(loss: LossConfig, shape: ModelConfig, *, classes: int, total: Total = alone) -> nn.Module:
    """What teaches the model: the first DETR's own losses where its head has "no object"."""
    if not (isinstance(shape, DetrConfig) and shape.no_object):
        return Criterion(loss, classes, total=total)
    match = dataclasses.replace(loss.match, class_cost="softmax")
    if loss.match == MatchWeights():  # untouched: the paper's own
        match = dataclasses.replace(match, class_=1.0)
    return DetrCriterion(
        classes,
        no_object=loss.no_object,
        class_weight=loss.class_weight,
        l1_weight=loss.l1_weight,
        giou_weight=loss.giou_weight,
        match=match,
        kernels=loss.kernels,
        total=total,
    )


def epochs_for(config: TrainConfig, *, batches: int) -> int:
    """The length in epochs of a run that is not measured in minutes."""
    if config.epochs is not None:
        return config.epochs
    return min(max(math.ceil(USUAL_STEPS / max(batches, 1)), FEWEST_EPOCHS), MOST_EPOCHS)
