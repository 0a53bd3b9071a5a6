"""The layers of the original DETR, in its order of operations, so that equal weights give equal bits.

Sequences are (S, B, C), cells or queries first, as there.
"""

from __future__ import annotations

import math
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from detrx.models.config import DetrConfig

_TABLE = 50
"""Rows and columns of the learned positions."""
_TEMPERATURE = 10000.0


class ScaledNorm(nn.Module):
    """Batch norm that keeps statistics and gain, as one scale and one shift: (B, C, h, w) -> the same.

    ``x * (w * rsqrt(var + eps)) + (b - mean * that)``: the same function as F.batch_norm, rounded otherwise.
    """

    def __init__(self, norm: nn.BatchNorm2d) -> None:
        super().__init__()
        self.eps = norm.eps
        ones = torch.ones_like(cast(Tensor, norm.running_var))
        self.register_buffer("weight", norm.weight.detach().clone() if norm.affine else ones)
        self.register_buffer("bias", norm.bias.detach().clone() if norm.affine else torch.zeros_like(ones))
        self.register_buffer("running_mean", cast(Tensor, norm.running_mean).clone())
        self.register_buffer("running_var", cast(Tensor, norm.running_var).clone())
        # timm's norms that carry the activation.
        self.act = cast(nn.Module, norm.act) if hasattr(norm, "act") else nn.Identity()

    weight: Tensor
    bias: Tensor
    running_mean: Tensor
    running_var: Tensor

    def forward(self, x: Tensor) -> Tensor:
        scale = self.weight * (self.running_var + self.eps).rsqrt()
        shift = self.bias - self.running_mean * scale
        return cast(Tensor, self.act((x * scale[:, None, None]).add_(shift[:, None, None])))

    def plain(self) -> nn.Module:
        """The same as torch's batch norm in eval mode, which exporters fold into the convolution before it."""
        norm = nn.BatchNorm2d(len(self.weight), eps=self.eps)
        with torch.no_grad():
            norm.weight.copy_(self.weight)
            norm.bias.copy_(self.bias)
            cast(Tensor, norm.running_mean).copy_(self.running_mean)
            cast(Tensor, norm.running_var).copy_(self.running_var)
        return (norm if isinstance(self.act, nn.Identity) else nn.Sequential(norm, self.act)).eval()


def scale_norms(module: nn.Module) -> None:
    """Replace every batch norm inside by a ScaledNorm, in place."""
    for name, child in list(module.named_children()):
        if isinstance(child, nn.BatchNorm2d):
            setattr(module, name, ScaledNorm(child))
        else:
            scale_norms(child)


def plain_norms(module: nn.Module) -> None:
    """Put torch's batch norm in place of every ScaledNorm inside, for export."""
    for name, child in list(module.named_children()):
        if isinstance(child, ScaledNorm):
            setattr(module, name, child.plain())
        else:
            plain_norms(child)


class Attention(nn.Module):
    """Multi-head attention with the packed projections of nn.MultiheadAttention, whose weights it takes.

    The same sums in the same order as ``nn.MultiheadAttention(...)(need_weights=True)``, without the average over
    heads that nobody reads.
    """

    def __init__(self, width: int, *, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads, self.dropout = heads, dropout
        self.in_proj_weight = nn.Parameter(torch.empty(3 * width, width))
        self.in_proj_bias = nn.Parameter(torch.zeros(3 * width))
        self.out_proj = nn.Linear(width, width)
        nn.init.xavier_uniform_(self.in_proj_weight)
        nn.init.zeros_(self.out_proj.bias)

    def forward(self, query: Tensor, key: Tensor, value: Tensor, hidden: Tensor | None = None) -> Tensor:
        """Args: query (Q, B, C); key, value (S, B, C); hidden (B * heads, 1, S), minus infinity where not to look."""
        scores = F.dropout(self.scores(query, key, hidden), self.dropout, self.training)
        v = self._project(value, 2)
        out = torch.bmm(scores, v).transpose(0, 1).reshape(-1, query.shape[2])
        return cast(Tensor, self.out_proj(out).view(query.shape))

    def scores(self, query: Tensor, key: Tensor, hidden: Tensor | None = None) -> Tensor:
        """(B * heads, Q, S) where each query looks: shares of 1 over the S keys. Arguments as of ``forward``."""
        q, k = self._project(query, 0), self._project(key, 1).transpose(-2, -1)
        q = q * math.sqrt(1.0 / q.shape[-1])
        return (torch.bmm(q, k) if hidden is None else torch.baddbmm(hidden, q, k)).softmax(-1)

    def _project(self, x: Tensor, part: int) -> Tensor:
        """Through the packed projections of queries (0), keys (1) or values (2)."""
        return self._split(F.linear(x, self.in_proj_weight.chunk(3)[part], self.in_proj_bias.chunk(3)[part]))

    def _split(self, x: Tensor) -> Tensor:
        length, batch, width = x.shape
        return x.view(length, batch * self.heads, width // self.heads).transpose(0, 1)


class FeedForward(nn.Module):
    """What encoder and decoder layers share: two linear layers, and the switch between pre-norm and post-norm."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.norm_first, self.rate = config.norm_first, config.dropout
        self.linear1 = nn.Linear(config.hidden, config.feedforward)
        self.linear2 = nn.Linear(config.feedforward, config.hidden)

    def drop(self, x: Tensor) -> Tensor:
        return F.dropout(x, self.rate, self.training)

    def feed(self, x: Tensor) -> Tensor:
        return self.drop(self.linear2(self.drop(F.relu(self.linear1(x)))))


class EncoderLayer(FeedForward):
    """Self-attention among the cells of the map, then the feed-forward net."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config)
        self.self_attn = Attention(config.hidden, heads=config.heads, dropout=config.dropout)
        self.norm1 = nn.LayerNorm(config.hidden)
        self.norm2 = nn.LayerNorm(config.hidden)

    def forward(self, x: Tensor, position: Tensor, hidden: Tensor | None) -> Tensor:
        """Args: x (S, B, C); position (S, B or 1, C); hidden as Attention takes it."""
        if self.norm_first:
            x = x + self._attend(self.norm1(x), position, hidden)
            return x + self.feed(self.norm2(x))
        x = self.norm1(x + self._attend(x, position, hidden))
        return cast(Tensor, self.norm2(x + self.feed(x)))

    def _attend(self, x: Tensor, position: Tensor, hidden: Tensor | None) -> Tensor:
        query = x + position
        return self.drop(self.self_attn(query, query, x, hidden))


class DecoderLayer(FeedForward):
    """Self-attention among queries, attention to the encoder's map, then the feed-forward net."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__(config)
        self.self_attn = Attention(config.hidden, heads=config.heads, dropout=config.dropout)
        self.multihead_attn = Attention(config.hidden, heads=config.heads, dropout=config.dropout)
        self.norm1 = nn.LayerNorm(config.hidden)
        self.norm2 = nn.LayerNorm(config.hidden)
        self.norm3 = nn.LayerNorm(config.hidden)

    def forward(
        self, x: Tensor, slots: Tensor, key: Tensor, memory: Tensor, hidden: Tensor | None, groups: int = 1
    ) -> Tensor:
        """Args: x (Q, B, C); slots (Q, B, C) what makes queries differ; key (S, B, C) memory with its positions;
        memory (S, B, C); hidden as Attention takes it; groups of queries that do not see each other, in training."""
        if self.norm_first:
            x = x + self._attend(self.norm1(x), slots, groups)
            x = x + self.drop(self.multihead_attn(self.norm2(x) + slots, key, memory, hidden))
            return x + self.feed(self.norm3(x))
        x = self.norm1(x + self._attend(x, slots, groups))
        x = self.norm2(x + self.drop(self.multihead_attn(x + slots, key, memory, hidden)))
        return cast(Tensor, self.norm3(x + self.feed(x)))

    def _attend(self, x: Tensor, slots: Tensor, groups: int) -> Tensor:
        query = x + slots
        if groups == 1:
            return self.drop(self.self_attn(query, query, x))
        query = apart(query, groups)
        return self.drop(together(self.self_attn(query, query, apart(x, groups)), groups))


def apart(x: Tensor, groups: int) -> Tensor:
    """(G * Q, B, C) to (Q, G * B, C), where no group sees another."""
    return cast(Tensor, x.unflatten(0, (groups, -1))).transpose(0, 1).flatten(1, 2)


def together(x: Tensor, groups: int) -> Tensor:
    """(Q, G * B, C) back to (G * Q, B, C)."""
    return cast(Tensor, x.unflatten(1, (groups, -1))).transpose(0, 1).flatten(0, 1)


class Encoder(nn.Module):
    """(S, B, C) cells to the same shape."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(EncoderLayer(config) for _ in range(config.encoder_layers))
        self.norm = nn.LayerNorm(config.hidden) if config.norm_first else None

    def forward(self, x: Tensor, position: Tensor, hidden: Tensor | None) -> Tensor:
        for layer in self.layers:
            x = layer(x, position, hidden)
        return x if self.norm is None else cast(Tensor, self.norm(x))


class Decoder(nn.Module):
    """Queries that look at the encoder's map, layer by layer."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(DecoderLayer(config) for _ in range(config.decoder_layers))
        self.norm = nn.LayerNorm(config.hidden)

    def forward(
        self,
        slots: Tensor,
        memory: Tensor,
        position: Tensor,
        hidden: Tensor | None,
        *,
        every: bool,
        groups: int = 1,
    ) -> Tensor:
        """(L, Q, B, C) what each layer says, or with ``every`` False the last alone."""
        x, key, found = torch.zeros_like(slots), memory + position, []
        for layer in self.layers:
            x = layer(x, slots, key, memory, hidden, groups)
            if every:
                found.append(self.norm(x))
        return torch.stack(found) if every else cast(Tensor, self.norm(x))[None]


class Transformer(nn.Module):
    """Encoder and decoder; no weights of its own."""

    def __init__(self, config: DetrConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.encoder = Encoder(config)
        self.decoder = Decoder(config)
        for parameter in self.parameters():
            if parameter.dim() > 1:
                nn.init.xavier_uniform_(parameter)

    def forward(
        self,
        feature: Tensor,
        padding: Tensor | None,
        slots: Tensor,
        position: Tensor,
        *,
        every: bool,
        groups: int = 1,
    ) -> tuple[Tensor, Tensor]:
        """What the queries found, and what the encoder made of the map.

        Args:
            feature: (B, C, h, w).
            padding: (B, h, w) bool, True where there is no picture.
            slots: (Q, C) the learned queries.
            position: (B or 1, C, h, w).
            every: all decoder layers answer.
            groups: sets of slots, one after another, whose queries do not see those of the others.

        Returns:
            (L, B, Q, C), and (B, C, h, w).
        """
        cells = feature.flatten(2).permute(2, 0, 1)
        places = position.flatten(2).permute(2, 0, 1)
        queries = slots[:, None].repeat(1, feature.shape[0], 1)
        hidden = None if padding is None else hide(padding.flatten(1), feature.dtype, heads=self.heads)
        memory = self.encoder(cells, places, hidden)
        found = self.decoder(queries, memory, places, hidden, every=every, groups=groups).transpose(1, 2)
        return found, memory.permute(1, 2, 0).view(feature.shape)


def hide(padding: Tensor, dtype: torch.dtype, *, heads: int) -> Tensor:
    """(B, S) bool to (B * heads, 1, S): what is added to attention scores, minus infinity on padding."""
    batch, length = padding.shape
    added = torch.zeros_like(padding, dtype=dtype).masked_fill(padding, float("-inf"))
    return added.view(batch, 1, 1, length).expand(-1, heads, -1, -1).reshape(batch * heads, 1, length)


def sine_positions(picture: Tensor, channels: int) -> Tensor:
    """(B, channels, h, w) sines and cosines of each cell's place in its picture, rows first.

    Args:
        picture: (B, h, w) float32, 1 where there is picture and 0 on padding: places are counted over the ones.
    """
    height, width = picture.shape[1:]
    # Sums of ones are exact in any order; products with triangles export more plainly than running sums.
    rows = torch.ones(height, height, dtype=picture.dtype, device=picture.device).tril() @ picture
    columns = picture @ torch.ones(width, width, dtype=picture.dtype, device=picture.device).triu()
    rows = rows / (rows[:, -1:, :] + 1e-6) * (2 * math.pi)
    columns = columns / (columns[:, :, -1:] + 1e-6) * (2 * math.pi)
    step = torch.arange(channels // 2, dtype=picture.dtype, device=picture.device)
    rate = _TEMPERATURE ** (2 * torch.div(step, 2, rounding_mode="floor") / (channels // 2))
    return torch.cat([_waves(rows[..., None] / rate), _waves(columns[..., None] / rate)], 3).permute(
        0, 3, 1, 2
    )


def _waves(angles: Tensor) -> Tensor:
    return torch.stack([angles[..., 0::2].sin(), angles[..., 1::2].cos()], 4).flatten(3)


class LearnedPositions(nn.Module):
    """A vector for each of 50 rows and 50 columns."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(_TABLE, channels // 2)
        self.col_embed = nn.Embedding(_TABLE, channels // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, height: int, width: int) -> Tensor:
        """(1, channels, height, width); columns first."""
        if height > _TABLE or width > _TABLE:
            raise ValueError(
                f"[LearnedPositions] the map must be at most {_TABLE} x {_TABLE} cells, got {height} x {width}; "
                "take a smaller canvas, or a model without dilated=True"
            )
        across = self.col_embed.weight[:width].expand(height, -1, -1)
        down = self.row_embed.weight[:height, None].expand(-1, width, -1)
        return torch.cat([across, down], -1).permute(2, 0, 1)[None]
