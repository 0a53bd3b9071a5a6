"""One picture through a model, and what the model looked at for what it found."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from detrx.errors import ConfigError
from detrx.explain.record import Heard, attention_rows, listen, sampled
from detrx.models.checkpoint import load_model
from detrx.models.decoder import DeformableAttention
from detrx.models.detr_layers import Attention, Transformer
from detrx.models.head import class_scores
from detrx.preprocess import lay
from detrx.runtime.backend import DEVICES, WEIGHTS, find_model
from detrx.runtime.torch import choose_device
from detrx.tensors import Outputs
from detrx.types import Detections, Letterbox, ModelInfo

FALLBACK = 5
"""Detections that are explained where none is certain enough."""
POINTS = 4
"""Places that the encoder looks from where none is named."""


@dataclass(frozen=True)
class AttentionMaps:
    """What a ``detr`` model looked at; each map sums to 1."""

    points: NDArray[np.float32]
    """(N, 2) x, y in pixels of the picture."""
    encoder: NDArray[np.float32]
    """(N, heads, h, w) where the encoder's last layer looks from each point."""
    decoder: NDArray[np.float32]
    """(K, heads, h, w) where the decoder's last layer looks for each detection."""
    extent: tuple[float, float, float, float]
    """Left, right, bottom, top edge of a map in pixels of the picture."""


@dataclass(frozen=True)
class Sampling:
    """Where an ``rt`` model read its maps, in the L layers that ran."""

    locations: NDArray[np.float32]
    """(L, K, heads, P, 2) x, y in pixels of the picture, some of them outside."""
    weights: NDArray[np.float32]
    """(L, K, heads, P), of which those of a head add up to 1."""
    levels: NDArray[np.int64]
    """(P,) the index into ``strides`` of each point."""
    strides: tuple[int, ...]
    """Pixels of the canvas to a cell of each level."""

    def shares(self, boxes: NDArray[np.float32]) -> NDArray[np.float32]:
        """(L, K, levels, 2) share of the weight on each level, inside the detection's box and outside it.

        Args:
            boxes: (K, 4) corners in pixels of the picture.
        """
        x, y = self.locations[..., 0], self.locations[..., 1]
        x0, y0, x1, y1 = (boxes[:, side][None, :, None, None] for side in range(4))
        inside = (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)
        parts = np.stack([self.weights * inside, self.weights * ~inside], -1).mean(2)  # (L, K, P, 2)
        by_level = [parts[:, :, self.levels == level].sum(2) for level in range(len(self.strides))]
        return np.stack(by_level, 2).astype(np.float32)


@dataclass(frozen=True)
class Look:
    """One picture, what was found in it, and what was looked at."""

    name: str
    """Of the picture, for people."""
    image: NDArray[np.uint8]
    """(H, W, 3) RGB."""
    found: Detections
    """K of them, each the best class of its query, best first."""
    queries: NDArray[np.int64]
    """(K,) the query of each."""
    above: int
    """Queries whose best score reaches the threshold."""
    seen: AttentionMaps | Sampling


@dataclass(frozen=True)
class Asked:
    """What of a picture is to be explained."""

    threshold: float = 0.5
    most: int = 6
    queries: tuple[int, ...] = ()
    """These, whatever their scores; empty takes the best."""
    points: tuple[tuple[float, float], ...] = ()
    """x, y in pixels of the picture; empty takes the centres of the best detections."""


@dataclass(frozen=True)
class Watched:
    """A loaded model and where it runs."""

    model: nn.Module
    info: ModelInfo
    device: str

    @property
    def transformer(self) -> Transformer | None:
        """The part that attends, of a ``detr`` model; None for ``rt``, whose decoder samples."""
        return next((part for part in self.model.modules() if isinstance(part, Transformer)), None)

    def answer(self, image: NDArray[np.uint8]) -> tuple[Outputs, Letterbox]:
        """Run one (H, W, 3) uint8 RGB picture as ``Detector`` does."""
        pixels, (box,) = lay([image], self.info, free=True)
        with torch.inference_mode():
            found: Outputs = self.model(torch.from_numpy(pixels).to(self.device))
        return found, box


def open_watched(model: str | Path, *, device: str = "auto") -> Watched:
    """Load weights to be watched.

    Raises:
        ConfigError: no such model or device, or a file that holds a graph and not the model.
        CheckpointError, DownloadError, DeviceError: as for ``Detector``.
    """
    if device not in DEVICES:
        raise ConfigError(f"[explain] device must be one of {', '.join(DEVICES)}, got {device!r}")
    path = find_model(model)
    if path.suffix.lower() not in WEIGHTS:
        raise ConfigError(
            f"[explain] model must be weights ({', '.join(WEIGHTS)}), got {path}: an exported graph answers with boxes "
            "alone, what it looked at does not leave it. Name the weights that it was exported from: "
            "`detrx explain RUN_FOLDER/best.safetensors PICTURE`"
        )
    chosen = choose_device(torch, device)
    loaded, info = load_model(path)
    return Watched(loaded.eval().to(chosen), info, chosen)


def look(watched: Watched, image: NDArray[np.uint8], *, name: str, asked: Asked) -> Look:
    """Run a picture and keep what the model looked at.

    Raises:
        ConfigError: a query or a point that does not exist, or points for a model without such an encoder.
    """
    transformer = watched.transformer
    _check_points(asked.points, image, name, encoder=transformer is not None)
    parts = _sampling_parts(watched.model) if transformer is None else _attending_parts(transformer)
    with torch.inference_mode(), listen(parts) as heard:
        answer, box = watched.answer(image)
        found, queries, above = choose(answer, box, watched.info, asked)
        rows = torch.from_numpy(queries)
        seen: AttentionMaps | Sampling
        if transformer is None:
            seen = _read_sampling(parts, heard, rows, box)
        else:
            points = np.array(asked.points or _centres(found), np.float32).reshape(-1, 2)
            seen = _read_attention(parts, heard, rows, points, box)
    return Look(name, image, found, queries, above, seen)


def choose(
    answer: Outputs, box: Letterbox, info: ModelInfo, asked: Asked
) -> tuple[Detections, NDArray[np.int64], int]:
    """The detections to explain, their queries, and how many reach the threshold.

    Each query counts once, with its best class.

    Raises:
        ConfigError: a query that the model does not have.
    """
    scores, labels, boxes = best_of_queries(answer)
    above = int((scores[0] >= asked.threshold).sum())
    wrong = [query for query in asked.queries if not 0 <= query < scores.shape[1]]
    if wrong:
        raise ConfigError(f"[explain] queries must be from 0 to {scores.shape[1] - 1}, got {wrong[0]}")
    order = np.argsort(-scores[0], kind="stable")
    if asked.queries:
        keep = order[np.isin(order, asked.queries)]
    else:
        keep = order[: min(above, asked.most) or FALLBACK]
    found = Detections(
        box.undo(corners(boxes[0, keep])), scores[0, keep], labels[0, keep], info.names, info.category_ids
    )
    return found, keep, above


def best_of_queries(
    answer: Outputs,
) -> tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.float32]]:
    """Scores (B, Q), labels (B, Q) of each query's best class, and boxes (B, Q, 4), centres in [0, 1] of the canvas."""
    scores, labels = class_scores(answer).max(-1)
    return scores.cpu().numpy(), labels.cpu().numpy(), answer.boxes[-1].float().cpu().numpy()


def corners(boxes: NDArray[np.float32]) -> NDArray[np.float32]:
    """(N, 4) centres cx, cy, w, h to corners."""
    centre, half = boxes[:, :2], boxes[:, 2:] / 2
    return np.concatenate([centre - half, centre + half], 1)


def _centres(found: Detections) -> list[tuple[int, int]]:
    """Of the most certain ones; a model that knows nothing may say one place several times."""
    middles = ((found.boxes[:, :2] + found.boxes[:, 2:]) / 2).round().astype(int)
    return list(dict.fromkeys((x, y) for x, y in middles.tolist()))[:POINTS]


def _check_points(
    points: Sequence[tuple[float, float]], image: NDArray[np.uint8], name: str, *, encoder: bool
) -> None:
    height, width = image.shape[:2]
    if points and not encoder:
        raise ConfigError(
            "[explain] points are places that the encoder of a detr model looks from; an rt model samples for each "
            "detection: leave --points out, or choose with --queries"
        )
    for x, y in points:
        if not (0 <= x < width and 0 <= y < height):
            raise ConfigError(
                f"[explain] points must lie in {name}, {width} pixels wide and {height} high, got {x:g},{y:g}"
            )


def _attending_parts(transformer: Transformer) -> dict[str, nn.Module]:
    return {
        "transformer": transformer,
        "encoder": cast(nn.Module, transformer.encoder.layers[-1].self_attn),
        "decoder": cast(nn.Module, transformer.decoder.layers[-1].multihead_attn),
    }


def _sampling_parts(model: nn.Module) -> dict[str, nn.Module]:
    found = [part for part in model.modules() if isinstance(part, DeformableAttention)]
    return {f"layer {number}": part for number, part in enumerate(found, 1)}


def _read_attention(
    parts: dict[str, nn.Module], heard: Heard, rows: Tensor, points: NDArray[np.float32], box: Letterbox
) -> AttentionMaps:
    height, width = heard["transformer"]["feature"].shape[-2:]
    stride = _stride(box.canvas, (height, width))
    cells = np.floor((points * box.scale[::-1] + box.pad[::-1]) / stride).astype(np.int64)
    cells = cells.clip(0, (width - 1, height - 1))
    encoder, decoder = (
        attention_rows(cast(Attention, parts[part]), heard[part], which)
        for part, which in (
            ("encoder", torch.from_numpy(cells[:, 1] * width + cells[:, 0])),
            ("decoder", rows),
        )
    )
    (top, left), (down, across) = box.pad, box.scale
    edges = (-left / across, (width * stride - left) / across, (height * stride - top) / down, -top / down)
    maps = [one.float().unflatten(-1, (height, width)).cpu().numpy() for one in (encoder, decoder)]
    return AttentionMaps(points, maps[0], maps[1], edges)


def _stride(canvas: tuple[int, int], cells: tuple[int, int]) -> int:
    """Pixels of the canvas to a cell; the last cells may stand out over it."""
    for stride in (32, 16, 8, 4):
        if all(math.ceil(side / stride) == count for side, count in zip(canvas, cells)):
            return stride
    return round(canvas[0] / cells[0])


def _read_sampling(parts: dict[str, nn.Module], heard: Heard, rows: Tensor, box: Letterbox) -> Sampling:
    # Layers after the answering one are not run.
    layers = [cast(DeformableAttention, parts[name]) for name in heard]
    pairs = [sampled(part, given, rows) for part, given in zip(layers, heard.values())]
    locations = torch.stack([pair[0] for pair in pairs]).float().cpu().numpy()
    weights = torch.stack([pair[1] for pair in pairs]).float().cpu().numpy()
    canvas, pad, scale = (np.array(pair[::-1], np.float32) for pair in (box.canvas, box.pad, box.scale))
    shapes = next(iter(heard.values()))["shapes"]
    return Sampling(
        (locations * canvas - pad) / scale,
        weights,
        np.repeat(np.arange(len(shapes)), layers[0].points),
        tuple(box.canvas[0] // shape[0] for shape in shapes),
    )
