"""From settings to what a run needs: device, data, model, the description that travels with the weights."""

from __future__ import annotations

import dataclasses
import math
import random
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import nn

from detrx.data.catalog import open_dataset, splits
from detrx.data.coco import Dataset
from detrx.data.loader import TrainLoader, default_workers
from detrx.data.panoptic import find_panoptic, open_panoptic
from detrx.data.transforms import ExtraTransform
from detrx.errors import ConfigError, DataError, DeviceError
from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.losses.detr import DetrCriterion
from detrx.losses.stages import Total, alone
from detrx.models.backbone import load_backbone_weights
from detrx.models.checkpoint import read_config
from detrx.models.transplant import Transplant, transplant
from detrx.models.zoo import MODELS, DetrConfig, Model, ModelConfig, RtConfig, build, config_for
from detrx.ops.match_weights import MatchWeights
from detrx.train.config import USUAL_MODEL, TrainConfig
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


Truth = Literal["boxes", "masks", "panoptic"]
"""What is learnt of a data set: the segments of a panoptic one are masks of things and of stuff."""


def open_data(config: TrainConfig, *, truth: Truth = "boxes") -> Data:
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
    train = _open(root, config.train_split, truth)
    if not any(len(image.labels) for image in train.images):
        raise DataError(f"[train] {train.annotation_file} must have boxes to learn from, found none")
    known = {found.plain for found in find_panoptic(root)} if truth == "panoptic" else splits(root)
    has_val = config.val_split in known or config.val_split != "val"
    val = _open(root, config.val_split, truth) if has_val else train
    if (val.names, val.things) != (train.names, train.things):
        raise DataError(
            f"[train] the splits must have the same classes, found {train.names} in {train.annotation_file} "
            f"and {val.names} in {val.annotation_file}"
        )
    return Data(train, val)


def _open(root: Path, split: str, truth: Truth) -> Dataset:
    if truth == "panoptic":
        return open_panoptic(root, split=split)
    return open_dataset(root, split=split, masks=truth == "masks")


def truth_for(config: TrainConfig, state: Path | None) -> Truth:
    """What the run learns: masks if it says so, or if its model or the weights that it goes on from have them; all but
    the rt family learn them from the segments of a panoptic data set, where there is one.

    Raises:
        CheckpointError, TrustError: weights that cannot be read.
    """
    source = state or (Path(config.weights) if config.weights else None)
    shapes = [shape for shape in (source and read_config(source),) if shape]
    names = [name for name in (config.weights, config.model) if name in MODELS]
    shapes += [config_for(name) for name in names or ([] if source else [USUAL_MODEL])]
    if not (config.masks or any(shape.masks for shape in shapes)):
        return "boxes"
    is_rt = bool(shapes) and isinstance(shapes[0], RtConfig)
    return "panoptic" if not is_rt and find_panoptic(Path(config.data)) else "masks"


def truth_of(info: ModelInfo) -> Truth:
    """What a model has learnt."""
    return "panoptic" if info.things else "masks" if info.masks else "boxes"


def model_config(config: TrainConfig, base: ModelConfig | None = None) -> ModelConfig:
    """The zoo's model, or that of the weights that a run starts from, with the run's changes.

    Raises:
        ConfigError: no such model, or a change that does not fit it.
    """
    base = base or config_for(config.model)
    return _detr_config(config, base) if isinstance(base, DetrConfig) else _rt_config(config, base)


def _detr_config(config: TrainConfig, base: DetrConfig) -> DetrConfig:
    """A head of one column a class; grey borders are part of the picture, as the loader lays them."""
    for name in ("levels", "backbone_padding"):
        if getattr(config, name):
            raise ConfigError(f"[train] {name} is for the rt family, found it with {base.name}; leave it out")
    names = ("backbone", "queries", "decoder_layers", "hidden", *_DETR_ONLY)
    changes = {name: getattr(config, name) for name in names if getattr(config, name) is not None}
    if config.hidden is not None:
        changes["feedforward"] = base.feedforward * config.hidden // base.hidden
    changes.update(head_classes=0, columns=(), masked=False, frozen_norm=bool(config.freeze_norm))
    found = dataclasses.replace(base, **changes, masks=config.masks)
    if found.masks and not found.no_object:
        raise ConfigError('[train] masks of the detr family ask for "no object", found no_object False')
    return found


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


def describe(config: TrainConfig, train: Dataset, *, before: ModelInfo | None = None) -> ModelInfo:
    """What the weights will say of themselves.

    Args:
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
        masks=config.masks,
        things=train.things if config.masks else (),
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
        **_mask_weights(loss),
        match=match,
        kernels=loss.kernels,
        total=total,
    )


def _mask_weights(loss: LossConfig) -> dict[str, float]:
    """The first DETR's own, unless others were asked for."""
    asked, usual = (loss.mask_weight, loss.dice_weight), LossConfig()
    mask, dice = (1.0, 1.0) if asked == (usual.mask_weight, usual.dice_weight) else asked
    return {"mask_weight": mask, "dice_weight": dice}


def epochs_for(config: TrainConfig, *, batches: int) -> int:
    """The length in epochs of a run that is not measured in minutes."""
    if config.epochs is not None:
        return config.epochs
    return min(max(math.ceil(USUAL_STEPS / max(batches, 1)), FEWEST_EPOCHS), MOST_EPOCHS)
