"""Feature maps from any timm network, and its pretrained weights."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrx.errors import CheckpointError, ConfigError
from detrx.models.files import read_tensors

_PROJECTION = "layer1.0.downsample."
"""Where RT-DETR's small ResNets have a projection that timm's have not."""


@dataclass(frozen=True)
class BackboneReport:
    """What became of a weights file."""

    taken: tuple[str, ...]
    """Names of the tensors that were loaded."""
    untaken: tuple[str, ...]
    """Names that this backbone has no use for: the classifier and stages past the deepest level."""


class Backbone(nn.Module):
    """(B, 3, h, w) pixels to one feature map for each wanted stride; nothing is computed past the deepest.

    Raises:
        ConfigError: timm has no such network, it has no features, or none of a wanted stride.
    """

    def __init__(
        self,
        name: str,
        *,
        levels: Sequence[int],
        padding: str = "",
        projection: bool = False,
        dilated: bool = False,
    ) -> None:
        super().__init__()
        self.name = name
        wanted = _indices(name, levels)
        options: dict[str, Any] = {"pad_type": padding} if padding else {}
        if dilated:
            options["output_stride"] = 16
        try:
            self.net: Any = timm.create_model(
                name, pretrained=False, features_only=True, out_indices=wanted, **options
            )
        except TypeError as error:
            asked = "dilated=True" if dilated else f"padding={padding!r}"
            raise ConfigError(f"[Backbone] {name} does not take {asked}; leave it out") from error
        info: Any = self.net.feature_info
        self.strides: list[int] = list(info.reduction())
        self.channels: list[int] = list(info.channels())
        _drop_unused_stages(self.net)
        _make_padding_static(self.net)
        if projection:
            _project_first_shortcut(self.net, name)

    def forward(self, pixels: Tensor) -> list[Tensor]:
        return cast("list[Tensor]", self.net(pixels))

    def freeze(self, stages: int) -> None:
        """Stop training of the stem and the first ``stages`` stages, the first being of stride 4; 0 is the stem."""
        info: Any = self.net.feature_info
        modules = [str(stage["module"]) for stage in info.info if stage["reduction"] >= 4]
        if not 0 <= stages <= len(modules):
            raise ConfigError(
                f"[Backbone] stages to freeze must be in [0, {len(modules)}] for {self.name}, got {stages}"
            )
        last = _ours(modules[min(stages, len(modules) - 1)], set(dict(self.net.named_modules())))
        for unit, module in _units(self.net):
            if stages < len(modules) and unit == last:
                return
            module.requires_grad_(False)

    def load(self, tensors: Mapping[str, Tensor], *, source: str = "weights") -> BackboneReport:
        """Take timm-named weights, strictly for every tensor of this backbone.

        Raises:
            CheckpointError: a tensor is missing or has another shape.
        """
        own = self.net.state_dict()
        theirs = {_ours(key, set(own)): key for key in tensors}
        needed = {k for k in own if not k.endswith("num_batches_tracked") and not k.startswith(_PROJECTION)}
        missing = sorted(needed - set(theirs))
        misfit = [
            f"{k} {tuple(tensors[theirs[k]].shape)} for {tuple(own[k].shape)}"
            for k in sorted(needed & set(theirs))
            if tensors[theirs[k]].shape != own[k].shape
        ]
        if missing or misfit:
            raise CheckpointError(
                f"[Backbone] {source} must hold timm's {self.name}: {len(missing)} tensors missing "
                f"{missing[:3]}, {len(misfit)} of another shape {misfit[:3]}; check --backbone"
            )
        taken = {k: tensors[theirs[k]] for k in own if k in theirs}
        self.net.load_state_dict(taken, strict=False)
        used = {theirs[k] for k in taken}
        return BackboneReport(tuple(sorted(used)), tuple(sorted(set(tensors) - used)))


def load_backbone_weights(backbone: Backbone, path: str | Path) -> BackboneReport:
    """Load a timm state dict (.safetensors, or .pth of tensors only) into a backbone.

    Raises:
        CheckpointError: the file cannot be read or does not fit.
        TrustError: the file would run code.
    """
    found = read_tensors(Path(path))
    return backbone.load(found, source=str(path))


class FrozenBatchNorm(nn.Module):
    """Batch norm that keeps its statistics and its gain in training too: (B, C, h, w) -> the same."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        ones = torch.ones(norm.num_features)
        self.register_buffer("weight", norm.weight.detach().clone() if norm.affine else ones)
        self.register_buffer("bias", norm.bias.detach().clone() if norm.affine else torch.zeros_like(ones))
        self.register_buffer("running_mean", cast(Tensor, norm.running_mean).clone())
        self.register_buffer("running_var", cast(Tensor, norm.running_var).clone())
        self.register_buffer("num_batches_tracked", cast(Tensor, norm.num_batches_tracked).clone())

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        return F.batch_norm(
            x, self.running_mean, self.running_var, self.weight, self.bias, training=False, eps=self.eps
        )


class _FrozenNormAct(FrozenBatchNorm):
    """The same for timm's norms that carry the activation."""

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__(norm)
        self.drop = cast(nn.Module, norm.drop)
        self.act = cast(nn.Module, norm.act)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.drop(super().forward(x))))


def freeze_norm(module: nn.Module) -> int:
    """Replace every batch norm inside by a frozen one with the same keys, in place; returns how many."""
    count = 0
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, _FrozenNormAct(child) if hasattr(child, "act") else FrozenBatchNorm(child))
            count += 1
        else:
            count += freeze_norm(child)
    return count


class _EvenSameConv(nn.Conv2d):
    """TensorFlow's "same" padding where the stride divides the sides, which a canvas of 32s ensures."""

    def forward(self, x: Tensor) -> Tensor:
        down, across = (max(k - s, 0) for k, s in zip(self.kernel_size, self.stride))
        x = F.pad(x, (across // 2, across - across // 2, down // 2, down - down // 2))
        return F.conv2d(x, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


def _make_padding_static(module: nn.Module) -> None:
    for conv in module.modules():
        if type(conv).__name__ == "Conv2dSame":
            # The same parameters; only how much is padded no longer hangs on the input at run time.
            conv.__class__ = _EvenSameConv


def _project_first_shortcut(net: nn.Module, name: str) -> None:
    """Begins as the identity, so that timm's weights, which lack it, still fit."""
    if name not in ("resnet18d", "resnet34d"):
        raise ConfigError(f"[Backbone] projection is only for resnet18d and resnet34d, got {name}")
    block = net.get_submodule("layer1.0")
    channels = cast(nn.Conv2d, block.conv1).in_channels
    conv = nn.Conv2d(channels, channels, 1, bias=False)
    nn.init.dirac_(conv.weight)
    block.downsample = nn.Sequential(nn.Identity(), conv, nn.BatchNorm2d(channels))


def _drop_unused_stages(net: nn.Module) -> None:
    stages = getattr(net, "_stage_out_idx", None)
    blocks = getattr(net, "blocks", None)
    if stages is not None and isinstance(blocks, nn.Sequential):
        net.blocks = blocks[: max(stages)]


def _indices(name: str, levels: Sequence[int]) -> list[int]:
    at = _stages(name)
    missing = [stride for stride in levels if stride not in at]
    if missing:
        raise ConfigError(f"[Backbone] {name} has no maps of stride {missing}, only of {sorted(at)}")
    return [at[stride] for stride in levels]


def strides_of(name: str) -> tuple[int, ...]:
    """Strides of the feature maps that a timm network has, rising.

    Raises:
        ConfigError: timm has no such network, or it has no features.
    """
    return tuple(sorted(_stages(name)))


@functools.lru_cache(maxsize=64)
def _stages(name: str) -> dict[int, int]:
    """Stride of each feature map to its index."""
    if not timm.is_model(name):
        raise ConfigError(
            f"[Backbone] must be a network that timm knows, got {name!r}; "
            'see python -c "import timm; print(timm.list_models())"'
        )
    try:
        with torch.device("meta"):
            info: Any = timm.create_model(name, pretrained=False, features_only=True).feature_info
    except (RuntimeError, AttributeError, TypeError) as error:
        raise ConfigError(f"[Backbone] {name} gives no feature maps; choose another network") from error
    return dict(zip(info.reduction(), info.out_indices))


def _ours(key: str, known: set[str]) -> str:
    """timm's feature wrapper writes ``stages_0`` for ``stages.0`` where the stages stand in a row."""
    return key if key in known else re.sub(r"^(\w+?)\.(\d+)(\.|$)", r"\1_\2\3", key)


def _units(net: nn.Module) -> list[tuple[str, nn.Module]]:
    units: list[tuple[str, nn.Module]] = []
    for name, child in net.named_children():
        inner = list(child.named_children()) if name == "blocks" else []
        units += [(f"{name}.{key}", part) for key, part in inner] or [(name, child)]
    return units
