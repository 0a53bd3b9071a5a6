"""The small layers of encoder and decoder."""

from __future__ import annotations

import math
from typing import Any, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrx.errors import ConfigError

PRIOR = -math.log((1 - 0.01) / 0.01)
"""Class logit of a fresh model: one query in a hundred is an object."""
_ACTIVATIONS: dict[str, type[nn.Module]] = {
    "": nn.Identity,
    "relu": nn.ReLU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
}


def activation(name: str) -> nn.Module:
    """A fresh activation of one of the names that the family uses."""
    if name not in _ACTIVATIONS:
        raise ConfigError(f"[activation] must be one of {sorted(_ACTIVATIONS)}, got {name!r}")
    return _ACTIVATIONS[name]()


def inverse_sigmoid(x: Tensor) -> Tensor:
    """Logits of shares in [0, 1], kept 1e-5 off both ends."""
    x = x.clamp(0, 1)
    return torch.log(x.clamp(min=1e-5) / (1 - x).clamp(min=1e-5))


class ConvNorm(nn.Module):
    """Convolution, batch norm, activation: (B, inputs, h, w) -> (B, outputs, h / stride, w / stride)."""

    def __init__(
        self, inputs: int, outputs: int, *, kernel: int = 1, stride: int = 1, groups: int = 1, act: str = ""
    ) -> None:
        super().__init__()
        self.conv = nn.Conv2d(
            inputs, outputs, kernel, stride, padding=(kernel - 1) // 2, groups=groups, bias=False
        )
        self.norm: nn.Module = nn.BatchNorm2d(outputs)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.act(self.norm(self.conv(x))))

    def fuse(self) -> None:
        """Fold the norm into the convolution, for a model that is only run."""
        if not isinstance(self.norm, nn.Identity):
            self.conv = folded(self.conv, self.norm)
            self.norm = nn.Identity()


def folded(conv: nn.Conv2d, norm: nn.Module) -> nn.Conv2d:
    """The convolution that does what a convolution and the batch norm after it do in eval mode."""
    mean, var = cast(Tensor, norm.running_mean), cast(Tensor, norm.running_var)
    gain = cast(Tensor, norm.weight) * torch.rsqrt(var + cast(float, norm.eps))
    new = type(conv)(
        conv.in_channels,
        conv.out_channels,
        cast(Any, conv.kernel_size),
        cast(Any, conv.stride),
        padding=cast(Any, conv.padding),
        dilation=cast(Any, conv.dilation),
        groups=conv.groups,
    ).to(conv.weight)
    bias = 0 if conv.bias is None else conv.bias
    with torch.no_grad():
        new.weight.copy_(conv.weight * gain[:, None, None, None])
        cast(Tensor, new.bias).copy_(cast(Tensor, norm.bias) + (bias - mean) * gain)
    return new


class RepVgg(nn.Module):
    """A 3x3 and a 1x1 branch added; one 3x3 convolution once fused (RepVGG, arXiv 2101.03697)."""

    def __init__(self, channels: int, *, act: str) -> None:
        super().__init__()
        self.conv1 = ConvNorm(channels, channels, kernel=3)
        self.conv2: ConvNorm | None = ConvNorm(channels, channels)
        self.act = activation(act)

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv1(x)
        if self.conv2 is not None:
            y = y + self.conv2(x)
        return cast(Tensor, self.act(y))

    def fuse(self) -> None:
        """Add the 1x1 branch into the middle of the 3x3 kernel."""
        self.conv1.fuse()
        if self.conv2 is None:
            return
        self.conv2.fuse()
        with torch.no_grad():
            self.conv1.conv.weight[:, :, 1:2, 1:2] += self.conv2.conv.weight
            cast(Tensor, self.conv1.conv.bias).add_(cast(Tensor, self.conv2.conv.bias))
        self.conv2 = None


class CspRep(nn.Module):
    """RT-DETR's fusion layer: RepVGG blocks beside a 1x1 shortcut (arXiv 2304.08069)."""

    def __init__(
        self, inputs: int, outputs: int, *, blocks: int, expansion: float, act: str = "silu"
    ) -> None:
        super().__init__()
        inner = int(outputs * expansion)
        self.conv1 = ConvNorm(inputs, inner, act=act)
        self.conv2 = ConvNorm(inputs, inner, act=act)
        self.bottlenecks = nn.Sequential(*[RepVgg(inner, act=act) for _ in range(blocks)])
        self.conv3 = nn.Identity() if inner == outputs else ConvNorm(inner, outputs, act=act)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.conv3(self.bottlenecks(self.conv1(x)) + self.conv2(x)))


class ElanRep(nn.Module):
    """D-FINE's fusion layer: two CspRep in a row, every stage kept (RepNCSPELAN4, arXiv 2402.13616)."""

    def __init__(
        self, inputs: int, outputs: int, *, blocks: int, expansion: float, act: str = "silu"
    ) -> None:
        super().__init__()
        inner = round(expansion * outputs // 2)
        self.cv1 = ConvNorm(inputs, 2 * outputs, act=act)
        self.cv2 = nn.Sequential(
            CspRep(outputs, inner, blocks=blocks, expansion=1.0, act=act),
            ConvNorm(inner, inner, kernel=3, act=act),
        )
        self.cv3 = nn.Sequential(
            CspRep(inner, inner, blocks=blocks, expansion=1.0, act=act),
            ConvNorm(inner, inner, kernel=3, act=act),
        )
        self.cv4 = ConvNorm(2 * outputs + 2 * inner, outputs, act=act)

    def forward(self, x: Tensor) -> Tensor:
        whole = self.cv1(x)
        half = whole[:, whole.shape[1] // 2 :]
        once = self.cv2(half)
        twice = self.cv3(once)
        return cast(Tensor, self.cv4(torch.cat([whole, once, twice], 1)))


class LightFuse(nn.Module):
    """A cheap fusion layer: the maps are added; each block then looks around within a channel, and across channels."""

    def __init__(self, channels: int, *, blocks: int, act: str = "silu") -> None:
        super().__init__()
        self.blocks = nn.ModuleList(
            nn.Sequential(
                ConvNorm(channels, channels, kernel=5, groups=channels, act=act),
                ConvNorm(channels, channels, act=act),
            )
            for _ in range(blocks)
        )

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        x = first + second
        for block in self.blocks:
            x = x + block(x)
        return x


class ScDown(nn.Module):
    """Halve the map: a 1x1 over channels, then a 3x3 of stride 2 on each (YOLOv10, arXiv 2405.14458)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.cv1 = ConvNorm(channels, channels)
        self.cv2 = ConvNorm(channels, channels, kernel=3, stride=2, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        return cast(Tensor, self.cv2(self.cv1(x)))


class Mlp(nn.Module):
    """Linear layers with ReLU between: (..., inputs) -> (..., outputs)."""

    def __init__(self, inputs: int, inner: int, outputs: int, *, layers: int) -> None:
        super().__init__()
        widths = [inputs, *[inner] * (layers - 1), outputs]
        self.layers = nn.ModuleList(nn.Linear(a, b) for a, b in zip(widths, widths[1:]))

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.relu(layer(x))
        return cast(Tensor, self.layers[-1](x))


class SelfAttention(nn.Module):
    """Attention among (B, N, width) tokens; positions are added to queries and keys, not to values."""

    def __init__(self, width: int, *, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def _split(self, x: Tensor) -> Tensor:
        return cast(Tensor, x.unflatten(-1, (self.heads, -1)).transpose(1, 2))  # (B, heads, N, width / heads)

    def forward(self, x: Tensor, position: Tensor, mask: Tensor | None = None) -> Tensor:
        """Args: x, position (B or 1, N, width); mask (N, N) float, minus infinity where a row must not look."""
        width = x.shape[-1]
        weight, bias = self.in_proj_weight, self.in_proj_bias
        both = F.linear(x + position, weight[: 2 * width], bias[: 2 * width])
        value = self._split(F.linear(x, weight[2 * width :], bias[2 * width :]))
        query, key = (self._split(part) for part in both.chunk(2, -1))
        if self.training:
            out = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        else:  # spelled out, so that the exported graph is the plain one
            scores = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
            scores = scores if mask is None else scores + mask
            out = scores.softmax(-1) @ value
        return cast(Tensor, self.out_proj(out.transpose(1, 2).flatten(2)))


def fuse(module: nn.Module) -> None:
    """Fold what training needs apart and running does not, in place: RepVGG branches and batch norms."""
    for part in module.modules():
        if isinstance(part, RepVgg):
            part.fuse()
    for part in module.modules():
        if isinstance(part, ConvNorm):
            part.fuse()
