"""Textures for the generated scenes: grounds, and tiles for the objects' surfaces."""

from __future__ import annotations

import math
from typing import Callable, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.images import opencv

Field = NDArray[np.float32]
"""(h, w) in [0, 1]."""


def ground(size: Tuple[int, int], rng: np.random.Generator) -> NDArray[np.uint8]:
    """(h, w, 3) RGB of a drawn kind, muted so that objects stand out, with fine grain on it."""
    field = _KINDS[int(rng.integers(len(_KINDS)))](size, rng)
    grain = _octaves(size, rng)
    dark, light = _colour(rng, vivid=0.35), _colour(rng, vivid=0.35)
    mixed = np.clip(0.8 * field + 0.2 * grain, 0, 1)[..., None]
    return np.asarray(np.clip(dark + (light - dark) * mixed, 0, 255), np.uint8)


def tile(side: int, rng: np.random.Generator) -> NDArray[np.uint8]:
    """(side, side, 3) RGB of a vivid surface: two near shades of one colour, sometimes two colours."""
    field = _KINDS[int(rng.integers(len(_KINDS)))]((side, side), rng)
    one = _colour(rng, vivid=1.0)
    other = _colour(rng, vivid=1.0) if rng.random() < 0.25 else one * rng.uniform(0.55, 0.85)
    return np.asarray(np.clip(one + (other - one) * field[..., None], 0, 255), np.uint8)


def _colour(rng: np.random.Generator, *, vivid: float) -> NDArray[np.float32]:
    hue = rng.uniform(0, 2 * math.pi)
    wheel = 0.5 + 0.5 * np.cos(hue - np.array([0, 2, 4]) * math.pi / 3)
    grey = rng.uniform(0.25, 0.8)
    return (255 * ((1 - vivid) * grey + vivid * (0.1 + 0.9 * wheel))).astype(np.float32)


def _octaves(size: Tuple[int, int], rng: np.random.Generator) -> Field:
    """Value noise: blurred random grids of doubling fineness."""
    cv2 = opencv()
    out = np.zeros(size, np.float32)
    for level in range(5):
        cells = 3 << level
        grid = rng.random((cells, cells), dtype=np.float32)
        out += cv2.resize(grid, (size[1], size[0]), interpolation=cv2.INTER_CUBIC) / (1 << level)
    return np.asarray(cv2.normalize(out, None, 0, 1, cv2.NORM_MINMAX), np.float32)


def _ramp(size: Tuple[int, int], rng: np.random.Generator) -> Field:
    """0 to 1 across the picture in a drawn direction."""
    angle = rng.uniform(0, 2 * math.pi)
    y = np.linspace(-0.5, 0.5, size[0], dtype=np.float32)[:, None]
    x = np.linspace(-0.5, 0.5, size[1], dtype=np.float32)[None]
    ramp = 0.5 + (x * math.cos(angle) + y * math.sin(angle)) / (abs(math.cos(angle)) + abs(math.sin(angle)))
    return np.asarray(ramp, np.float32)


def _stripes(size: Tuple[int, int], rng: np.random.Generator) -> Field:
    waves = np.sin(2 * math.pi * rng.uniform(3, 9) * _ramp(size, rng) + rng.uniform(0, 6))
    return np.asarray(0.5 + 0.5 * np.clip(3 * waves, -1, 1), np.float32)


def _checker(size: Tuple[int, int], rng: np.random.Generator) -> Field:
    cells = rng.uniform(3, 8)
    angle = rng.uniform(0, math.pi / 2)
    y = np.linspace(0, cells, size[0], dtype=np.float32)[:, None]
    x = np.linspace(0, cells, size[1], dtype=np.float32)[None]
    across, down = x * math.cos(angle) - y * math.sin(angle), x * math.sin(angle) + y * math.cos(angle)
    return np.asarray((np.floor(across) + np.floor(down)) % 2, np.float32)


def _blobs(size: Tuple[int, int], rng: np.random.Generator) -> Field:
    field = _octaves(size, rng)
    return np.asarray(np.clip(6 * (field - 0.5) + 0.5, 0, 1), np.float32)


_KINDS: Tuple[Callable[[Tuple[int, int], np.random.Generator], Field], ...] = (
    _octaves,
    _ramp,
    _stripes,
    _checker,
    _blobs,
)
