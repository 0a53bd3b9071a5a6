"""From samples to what the model sees: one warp a picture, one colour matrix, mosaic, mixup, boxes kept honest.

Everything runs on uint8 pixels: flips, scale, crop and place are one affine warp straight to the canvas, and
brightness, contrast, saturation and hue are one 3 x 4 matrix. That is several times quicker than a chain of
torchvision.transforms.v2, whose transforms fit in all the same: pass any of them as ``extra``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from detrx.data import geometry
from detrx.data.augment import AugmentConfig
from detrx.data.patches import Patch, paint, tighten, warp_masks
from detrx.errors import ConfigError
from detrx.images import opencv
from detrx.preprocess import MEAN, PAD_VALUE, STD, letterbox_image
from detrx.tensors import Sample

Pixels = NDArray[np.uint8]
ExtraTransform = Callable[[Any, "dict[str, Any]"], Any]
"""A transform of torchvision.transforms.v2, or a Compose of them, which runs after the warp, mosaic and colours.

It gets a uint8 Image of the canvas and {"boxes": BoundingBoxes, "labels": Tensor} (and "masks": Mask of (N, h, w) bool
where masks are learnt), and answers with both, the picture of the same type and size; boxes that it empties are
dropped. It draws from torch's global generator, so that a run with one is the same again only without worker threads.
"""
_LUMA = np.array([0.299, 0.587, 0.114])
_TO_YIQ = np.array([_LUMA, [0.5959, -0.2746, -0.3213], [0.2115, -0.5227, 0.3112]])


@dataclass(frozen=True)
class Prepared:
    """One canvas as the model sees it, and its truth."""

    pixels: Tensor
    """(3, h, w) float32, normalised."""
    boxes: Tensor
    """(N, 4) float32 centres cx, cy, w, h in [0, 1] of the canvas."""
    labels: Tensor
    """(N,) int64."""
    masks: Tensor | None = None
    """(N, h, w) bool, where the sample has masks."""


@dataclass(frozen=True)
class Canvas:
    """Pixels, boxes and masks between two steps."""

    image: Pixels
    """(h, w, 3) RGB."""
    boxes: NDArray[np.float32]
    """(N, 4) corners in pixels."""
    labels: NDArray[np.int64]
    """(N,)"""
    patches: list[Patch] | None = None
    """N masks, where the sample has masks."""

    def __getitem__(self, keep: NDArray[Any]) -> Canvas:
        """With the objects at an index array or boolean mask."""
        at = np.arange(len(self.labels))[keep]
        patches = None if self.patches is None else [self.patches[i] for i in at]
        return Canvas(self.image, self.boxes[keep], self.labels[keep], patches)


class TrainTransform:
    """Maps a sample, and others where it needs them, to one Prepared."""

    def __init__(
        self,
        canvas: tuple[int, int],
        augment: AugmentConfig,
        *,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        extra: ExtraTransform | None = None,
    ) -> None:
        """
        Args:
            canvas: (height, width) in pixels.
            mean: per channel RGB, in [0, 1].
            std: per channel RGB, in (0, 1].
            extra: runs last, before the pixels are normalised.
        """
        self.canvas = canvas
        self.augment = augment
        self.mean, self.std = tuple(mean), tuple(std)
        self.extra = extra

    def __call__(
        self,
        sample: Sample,
        *,
        rng: np.random.Generator,
        companion: Callable[[int], Sample],
        strong: bool = True,
    ) -> Prepared:
        """Prepare one canvas.

        Args:
            rng: all chance comes from it.
            companion: gives another sample for a whole number in [0, 2**31); asked by mosaic and mixup.
            strong: whether mosaic and mixup may happen.
        """
        config = self.augment
        if config.plain:
            found = self._plain(sample)
        else:
            mosaic, mixup, colour = rng.random(3)
            found = self._compose(sample, rng, companion, strong and mosaic < config.mosaic)
            if strong and mixup < config.mixup:
                found = _mix(found, self._single(companion(_draw(rng)), rng), rng.uniform(0.4, 0.6))
            if colour < config.colour:
                found = replace(found, image=recolour(found.image, draw_colour(config, rng)))
        if self.extra is not None:
            found = _with_torchvision(found, self.extra)
        return self._finish(found)

    def _compose(
        self, sample: Sample, rng: np.random.Generator, companion: Callable[[int], Sample], mosaic: bool
    ) -> Canvas:
        if not mosaic:
            return self._single(sample, rng)
        samples = [sample] + [companion(_draw(rng)) for _ in range(3)]
        return self._mosaic(samples, rng)

    def _plain(self, sample: Sample) -> Canvas:
        image, box = letterbox_image(_rows(sample), canvas=self.canvas)
        height, width = self.canvas
        corners = box.apply(sample.boxes.numpy()) * np.array([width, height, width, height], np.float32)
        found = Canvas(image, corners, sample.labels.numpy())
        if sample.masks is None:
            return found
        matrix = geometry.place(box.scale, box.pad)
        return self._masked(found, sample, matrix, np.ones(len(corners), bool), moved=corners)

    def _single(self, sample: Sample, rng: np.random.Generator) -> Canvas:
        return self._lay(sample, np.full((*self.canvas, 3), PAD_VALUE, np.uint8), rng, scale=None)

    def _mosaic(self, samples: list[Sample], rng: np.random.Generator) -> Canvas:
        """Four pictures, one in each quarter around a drawn middle."""
        height, width = self.canvas
        out = np.full((height, width, 3), PAD_VALUE, np.uint8)
        y, x = round(height * rng.uniform(0.3, 0.7)), round(width * rng.uniform(0.3, 0.7))
        quarters = []
        for at, sample in zip(rng.permutation(4), samples):
            top, left = (0, y)[at // 2], (0, x)[at % 2]
            view = out[top : (y, height)[at // 2], left : (x, width)[at % 2]]
            found = self._lay(sample, view, rng, scale=self.augment.mosaic_scale)
            patches = None if found.patches is None else [p.moved(top, left) for p in found.patches]
            boxes = found.boxes + np.array([left, top, left, top], np.float32)
            quarters.append(replace(found, boxes=boxes, patches=patches))
        return _together(out, quarters)

    def _lay(
        self, sample: Sample, view: Pixels, rng: np.random.Generator, *, scale: tuple[float, float] | None
    ) -> Canvas:
        """Warp a sample into a view of the canvas."""
        image, boxes = _rows(sample), sample.boxes.numpy()
        target = (view.shape[0], view.shape[1])
        if scale is not None:  # sizes are against the whole canvas, not against the quarter
            grow = min(self.canvas[0] / image.shape[0], self.canvas[1] / image.shape[1])
            grow /= min(target[0] / image.shape[0], target[1] / image.shape[1])
            scale = (scale[0] * grow, scale[1] * grow)
        size = (image.shape[0], image.shape[1])
        matrix = geometry.draw_map(size, boxes, canvas=target, scale=scale, config=self.augment, rng=rng)
        warp(image, matrix, view)
        config = self.augment
        moved = geometry.move_boxes(boxes, matrix)
        clipped, keep = geometry.on_canvas(
            moved, target, min_visible=config.min_visible, min_side=config.min_side
        )
        found = Canvas(view, clipped[keep], sample.labels.numpy()[keep])
        return found if sample.masks is None else self._masked(found, sample, matrix, keep, moved=moved[keep])

    def _masked(
        self, found: Canvas, sample: Sample, matrix: geometry.Matrix, keep: NDArray[np.bool_], *, moved: Any
    ) -> Canvas:
        """The kept objects with their masks; those of which none is left to see go."""
        masks, boxes = cast(Tensor, sample.masks).numpy()[keep], sample.boxes.numpy()[keep]
        size = (found.image.shape[0], found.image.shape[1])
        patches = warp_masks(masks, boxes, matrix, placed=found.boxes, canvas=size)
        cut = (found.boxes != moved).any(1)
        tight, left = tighten(found.boxes, patches, cut, min_side=self.augment.min_side)
        return replace(found, boxes=tight, patches=patches)[left]

    def _finish(self, found: Canvas) -> Prepared:
        height, width = self.canvas
        if len(found.labels) > self.augment.max_boxes:
            sizes = (found.boxes[:, 2:] - found.boxes[:, :2]).prod(1)
            found = found[np.sort(np.argsort(-sizes, kind="stable")[: self.augment.max_boxes])]
        unit = (found.boxes / np.array([width, height, width, height], np.float32)).clip(0, 1)
        centres = np.concatenate(((unit[:, :2] + unit[:, 2:]) / 2, unit[:, 2:] - unit[:, :2]), 1)
        return Prepared(
            normalise(found.image, mean=self.mean, std=self.std),
            torch.from_numpy(centres),
            torch.from_numpy(found.labels.astype(np.int64, copy=False)),
            None if found.patches is None else torch.from_numpy(paint(found.patches, self.canvas)),
        )


def warp(image: Pixels, matrix: geometry.Matrix, out: Pixels) -> None:
    """Draw an image through a map into ``out``, bilinear; pixels that it does not reach become grey.

    Args:
        image: (H, W, 3).
        matrix: (2, 3), continuous coordinates.
        out: (h, w, 3), may be a view of a larger canvas.
    """
    cv2 = opencv()
    centred = geometry.centred(matrix)
    size = (out.shape[1], out.shape[0])
    grey = (PAD_VALUE,) * 3
    out[...] = cv2.warpAffine(
        image, centred, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_CONSTANT, borderValue=grey
    )


def draw_colour(config: AugmentConfig, rng: np.random.Generator) -> NDArray[np.float64]:
    """Draw a (3, 4) matrix that changes brightness, contrast, saturation and hue of RGB in 0 to 255."""
    bright, contrast, vivid, turn = rng.uniform(-1, 1, 4) * (
        config.brightness,
        config.contrast,
        config.saturation,
        config.hue,
    )
    grey = np.tile(_LUMA, (3, 1))
    saturate = grey + (1 + vivid) * (np.eye(3) - grey)
    cos, sin = math.cos(2 * math.pi * turn), math.sin(2 * math.pi * turn)
    rotate = np.linalg.solve(_TO_YIQ, np.array([[1, 0, 0], [0, cos, -sin], [0, sin, cos]]) @ _TO_YIQ)
    matrix = np.empty((3, 4))
    matrix[:, :3] = (1 + bright) * (1 + contrast) * (rotate @ saturate)
    matrix[:, 3] = -127.5 * contrast * (1 + bright)
    return matrix


def recolour(image: Pixels, matrix: NDArray[np.float64]) -> Pixels:
    """Apply a (3, 4) colour matrix to (h, w, 3) RGB, clipped to 0 to 255."""
    out: Pixels = opencv().transform(image, matrix.astype(np.float32))
    return out


def normalise(image: Pixels, *, mean: Sequence[float], std: Sequence[float]) -> Tensor:
    """(h, w, 3) uint8 to (3, h, w) float32, (image / 255 - mean) / std."""
    out = np.empty((3, *image.shape[:2]), np.float32)
    for channel, plane in enumerate(opencv().split(image)):
        scale = 1 / (255 * std[channel])
        np.multiply(plane, np.float32(scale), out=out[channel], dtype=np.float32)
        out[channel] -= np.float32(mean[channel] / std[channel])
    return torch.from_numpy(out)


def to_sample(
    image: Pixels,
    boxes: NDArray[np.float32],
    labels: NDArray[np.int64],
    masks: NDArray[np.bool_] | None = None,
) -> Sample:
    """A Sample that shares the (H, W, 3) image's memory."""
    drawn = None if masks is None else torch.from_numpy(masks)
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    return Sample(pixels, torch.from_numpy(boxes), torch.from_numpy(labels), drawn)


def _rows(sample: Sample) -> Pixels:
    """(H, W, 3), without a copy where the sample came from to_sample."""
    return np.ascontiguousarray(sample.image.permute(1, 2, 0).numpy())


def _draw(rng: np.random.Generator) -> int:
    return int(rng.integers(1 << 31))


def _mix(a: Canvas, b: Canvas, share: float) -> Canvas:
    """share of a, the rest of b, all boxes (arXiv 1710.09412, boxes as in 1902.04103)."""
    image = opencv().addWeighted(a.image, share, b.image, 1 - share, 0)
    return _together(image, (a, b))


def _together(image: Pixels, parts: Sequence[Canvas]) -> Canvas:
    """The objects of all parts, whose boxes and masks are of the image already."""
    patches = [part.patches for part in parts if part.patches is not None]
    return Canvas(
        image,
        np.concatenate([part.boxes for part in parts]),
        np.concatenate([part.labels for part in parts]),
        [patch for some in patches for patch in some] if len(patches) == len(parts) else None,
    )


def _with_torchvision(found: Canvas, extra: ExtraTransform) -> Canvas:
    """Run a torchvision.transforms.v2 transform; boxes that it empties are dropped.

    Raises:
        ConfigError: what it answers with is no uint8 picture of the same size, beside its boxes and labels.
    """
    from torchvision import tv_tensors
    from torchvision.transforms import v2

    size = (found.image.shape[0], found.image.shape[1])
    corners = tv_tensors.BoundingBoxes(found.boxes, format="XYXY", canvas_size=size)
    truth = {"boxes": corners, "labels": torch.from_numpy(found.labels)}
    if found.patches is not None:
        truth["masks"] = tv_tensors.Mask(torch.from_numpy(paint(found.patches, size)))
    image = tv_tensors.Image(torch.from_numpy(found.image).permute(2, 0, 1))
    moved, truth = v2.SanitizeBoundingBoxes()(*_answer(extra, image, truth))
    pixels = np.ascontiguousarray(moved.permute(1, 2, 0).numpy())
    masks = truth["masks"].numpy() if found.patches is not None else None
    patches = None if masks is None else [Patch(mask, 0, 0) for mask in masks]
    return Canvas(pixels, truth["boxes"].numpy(), truth["labels"].numpy(), patches)


def _answer(extra: ExtraTransform, image: Tensor, truth: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
    found = extra(image, truth)
    if isinstance(found, tuple) and len(found) == 2 and isinstance(found[0], Tensor):
        moved, truth = found
        if moved.dtype == torch.uint8 and moved.shape == image.shape and {"boxes", "labels"} <= set(truth):
            return moved, truth
        what = f"{moved.dtype} {tuple(moved.shape)} and {', '.join(truth)}"
    else:
        what = type(found).__name__
    raise ConfigError(
        f"[train] an extra transform must answer with (a uint8 picture {tuple(image.shape)}, boxes and labels), "
        f"found {what}; leave ToDtype, Normalize and Resize to detrx"
    )
