"""One optimiser step: forward, matching and losses, backward, clip, step, average; and when it goes wrong."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from detrx.errors import DeviceError, TrainingError
from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.losses.denoise import make_denoise
from detrx.losses.stages import ELSEWHERE, Costs, Losses
from detrx.tensors import Batch, DenoiseQueries, Outputs, Targets
from detrx.train.config import TrainConfig
from detrx.train.distributed import ALONE, Piece, Team
from detrx.train.ema import Ema
from detrx.train.gradients import Gradients, join, pad, statistics
from detrx.train.optim import freeze, make_optimizer, set_rate, train_mode
from detrx.train.schedule import ema_decay, rate

BAD_IN_A_ROW = 5
"""So many steps in a row with numbers that are not finite, and the weights go back to the best ones."""
MOST_RELOADS = 3
MOST_HALVINGS = 3


@dataclass
class Health:
    """What went wrong so far."""

    skipped: int = 0
    """Steps left out because a loss or gradient was not finite."""
    in_row: int = 0
    reloads: int = 0


@dataclass(frozen=True)
class Step:
    """What one optimiser step did."""

    rate: float
    """The highest learning rate."""
    terms: dict[str, Tensor] | None
    """Named losses, scalars on the device, or None for a step that is known to have been skipped."""
    kept: Tensor | None = None
    """() bool on the device: whether the weights moved."""


def choose_amp(amp: str, device: torch.device) -> torch.dtype | None:
    """The half precision of the forward pass, or None for float32.

    "auto" is bfloat16 on CUDA with compute capability >= 8.0 and on a CPU that multiplies it (AMX or AVX512-BF16: a
    quarter faster there), float16 on older CUDA, and float32 on other CPUs.
    """
    if amp == "auto" and device.type == "cpu":
        return torch.bfloat16 if cpu_has_bfloat16() else None
    if amp == "off":
        return None
    if amp == "auto":
        return torch.bfloat16 if torch.cuda.get_device_capability(device) >= (8, 0) else torch.float16
    if amp == "fp16" and device.type == "cpu":
        raise DeviceError("[train] amp fp16 needs CUDA, found the CPU; choose --amp bf16 or off")
    return torch.bfloat16 if amp == "bf16" else torch.float16


def cpu_has_bfloat16() -> bool:
    """Whether this processor multiplies bfloat16 itself; elsewhere it is emulated, and slow."""
    features = Path("/proc/cpuinfo")
    return features.is_file() and bool(re.search(r"\b(avx512_bf16|amx_bf16|bf16)\b", features.read_text()))


def repeat_targets(targets: Targets, times: int) -> Targets:
    """Lay each target ``times`` times side by side, so that as many queries learn to return it."""
    if times == 1:
        return targets
    return Targets(
        targets.boxes.repeat_interleave(times, 1),
        targets.labels.repeat_interleave(times, 1),
        targets.counts * times,
        None if targets.masks is None else targets.masks.repeat_interleave(times, 1),
    )


def parts(batch: Batch, count: int) -> Iterator[Batch]:
    """Cut a batch into ``count`` parts as equal as can be; fewer where there are fewer pictures."""
    targets = batch.targets
    columns = [batch.pixels, targets.boxes, targets.labels, targets.counts]
    columns += [] if targets.masks is None else [targets.masks]
    for pixels, *truth in zip(*(column.tensor_split(min(count, len(batch.pixels))) for column in columns)):
        yield Batch(pixels, Targets(*truth))


_Data = TypeVar("_Data", Targets, DenoiseQueries)


def send(data: _Data, device: torch.device) -> _Data:
    """Copy to the device without waiting for it."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(data):
        value = getattr(data, item.name)
        found[item.name] = _send(value, device) if isinstance(value, Tensor) else value
    return dataclasses.replace(data, **found)


def _send(tensor: Tensor, device: torch.device) -> Tensor:
    if device.type == "cuda" and tensor.device.type == "cpu":
        tensor = tensor.pin_memory()  # from other memory the copy would wait for all work before it
    return tensor.to(device, non_blocking=True)


def in_float32(outputs: Outputs) -> Outputs:
    """The same outputs for losses, which half precision would spoil."""
    found: dict[str, Any] = {}
    for item in dataclasses.fields(outputs):
        value = getattr(outputs, item.name)
        found[item.name] = in_float32(value) if isinstance(value, Outputs) else value
        if isinstance(value, Tensor):
            found[item.name] = value.float()
    return Outputs(**found)


class Trainer:
    """A model and all that moves with it: optimiser, average, scaler, generator of the denoising noise.

    A step does not wait for a GPU. Whether its numbers were finite stays on the device, where it keeps the optimiser
    from moving the weights; ``read_health`` reads it where the run waits anyhow.
    """

    def __init__(
        self,
        model: nn.Module,
        config: TrainConfig,
        *,
        loss: LossConfig,
        classes: int,
        queries: int,
        device: torch.device,
        criterion: nn.Module | None = None,
        team: Team = ALONE,
    ) -> None:
        """
        Args:
            team: the processes that share each batch; the criterion must add up over them.
            criterion: what teaches the model, of Outputs and Targets; None: the rt family's.
        """
        self.config, self.device, self.classes, self.queries = config, device, classes, queries
        if team.size > 1 and device.type == "cuda":  # on a CPU each sees its share: see statistics()
            model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
        self.model = model.to(device)
        if config.channels_last:
            self.model.to(memory_format=torch.channels_last)
        freeze(
            self.model, norm=bool(config.freeze_norm), stages=config.freeze_stages or 0, learn=config.learn
        )
        self.ema = Ema(self.model)
        self.optimizer = make_optimizer(self.model, config)
        self.loss = loss
        self.team = team
        self.criterion = Criterion(loss, classes, total=team.total) if criterion is None else criterion
        self.generator = torch.Generator().manual_seed(config.seed)
        self.amp = choose_amp(config.amp, device)
        self.scaler = torch.amp.GradScaler(device.type, enabled=self.amp is torch.float16)
        self.accumulate = config.accumulate
        self.health = Health()
        """Up to the last ``read_health``; on the CPU, up to the last step."""
        self._costs: list[Costs] = []
        self.steps = 0
        """Optimiser steps so far, those left out included."""
        self._unread: list[tuple[Tensor, list[Costs]]] = []
        self.reason: TrainingError | None = None
        """Why the last step was skipped whose matching costs were not finite."""
        self._halvings = 0
        self._gradients = Gradients(self.optimizer)
        self._forward = torch.compile(self.model) if config.compile else self.model
        train_mode(self.model)

    def step(self, batch: Batch, progress: float) -> Step:
        """Learn from one batch.

        Args:
            batch: what one optimiser step sees, on any device; this process's share of it where there are more.
            progress: share of the run done before this step, in [0, 1].

        Raises:
            DeviceError: out of memory even with the batch cut into small parts.
        """
        config = self.config
        self._reseed()
        share = rate(
            progress, warmup=config.warmup, flat=config.flat, final=config.final_lr, fall=config.fall
        )
        height = set_rate(self.optimizer, share)
        counts = self.team.counts(batch.targets.counts, batch=config.batch or 0)
        terms = self._backward_within_memory(self._ready(batch, counts, progress), counts)
        if terms is None:
            join(self.team, [], statistics(self.model))
            self.ema.heal(self.model)
            self._count(kept=False)
            return Step(height, None)
        terms, bad = self._join(terms)
        kept = self._update(bad)
        self.ema.heal(self.model)
        self.ema.update(self.model, ema_decay(progress, decay=config.ema_decay, ramp=config.ema_ramp))
        self._unread.append((kept, self._costs))
        if self.device.type == "cpu":
            self.read_health()
            return Step(height, terms if kept else None, kept)
        return Step(height, terms, kept)

    def _reseed(self) -> None:
        """Other chance for dropout in each process and step, which a resumed run finds again."""
        self.steps += 1
        if self.team.size > 1:
            torch.manual_seed((self.config.seed * 1_000_003 + self.steps) * self.team.size + self.team.rank)

    def read_health(self) -> Health:
        """Wait for the device and count which of the steps since the last reading were left out, and why."""
        unread, self._unread = self._unread, []
        for kept, costs in unread:
            if not kept:
                self._explain(costs)
            self._count(kept=bool(kept))
        return self.health

    def _explain(self, costs: list[Costs]) -> None:
        for one in costs:
            try:
                one.check()
            except TrainingError as error:
                self._note(error)
                return

    def _count(self, *, kept: bool) -> None:
        if kept:
            self.health.in_row = 0
            return
        self.health.skipped += 1
        # A float16 scaler overflows now and then while it looks for its scale: no sign of ill health.
        if not self.scaler.is_enabled() or self.scaler.get_scale() < 1:
            self.health.in_row += 1

    def _ready(self, batch: Batch, counts: Tensor, progress: float) -> Batch:
        layout = torch.channels_last if self.config.channels_last else torch.preserve_format
        pixels = _send(batch.pixels, self.device).contiguous(memory_format=layout)
        times = self.config.repeat if progress < self.config.repeat_until else 1
        if times > 1:
            times = max(1, min(times, self.queries // max(int(counts.max()), 1)))
        targets = batch.targets if self.team.size == 1 else pad(batch.targets, int(counts.max()))
        return Batch(pixels, repeat_targets(targets, times))

    def _backward_within_memory(self, batch: Batch, counts: Tensor) -> dict[str, Tensor] | None:
        while True:
            try:
                return self._backward(batch, counts)
            except torch.OutOfMemoryError as error:
                self._halve(batch, error)

    def _halve(self, batch: Batch, error: torch.OutOfMemoryError) -> None:
        """Cut batches into twice as many parts; the optimiser still sees the whole batch."""
        self.optimizer.zero_grad(set_to_none=True)
        alone = self.team.size == 1  # others, whose memory sufficed, would cut theirs otherwise
        if not alone or self._halvings >= MOST_HALVINGS or self.accumulate >= len(batch.pixels):
            raise DeviceError(
                f"[train] {self.device} is out of memory with {self.accumulate} parts of a batch of "
                f"{len(batch.pixels)}; choose a smaller --batch or --canvas"
                + ("" if alone else f", or --accumulate {self.accumulate * 2}")
            ) from error
        self._halvings += 1
        self.accumulate = min(self.accumulate * 2, len(batch.pixels))
        if self.device.type == "cuda":
            torch.cuda.empty_cache()
        warnings.warn(
            f"[train] out of memory: batches are now cut into {self.accumulate} parts", stacklevel=3
        )

    def _backward(self, batch: Batch, counts: Tensor) -> dict[str, Tensor] | None:
        """Gradients of the batch at hand, as a share of the whole one; None where costs are known to be not finite.

        Each part's losses are means over its boxes; weighted by its share of them, their sum is the mean over all, so
        that cutting a batch changes nothing in RT-DETR's losses. It does in D-FINE's boxes and distributions: they
        are means over the queries of the union of all layers' matches, whose number is known only once a part has
        been matched, and DDF weighs by the roots of such numbers; there a part counts by its share of boxes, which is
        nearly its share of queries. Batch norms see one part at a time.

        Where processes share the batch, the first part is the first parts of all of them, and so on.
        """
        self.optimizer.zero_grad(set_to_none=True)
        self._costs = []
        everything = max(int(counts.sum()), 1)
        total: dict[str, Tensor] = {}
        pieces = self.team.pieces(counts, parts=self.accumulate)
        for part, piece in zip(parts(batch, self.accumulate), pieces):
            share = max(piece.objects, 1) / everything
            try:
                losses = self._losses(part, piece)
            except TrainingError as error:
                self._note(self._theirs(error))
                return None
            self.scaler.scale(losses.total * share).backward()
            if losses.costs is not None:
                self._costs.append(losses.costs)
            for name, value in {"loss": losses.total.detach(), **losses.terms}.items():
                total[name] = total[name] + value * share if name in total else value * share
        return total

    def _theirs(self, error: TrainingError) -> TrainingError:
        """Costs that are not finite stop all processes at the same place; the reason names layer and image in one."""
        reasons = [reason for reason in self.team.gather(str(error)) if reason != ELSEWHERE]
        return TrainingError(reasons[0]) if reasons else error

    def _note(self, error: TrainingError) -> None:
        """Keep the reason, which names layer and image, for the error that ends the run; say the first one."""
        if self.reason is None:
            warnings.warn(f"[train] a step is skipped: {error}", stacklevel=2)
        self.reason = error

    def _losses(self, part: Batch, piece: Piece) -> Losses:
        # Made where the targets are, next to the generator: on the GPU each draw would have to be sent by itself.
        denoise = make_denoise(
            part.targets,
            classes=self.classes,
            queries=self.queries,
            config=self.loss,
            generator=self.generator,
            first=piece.first,
            whole=piece.whole,
        )
        targets = send(part.targets, self.device)
        denoise = None if denoise is None else send(denoise, self.device)
        cast = torch.autocast(self.device.type, self.amp) if self.amp else contextlib.nullcontext()
        with cast:
            outputs = self._forward(part.pixels, denoise)
        outputs = in_float32(outputs)
        found: Losses = self.criterion(outputs, targets, *([] if denoise is None else [denoise]))
        return found

    def _join(self, terms: dict[str, Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """Gradients, losses and () the number of bad costs of the whole batch, in all processes."""
        bad = torch.stack([costs.bad.sum() for costs in self._costs]).sum().float()
        if self.team.size == 1:
            return terms, bad
        values = torch.stack([*terms.values(), bad])
        join(self.team, [*self._gradients.dense(self.team), values], statistics(self.model))
        return dict(zip(terms, values.unbind())), values[-1]

    def _update(self, bad: Tensor) -> Tensor:
        """Clip and step; answer () bool whether the weights moved: not where a gradient or a cost is not finite."""
        self.scaler.unscale_(self.optimizer)
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.config.clip or float("inf"))
        kept = norm.isfinite() & (bad == 0)
        # The fused optimiser reads this on the device, and where it is 1 leaves weights and moments as they are. A
        # scaler's own step() would put what it knows in its place, which is less.
        self.optimizer.found_inf = (~kept).float()  # type: ignore[attr-defined]
        self.optimizer.step()
        self.scaler.update()
        return kept

    def recover(self, weights: dict[str, Tensor] | None) -> None:
        """Go back to good weights (None: the running average) with a fresh optimiser.

        Raises:
            TrainingError: that did not help ``MOST_RELOADS`` times.
        """
        if self.health.reloads >= MOST_RELOADS:
            raise TrainingError(
                f"[train] losses stay NaN or infinite after {MOST_RELOADS} returns to the best weights "
                f"({self.health.skipped} steps skipped); lower --lr, or choose --amp off, and --resume auto"
                + (f". The last reason: {self.reason}" if self.reason else "")
            ) from self.reason
        self.health.reloads += 1
        self.health.in_row = 0
        if weights is not None:
            self.ema.model.load_state_dict(weights)
        self.model.load_state_dict(self.ema.model.state_dict())
        self.optimizer.state.clear()
