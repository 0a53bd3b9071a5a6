"""The whole state of a run in one file, so that a run that was killed goes on as if nothing had happened."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from detrx.errors import CheckpointError
from detrx.models.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from detrx.models.zoo import ModelConfig
from detrx.train.config import TrainConfig
from detrx.train.config_file import config_from, plain
from detrx.train.distributed import Team
from detrx.train.loop import Health, Trainer
from detrx.types import ModelInfo


@dataclass
class Position:
    """Where a run stands."""

    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that are done."""
    step: int = 0
    seconds: float = 0.0
    """Wall clock of all processes of this run so far."""
    training_seconds: float = 0.0
    """The same without evaluations and saves."""
    pictures: int = 0
    best: float = -1.0
    """Best mAP of the averaged weights, -1 before the first evaluation."""
    best_epoch: int = -1
    since_best: int = 0
    """Evaluations since then."""
    evaluated: float = 0.0
    """Progress at the last evaluation."""
    evaluated_epoch: int = 0
    evaluated_step: int = -1
    resumes: int = 0
    log_rows: int = 0
    metrics: dict[str, Any] = field(default_factory=dict)
    """The last evaluation's numbers."""


# --- writing


def save_state(
    path: Path,
    trainer: Trainer,
    position: Position,
    *,
    info: ModelInfo,
    model_config: ModelConfig,
    config: TrainConfig,
) -> None:
    """Write everything at once: whole or not at all.

    Raises:
        CheckpointError: it cannot be written; the file before stays as it is.
    """
    tensors, extra = state_of(trainer)
    extra.update(position=dataclasses.asdict(position), config=plain(config))
    write(
        lambda: save_checkpoint(path, tensors, info=info, config=model_config, extra={"train": extra}), path
    )


def state_of(trainer: Trainer) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All that moves during training, as tensors and as plain values."""
    extra = {
        "health": dataclasses.asdict(trainer.health),
        "steps": trainer.steps,
        "accumulate": trainer.accumulate,
        "scaler": trainer.scaler.state_dict(),
        "python_random": random.getstate(),
        "numpy_random": _numpy_scalars(),
    }
    tensors = _prefixed("model.", trainer.model.state_dict())
    tensors.update(_prefixed("ema.", trainer.ema.model.state_dict()))
    tensors.update(_optimizer_tensors(trainer))
    tensors.update(_random_tensors(trainer))
    return tensors, extra


def save_best(
    path: Path, trainer: Trainer, *, info: ModelInfo, model_config: ModelConfig, extra: dict[str, Any]
) -> None:
    """Write the averaged weights alone.

    Raises:
        CheckpointError: they cannot be written; the file before stays as it is.
    """
    tensors = _prefixed("model.", trainer.ema.model.state_dict())
    write(lambda: save_checkpoint(path, tensors, info=info, config=model_config, extra=extra), path)


def write(save: Callable[[], None], path: Path) -> None:
    try:
        save()
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"[train] {path} must be writable: {error}; the file before is kept. "
            "Make room, then add --resume auto"
        ) from error


def _prefixed(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {prefix + name: tensor.detach() for name, tensor in tensors.items()}


def _part(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name[len(prefix) :]: value for name, value in tensors.items() if name.startswith(prefix)}


def _optimizer_tensors(trainer: Trainer) -> dict[str, Tensor]:
    return {
        f"optimizer.{name}.{key}": value
        for name, parameter in trainer.model.named_parameters()
        for key, value in trainer.optimizer.state.get(parameter, {}).items()
    }


def _random_tensors(trainer: Trainer) -> dict[str, Tensor]:
    keys = np.random.get_state(legacy=False)["state"]["key"]
    found = {
        "random.torch": torch.get_rng_state(),
        "random.denoise": trainer.generator.get_state(),
        "random.numpy": torch.from_numpy(keys.astype(np.int64)),
    }
    if trainer.device.type == "cuda":
        found["random.cuda"] = torch.cuda.get_rng_state(trainer.device)
    return found


def _numpy_scalars() -> dict[str, Any]:
    state: Any = np.random.get_state(legacy=False)
    return {
        "position": int(state["state"]["pos"]),
        "has_gauss": int(state["has_gauss"]),
        "gauss": float(state["gauss"]),
    }


# --- reading


@dataclass(frozen=True)
class Saved:
    """A training state as it was found in a file."""

    checkpoint: Checkpoint
    position: Position
    config: TrainConfig
    """The settings of the run that wrote it."""
    path: Path


def read_state(path: Path) -> Saved:
    """Read a training state.

    Raises:
        CheckpointError: no whole detrx file, or one without a training state.
    """
    checkpoint = read_checkpoint(path)
    extra = checkpoint.extra.get("train")
    if not isinstance(extra, dict):
        raise CheckpointError(
            f"[train] {path} must hold a training state, found weights alone; "
            f"start from them with --weights {path}"
        )
    try:
        known = {item.name for item in dataclasses.fields(Position)}  # earlier versions knew one more
        position = {name: value for name, value in extra["position"].items() if name in known}
        return Saved(checkpoint, Position(**position), config_from(extra["config"]), path)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError(
            f"[train] {path} must hold a training state of this version: {error}"
        ) from error


def restore(saved: Saved, trainer: Trainer) -> None:
    """Put everything back where it was.

    Raises:
        CheckpointError: the state is of another model; the message names what differs.
    """
    try:
        put_back(saved.checkpoint.tensors, saved.checkpoint.extra["train"], trainer)
    except (KeyError, RuntimeError, TypeError, ValueError) as error:
        raise CheckpointError(f"[train] {saved.path} does not fit this model: {error}") from error


def put_back(tensors: dict[str, Tensor], extra: dict[str, Any], trainer: Trainer) -> None:
    """What ``state_of`` has found.

    Raises:
        KeyError, RuntimeError, TypeError, ValueError: it is of another model.
    """
    trainer.model.load_state_dict(_part(tensors, "model."))
    trainer.ema.model.load_state_dict(_part(tensors, "ema."))
    _restore_optimizer(_part(tensors, "optimizer."), trainer)
    _restore_random(tensors, extra, trainer)
    if extra["scaler"]:  # empty where the run was not in float16 before
        trainer.scaler.load_state_dict(extra["scaler"])
    trainer.health = Health(**extra["health"])
    trainer.steps = int(extra.get("steps", 0))
    trainer.accumulate = max(int(extra["accumulate"]), trainer.config.accumulate)


def share_state(team: Team, trainer: Trainer) -> None:
    """Begin in all processes with the weights, moments and chance of the first one."""
    if team.size > 1:
        tensors, extra = team.tell(state_of(trainer) if team.is_first else ({}, {}))
        if not team.is_first:
            put_back(tensors, extra, trainer)


def _restore_optimizer(found: dict[str, Tensor], trainer: Trainer) -> None:
    learning = {p for group in trainer.optimizer.param_groups for p in group["params"]}
    for name, parameter in trainer.model.named_parameters():
        state = {
            key: _laid_out(found[f"{name}.{key}"], parameter)
            for key in ("step", "exp_avg", "exp_avg_sq")
            if f"{name}.{key}" in found
        }
        if state and parameter in learning:
            trainer.optimizer.state[parameter] = state


def _laid_out(value: Tensor, parameter: Tensor) -> Tensor:
    """A copy in the parameter's own memory layout: the fused optimiser walks both as they lie in memory."""
    if value.shape != parameter.shape:
        return value.to(parameter.device, copy=True)  # the step count
    return torch.empty_like(parameter, requires_grad=False).copy_(value)


def _restore_random(tensors: dict[str, Tensor], extra: dict[str, Any], trainer: Trainer) -> None:
    torch.set_rng_state(tensors["random.torch"].cpu())
    trainer.generator.set_state(tensors["random.denoise"].cpu())
    if "random.cuda" in tensors and trainer.device.type == "cuda":
        torch.cuda.set_rng_state(tensors["random.cuda"].cpu(), trainer.device)
    version, internal, gauss = extra["python_random"]
    random.setstate((version, tuple(internal), gauss))
    scalars = extra["numpy_random"]
    keys = tensors["random.numpy"].cpu().numpy().astype(np.uint32)
    np.random.set_state(("MT19937", keys, scalars["position"], scalars["has_gauss"], scalars["gauss"]))
