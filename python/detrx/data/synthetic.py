"""Generated scenes with exact truth: textured grounds, objects that turn, grow, move and cover each other.

Later objects cover earlier ones. The box of an object is the box of its pixels that are left to see; an object of which
less than a quarter of its area is left, or whose box is under 4 pixels wide or high, has no box. Everything is a pure
function of the seed and the time step.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.data.texture import ground, tile
from detrx.images import opencv

CLASS_NAMES = ("circle", "square", "triangle", "star", "ring", "cross", "hexagon", "arrow")
"""A label is an index into these."""
MIN_VISIBLE = 0.25
"""Share of an object's area that must be left to see for it to have a box."""
MIN_SIDE = 4
"""Pixels."""

_SPRITE = 128
_RADIUS = 0.46 * _SPRITE


@dataclass(frozen=True)
class _Object:
    """One object's look and its path."""

    label: int
    sprite: NDArray[np.uint8]
    """(128, 128, 4) RGB and coverage."""
    radius: float
    """Pixels of the frame, before it pulsates."""
    pulse: Tuple[float, float, float]
    """Share, turns a step and phase by which the radius changes."""
    start: Tuple[float, float]
    """(x, y) pixels at t = 0."""
    speed: Tuple[float, float]
    """Pixels a step."""
    angle: Tuple[float, float]
    """Radians at t = 0 and a step."""


class Scenes:
    """A moving scene, frame by frame."""

    def __init__(self, *, size: Tuple[int, int], seed: int, objects: Tuple[int, int] = (4, 10)) -> None:
        """
        Args:
            size: (height, width) of the frames in pixels, at least 32.
            seed: 0 or more; another number is another scene.
            objects: fewest and most objects.

        Raises:
            ValueError: a size under 32, a negative seed, or an empty range of objects.
        """
        if min(size) < 32 or seed < 0 or not 0 <= objects[0] <= objects[1] <= 250:
            raise ValueError(
                "[Scenes] size must be at least (32, 32), seed at least 0 and objects (fewest, most) within 0 to 250, "
                f"got size={size}, seed={seed}, objects={objects}"
            )
        self.size = size
        self.seed = seed
        rng = np.random.default_rng((seed, 1))
        self._ground = ground(size, rng)
        count = int(rng.integers(objects[0], objects[1] + 1))
        self._objects = [_make_object(size, rng) for _ in range(count)]
        self._noise = _noise_tile(size, float(rng.uniform(1, 5)), rng)
        self._blur = float(rng.choice([0.0, 0.0, 0.5, 0.8]))
        self._light = (float(rng.uniform(0, 0.12)), float(rng.uniform(0.005, 0.02)))

    def frame(self, t: int) -> Tuple[NDArray[np.uint8], NDArray[np.float32], NDArray[np.int64]]:
        """The picture at a time step, any whole number from 0.

        Returns:
            (H, W, 3) uint8 RGB, (N, 4) float32 corners in pixels, (N,) int64 labels.
        """
        image, owners, areas = self._render(t)
        corners, labels, _ = self._visible(owners, areas)
        return self._light_and_noise(image, t), corners, labels

    def truth(self, t: int) -> Tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        """The boxes and labels of ``frame``, and the number of each object, from 1, the same in all frames."""
        _, owners, areas = self._render(t)
        return self._visible(owners, areas)

    def masks(self, t: int) -> Tuple[NDArray[np.uint8], NDArray[np.int64], NDArray[np.float64]]:
        """What the boxes are made from.

        Returns:
            (H, W) the number, from 1, of the object seen at each pixel, 0 for the ground; (K,) the label of each
            object; (K,) the area in pixels that each would have if nothing covered or cut it.
        """
        _, owners, areas = self._render(t)
        return owners, np.array([o.label for o in self._objects], np.int64), np.array(areas)

    def _visible(
        self, owners: NDArray[np.uint8], areas: List[float]
    ) -> Tuple[NDArray[np.float32], NDArray[np.int64], NDArray[np.int64]]:
        found = [visible_box(owners, at, area) for at, area in enumerate(areas, 1)]
        numbers = np.array([at for at, box in enumerate(found, 1) if box is not None], np.int64)
        labels = np.array([self._objects[at - 1].label for at in numbers], np.int64)
        return np.array([found[at - 1] for at in numbers], np.float32).reshape(-1, 4), labels, numbers

    def _render(self, t: int) -> Tuple[NDArray[np.uint8], NDArray[np.uint8], List[float]]:
        image = self._ground.copy()
        owners = np.zeros(self.size, np.uint8)
        areas = [_draw(image, owners, at + 1, thing, t) for at, thing in enumerate(self._objects)]
        return image, owners, areas

    def _light_and_noise(self, image: NDArray[np.uint8], t: int) -> NDArray[np.uint8]:
        cv2 = opencv()
        if self._blur:
            image = cv2.GaussianBlur(image, (3, 3), self._blur)
        share, speed = self._light
        rng = np.random.default_rng((self.seed, 2, t))
        y, x = (int(v) for v in rng.integers(0, 64, 2))
        noise = self._noise[y : y + self.size[0], x : x + self.size[1]]
        level = 1 + share * math.sin(2 * math.pi * speed * t)
        out: NDArray[np.uint8] = cv2.addWeighted(image, level, noise, 1.0, -128.0)
        return out


def visible_box(owners: NDArray[np.uint8], number: int, area: float) -> Any:
    """The corners of the pixels that belong to an object, or None where too little of it is left to see.

    Args:
        owners: (H, W) object numbers.
        number: the object's.
        area: pixels of the whole object.
    """
    mask = (owners == number).view(np.uint8)
    x, y, width, height = opencv().boundingRect(mask)
    if width < MIN_SIDE or height < MIN_SIDE:
        return None
    if np.count_nonzero(mask[y : y + height, x : x + width]) < MIN_VISIBLE * area:
        return None
    return x, y, x + width, y + height


def write_coco(out: Path, *, train: int, val: int, size: Tuple[int, int] = (320, 320), seed: int = 0) -> Path:
    """Write a COCO data set of independent scenes: coco_train.json, coco_val.json and a folder of JPEGs each.

    Args:
        train: pictures of the train split.
        val: pictures of the val split.
        size: (height, width) in pixels.
        seed: another number is another data set.

    Returns:
        The folder.
    """
    out = Path(out)
    first = seed * 1_000_000
    for split, count, skip in (("train", train, 0), ("val", val, 500_000)):
        (out / split).mkdir(parents=True, exist_ok=True)
        document = _write_split(out, split, [first + skip + at for at in range(count)], size)
        (out / f"coco_{split}.json").write_text(json.dumps(document), encoding="utf-8")
    return out


def _write_split(out: Path, split: str, seeds: List[int], size: Tuple[int, int]) -> Dict[str, Any]:
    cv2 = opencv()
    images: List[Dict[str, Any]] = []
    annotations: List[Dict[str, Any]] = []
    for number, seed in enumerate(seeds, 1):
        image, boxes, labels = Scenes(size=size, seed=seed).frame(seed % 97)
        name = f"{split}/{number:06d}.jpg"
        encoded = cv2.imencode(".jpg", image[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, 92])[1]
        (out / name).write_bytes(encoded.tobytes())
        images.append({"id": number, "file_name": name, "width": size[1], "height": size[0]})
        for (x0, y0, x1, y1), label in zip(boxes.tolist(), labels.tolist()):
            box = [x0, y0, x1 - x0, y1 - y0]
            entry = {"id": len(annotations) + 1, "image_id": number, "category_id": label + 1, "iscrowd": 0}
            annotations.append({**entry, "bbox": box, "area": box[2] * box[3]})
    categories = [{"id": at, "name": name} for at, name in enumerate(CLASS_NAMES, 1)]
    info = {"description": "detrx generated scenes"}
    return {"info": info, "images": images, "annotations": annotations, "categories": categories}


def _make_object(size: Tuple[int, int], rng: np.random.Generator) -> _Object:
    label = int(rng.integers(len(CLASS_NAMES)))
    short = min(size)
    radius = short * float(np.exp(rng.uniform(math.log(0.045), math.log(0.17))))
    heading, pace = rng.uniform(0, 2 * math.pi), short * rng.uniform(0.002, 0.012)
    return _Object(
        label=label,
        sprite=_make_sprite(label, rng),
        radius=radius,
        pulse=(float(rng.uniform(0, 0.25)), float(rng.uniform(0.003, 0.015)), float(rng.uniform())),
        start=(float(rng.uniform(0, size[1])), float(rng.uniform(0, size[0]))),
        speed=(float(pace * math.cos(heading)), float(pace * math.sin(heading))),
        angle=(float(rng.uniform(0, 2 * math.pi)), float(rng.uniform(-0.05, 0.05))),
    )


def _make_sprite(label: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(128, 128, 4): a textured shape with a thin rim in another colour."""
    cv2 = opencv()
    mask = _outline(label, float(rng.uniform(0.9, 1.1)))
    rim = cv2.dilate(255 - mask, np.ones((9, 9), np.uint8))
    base = tile(_SPRITE, rng)
    edge = np.clip(base.mean((0, 1)) * rng.uniform(0.3, 0.6), 0, 255).astype(np.uint8)
    base[rim > 127] = edge
    return np.ascontiguousarray(np.dstack((base, mask)))


def _draw(image: NDArray[np.uint8], owners: NDArray[np.uint8], number: int, thing: _Object, t: int) -> float:
    """Lay an object on the picture; its whole area in pixels."""
    cv2 = opencv()
    height, width = owners.shape
    share, turns, phase = thing.pulse
    radius = thing.radius * (1 + share * math.sin(2 * math.pi * (turns * t + phase)))
    x = bounce(thing.start[0], thing.speed[0], t, length=width)
    y = bounce(thing.start[1], thing.speed[1], t, length=height)
    angle = thing.angle[0] + thing.angle[1] * t
    side = 2 * math.ceil(1.5 * radius) + 1
    left, top = round(x) - side // 2, round(y) - side // 2
    scale = radius / _RADIUS
    cos, sin = scale * math.cos(angle), scale * math.sin(angle)
    half = (_SPRITE - 1) / 2
    matrix = np.array(
        [[cos, -sin, x - left - cos * half + sin * half], [sin, cos, y - top - sin * half - cos * half]]
    )
    patch = cv2.warpAffine(_shrunk(thing.sprite, scale, matrix), matrix, (side, side), flags=cv2.INTER_LINEAR)
    area = float(np.count_nonzero(patch[..., 3] > 127))
    rows, columns = slice(max(0, top), min(height, top + side)), slice(max(0, left), min(width, left + side))
    patch = patch[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    alpha = patch[..., 3]
    owners[rows, columns][alpha > 127] = number
    under = image[rows, columns]
    weight = alpha[..., None].astype(np.uint16)
    under[...] = ((patch[..., :3] * weight + under * (255 - weight) + 127) // 255).astype(np.uint8)
    return area


def _shrunk(sprite: NDArray[np.uint8], scale: float, matrix: NDArray[np.float64]) -> NDArray[np.uint8]:
    """The sprite at half size where it is drawn much smaller, against jagged edges; corrects the matrix in place."""
    while scale < 0.5:
        sprite = opencv().resize(sprite, None, fx=0.5, fy=0.5, interpolation=opencv().INTER_AREA)
        matrix[:, 2] += 0.5 * matrix[:, :2].sum(1)
        matrix[:, :2] *= 2
        scale *= 2
    return sprite


def bounce(start: float, speed: float, t: int, *, length: float) -> float:
    """Where a point is after t steps between two walls at 0 and length."""
    at = (start + speed * t) % (2 * length)
    return at if at <= length else 2 * length - at


def _noise_tile(size: Tuple[int, int], strength: float, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Sensor noise around 128, 64 pixels larger than a frame so that each frame takes another part of it."""
    shape = (size[0] + 64, size[1] + 64, 3)
    noise = rng.standard_normal(shape, dtype=np.float32)
    return np.asarray(np.clip(128 + strength * noise, 0, 255).round(), np.uint8)


def _polygon(points: NDArray[np.float64]) -> NDArray[np.uint8]:
    """(128, 128) coverage of a polygon around the middle, in units of the radius, made to fill the sprite."""
    cv2 = opencv()
    mask = np.zeros((_SPRITE, _SPRITE), np.uint8)
    pixels = points * _RADIUS + (_SPRITE - 1) / 2
    cv2.fillPoly(mask, [np.round(pixels * 16).astype(np.int32)], 255, cv2.LINE_AA, 4)
    return mask


def _corners(count: int, *, inner: float = 1.0) -> NDArray[np.float64]:
    """A regular polygon; with inner < 1 a star of twice as many corners."""
    steps = count if inner == 1.0 else 2 * count
    angles = 2 * math.pi * np.arange(steps) / steps - math.pi / 2
    radii = np.where(np.arange(steps) % 2, inner, 1.0)
    return np.asarray(radii[:, None] * np.stack((np.cos(angles), np.sin(angles)), 1), np.float64)


def _ring(inner: float) -> NDArray[np.uint8]:
    return _polygon(_corners(48) * 0.95) - _polygon(_corners(48) * inner)


def _cross(arm: float) -> NDArray[np.uint8]:
    quarter = np.array([[arm, -0.92], [arm, -arm], [0.92, -arm]])
    turn = np.array([[0.0, 1.0], [-1.0, 0.0]])
    points = [quarter]
    for _ in range(3):
        points.append(points[-1] @ turn)
    return _polygon(np.concatenate(points))


def _arrow(shaft: float) -> NDArray[np.uint8]:
    upper = np.array([[-0.95, -shaft], [0.05, -shaft], [0.05, -0.7], [1, 0]])
    return _polygon(np.concatenate((upper, upper[2::-1] * (1, -1))))


def _outline(label: int, stretch: float) -> NDArray[np.uint8]:
    """(128, 128) coverage of a shape; stretch, about 1, varies what its kind leaves open."""
    outlines: Dict[str, Callable[[], NDArray[np.uint8]]] = {
        "circle": lambda: _polygon(_corners(48) * 0.9),
        "square": lambda: _polygon(np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]) * 0.74),
        "triangle": lambda: _polygon(_corners(3)),
        "star": lambda: _polygon(_corners(5, inner=0.42 * stretch)),
        "ring": lambda: _ring(0.5 * stretch),
        "cross": lambda: _cross(0.28 * stretch),
        "hexagon": lambda: _polygon(_corners(6) * 0.93),
        "arrow": lambda: _arrow(0.22 * stretch),
    }
    return outlines[CLASS_NAMES[label]]()
