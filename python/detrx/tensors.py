"""The data that flow through the training half: torch, checked at the door."""

from __future__ import annotations

from dataclasses import dataclass, fields
from typing import Any

import torch
from torch import Tensor


def _check_shape(where: str, name: str, tensor: Tensor, shape: tuple[int | None, ...]) -> None:
    found = tuple(tensor.shape)
    if len(found) != len(shape) or any(w is not None and w != h for w, h in zip(shape, found)):
        wanted = "(" + ", ".join("_" if n is None else str(n) for n in shape) + ")"
        raise ValueError(f"[{where}] {name} must have shape {wanted}, got {found}")


def _move(value: Any, *args: Any, **kwargs: Any) -> Any:
    return value.to(*args, **kwargs) if hasattr(value, "to") else value


@dataclass(frozen=True)
class Sample:
    """One picture and its truth."""

    image: Tensor
    """(3, H, W) uint8 RGB."""
    boxes: Tensor
    """(N, 4) float32 corners x0, y0, x1, y1 in pixels of the image."""
    labels: Tensor
    """(N,) int64 index into the data set's names."""
    masks: Tensor | None = None
    """(N, H, W) bool, or None where they are not asked for."""

    def __post_init__(self) -> None:
        _check_shape("Sample", "image", self.image, (3, None, None))
        _check_shape("Sample", "boxes", self.boxes, (len(self.labels), 4))
        if self.masks is not None:
            _check_shape("Sample", "masks", self.masks, (len(self.labels), *self.image.shape[1:]))


@dataclass(frozen=True)
class Targets:
    """The truth of a batch, padded to the image with the most objects."""

    boxes: Tensor
    """(B, M, 4) float32 centres cx, cy, w, h in [0, 1] of the canvas; zeros past the count."""
    labels: Tensor
    """(B, M) int64 class index; 0 past the count."""
    counts: Tensor
    """(B,) int32, how many of the M targets of each image are real."""
    masks: Tensor | None = None
    """(B, M, h, w) bool on the canvas, False past the count; None where they are not asked for."""

    def __post_init__(self) -> None:
        b, m = self.labels.shape
        _check_shape("Targets", "boxes", self.boxes, (b, m, 4))
        _check_shape("Targets", "counts", self.counts, (b,))
        if self.masks is not None:
            _check_shape("Targets", "masks", self.masks, (b, m, None, None))

    def to(self, *args: Any, **kwargs: Any) -> Targets:
        return Targets(*(_move(getattr(self, f.name), *args, **kwargs) for f in fields(self)))

    @property
    def valid(self) -> Tensor:
        """(B, M) bool, which targets are real."""
        return torch.arange(self.labels.shape[1], device=self.counts.device) < self.counts[:, None]


@dataclass(frozen=True)
class Batch:
    """What one training step sees."""

    pixels: Tensor
    """(B, 3, h, w) float32, normalised with the model's mean and std."""
    targets: Targets

    def to(self, *args: Any, **kwargs: Any) -> Batch:
        return Batch(self.pixels.to(*args, **kwargs), self.targets.to(*args, **kwargs))


@dataclass(frozen=True)
class DenoiseQueries:
    """Noised copies of the targets that the decoder must repair (DN-DETR, DINO), ahead of the learned queries."""

    labels: Tensor
    """(B, D) int64 in [0, C]: noised class, C marks padding."""
    boxes: Tensor
    """(B, D, 4) noised centres before the sigmoid (logits)."""
    mask: Tensor
    """(D + Q, D + Q) bool, True where a query must not attend to another."""
    owners: Tensor
    """(B, D) int32: the target in [0, M) that each query must return, -1 for negatives and padding."""
    groups: int
    """G, how many times each target is repeated as a positive."""


@dataclass(frozen=True)
class Outputs:
    """What a model says of a batch in L layers for the same Q queries, the last layer best.

    Training adds, where the architecture has them, the predictions of other places that take the same losses.
    """

    logits: Tensor
    """(L, B, Q, C) class logits (sigmoid); with ``no_object`` one more column, and a softmax over all."""
    boxes: Tensor
    """(L, B, Q, 4) centres cx, cy, w, h in [0, 1] of the canvas."""
    distributions: Tensor | None = None
    """(L, B, Q, 4 * (R + 1)) logits over the edge offsets of the D-FINE head."""
    references: Tensor | None = None
    """(L, B, Q, 4) centres that the distributions refine."""
    first: Outputs | None = None
    """The plain head before the first refinement (D-FINE), one layer."""
    encoder: Outputs | None = None
    """The encoder's proposals chosen as queries, one layer."""
    denoise: Outputs | None = None
    """The denoising queries' share, D in place of Q, with its own ``first``."""
    groups: Outputs | None = None
    """What further groups of queries say, which only training has (Group DETR): L layers of one after L of another."""
    no_object: bool = False
    """The last column of the logits says "no object", and scores are a softmax (DETR)."""
    columns: tuple[int, ...] = ()
    """The column of each class where others stand for no class (COCO's 91 ids); empty: every column, in order."""
    masks: Tensor | None = None
    """(L, B, Q, h', w') float mask logits that cover the canvas; their L may be 1, for the last layer alone."""
    embeddings: Tensor | None = None
    """(L, B, Q, E) what each query says of its mask: logits are its product with ``pixels`` (rt), so that nobody makes
    masks that nobody looks at."""
    pixels: Tensor | None = None
    """(B, E, h', w') what each place of the canvas says."""

    def __post_init__(self) -> None:
        length, batch, queries, _ = self.logits.shape
        _check_shape("Outputs", "boxes", self.boxes, (length, batch, queries, 4))
        if self.masks is not None:
            _check_shape("Outputs", "masks", self.masks, (None, batch, queries, None, None))
