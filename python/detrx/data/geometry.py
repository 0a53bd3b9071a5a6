"""Where a picture and its boxes go on the canvas: scale, crop, flips and quarter turns as one affine map (numpy).

Coordinates are continuous: pixel i covers [i, i + 1), as in the boxes. A map is a (2, 3) float64 matrix.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from detrx.data.augment import AugmentConfig

Matrix = NDArray[np.float64]
Boxes = NDArray[np.float32]


def place(scale: tuple[float, float], offset: tuple[float, float]) -> Matrix:
    """Scale by (vertical, horizontal), then move by (down, right) pixels."""
    return np.array([[scale[1], 0.0, offset[1]], [0.0, scale[0], offset[0]]])


def then(first: Matrix, second: Matrix) -> Matrix:
    """The map that does ``first``, then ``second``."""
    out = second[:, :2] @ first
    out[:, 2] += second[:, 2]
    return out


def centred(matrix: Matrix) -> Matrix:
    """The same map as OpenCV counts: the middle of pixel i at i, not at i + 0.5."""
    out: Matrix = matrix.copy()
    out[:, 2] += 0.5 * matrix[:, :2].sum(1) - 0.5
    return out


def hflip(width: float) -> Matrix:
    return np.array([[-1.0, 0.0, width], [0.0, 1.0, 0.0]])


def vflip(height: float) -> Matrix:
    return np.array([[1.0, 0.0, 0.0], [0.0, -1.0, height]])


def turn(height: float, *, clockwise: bool) -> Matrix:
    """A quarter turn of a picture so high (clockwise) or so wide (else)."""
    if clockwise:
        return np.array([[0.0, -1.0, height], [1.0, 0.0, 0.0]])
    return np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, height]])


def move_boxes(boxes: Boxes, matrix: Matrix) -> Boxes:
    """(N, 4) corners through a map of right angles; not clipped."""
    points = boxes.reshape(-1, 2, 2) @ matrix[:, :2].T + matrix[:, 2]
    return np.concatenate((points.min(1), points.max(1)), 1).astype(np.float32)


def on_canvas(
    boxes: Boxes, canvas: tuple[int, int], *, min_visible: float, min_side: float
) -> tuple[Boxes, NDArray[np.bool_]]:
    """Clip (N, 4) corners to a canvas, and say which are still worth learning.

    Returns:
        The clipped boxes, all N of them, and (N,) bool: large and visible enough.
    """
    height, width = canvas
    clipped = boxes.copy()
    clipped[:, 0::2] = clipped[:, 0::2].clip(0, width)
    clipped[:, 1::2] = clipped[:, 1::2].clip(0, height)
    before, after = boxes[:, 2:] - boxes[:, :2], clipped[:, 2:] - clipped[:, :2]
    visible = after.prod(1) >= min_visible * before.prod(1)
    return clipped, visible & (after >= max(min_side, 1e-3)).all(1)


def draw_map(
    size: tuple[int, int],
    boxes: Boxes,
    *,
    canvas: tuple[int, int],
    scale: tuple[float, float] | None,
    config: AugmentConfig,
    rng: np.random.Generator,
) -> Matrix:
    """Draw the map of one picture to its place.

    Args:
        size: (height, width) of the picture.
        boxes: (N, 4) corners in it, for the crop around an object.
        canvas: (height, width) that the picture is to lie on.
        scale: range against the letterboxed size; None: the config's, with its probabilities of jitter and crop.
    """
    matrix, size = _turned(size, config, rng)
    boxes = move_boxes(boxes, matrix)
    if scale is None and rng.random() < config.crop and len(boxes):
        return then(matrix, _fit(_crop(size, boxes, config, rng), canvas))
    if scale is None and rng.random() >= config.jitter:
        return then(matrix, _letterboxed(size, canvas))
    low, high = config.scale if scale is None else scale
    grow = min(canvas[0] / size[0], canvas[1] / size[1]) * math.exp(
        rng.uniform(math.log(low), math.log(high))
    )
    stretch = math.exp(0.5 * rng.uniform(-1, 1) * math.log1p(config.aspect))
    scales = (grow / stretch, grow * stretch)
    offset = []
    for side, length, factor in zip(canvas, size, scales):
        room = side - length * factor
        offset.append(room / 2 + rng.uniform(-0.5, 0.5) * room * config.translate)
    return then(matrix, place(scales, (offset[0], offset[1])))


def _turned(
    size: tuple[int, int], config: AugmentConfig, rng: np.random.Generator
) -> tuple[Matrix, tuple[int, int]]:
    """Flips and quarter turns, and the (height, width) after them."""
    height, width = size
    matrix = place((1, 1), (0, 0))
    across, down, quarter, clockwise = rng.random(4)
    if across < config.hflip:
        matrix = then(matrix, hflip(width))
    if down < config.vflip:
        matrix = then(matrix, vflip(height))
    if quarter < config.rotate90:
        right = bool(clockwise < 0.5)
        matrix = then(matrix, turn(height if right else width, clockwise=right))
        height, width = width, height
    return matrix, (height, width)


def _letterboxed(size: tuple[int, int], canvas: tuple[int, int]) -> Matrix:
    """The map of preprocess.letterbox_image: whole pixels, centred."""
    grow = min(canvas[0] / size[0], canvas[1] / size[1])
    inner = [min(side, max(1, round(length * grow))) for side, length in zip(canvas, size)]
    offset = [(side - length) // 2 for side, length in zip(canvas, inner)]
    return place((inner[0] / size[0], inner[1] / size[1]), (offset[0], offset[1]))


def _fit(window: NDArray[np.float64], canvas: tuple[int, int]) -> Matrix:
    """The map that lays a window x0, y0, x1, y1 in the middle of the canvas, as large as it goes."""
    x0, y0, x1, y1 = (float(v) for v in window)
    grow = min(canvas[0] / (y1 - y0), canvas[1] / (x1 - x0))
    return place((grow, grow), (canvas[0] / 2 - grow * (y0 + y1) / 2, canvas[1] / 2 - grow * (x0 + x1) / 2))


def _crop(
    size: tuple[int, int], boxes: Boxes, config: AugmentConfig, rng: np.random.Generator
) -> NDArray[np.float64]:
    """A window that holds a drawn share of an object (after SSD, arXiv 1512.02325), or the whole picture."""
    height, width = size
    least = rng.choice([0.0, 0.1, 0.3, 0.5, 0.7, 0.9])
    for _ in range(20):
        h, w = (rng.uniform(*config.crop_scale) * side for side in size)
        y, x = rng.uniform(0, height - h), rng.uniform(0, width - w)
        window = np.array([x, y, x + w, y + h])
        middle = (boxes[:, :2] + boxes[:, 2:]) / 2
        inside = ((middle > window[:2]) & (middle < window[2:])).all(1)
        if 0.5 <= w / h <= 2 and inside.any() and _overlap(window, boxes[inside]).max() >= least:
            return window
    return np.array([0.0, 0.0, width, height])


def _overlap(window: NDArray[np.float64], boxes: Boxes) -> NDArray[np.float64]:
    """(N,) the share of each box inside the window: IoU itself would forbid small objects."""
    meet = np.minimum(window[2:], boxes[:, 2:]) - np.maximum(window[:2], boxes[:, :2])
    shares: NDArray[np.float64] = meet.clip(0).prod(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1)
    return shares
