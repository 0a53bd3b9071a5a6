"""Maps of boxes: flips and turns undo themselves, what stays is inside, the plain map is the letterbox's."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from detrx.data import geometry
from detrx.data.augment import AugmentConfig
from detrx.errors import ConfigError
from detrx.preprocess import letterbox_image

sides = st.integers(1, 400)
seeds = st.integers(0, 10_000)
EVERYTHING = AugmentConfig(vflip=0.5, rotate90=0.5, crop=0.5, aspect=0.5)


def draw_boxes(seed: int, size: tuple[int, int]) -> geometry.Boxes:
    corners = np.random.default_rng(seed).uniform(0, 1, (6, 2, 2)) * (size[1], size[0])
    return np.concatenate((corners.min(1), corners.max(1)), 1).astype(np.float32)


@given(sides, sides, seeds)
def test_a_flip_done_twice_is_nothing(height, width, seed):
    boxes = draw_boxes(seed, (height, width))
    for flip in (geometry.hflip(width), geometry.vflip(height)):
        once = geometry.move_boxes(boxes, flip)
        np.testing.assert_allclose(geometry.move_boxes(once, flip), boxes, atol=1e-3)
        np.testing.assert_allclose(geometry.then(flip, flip), geometry.place((1, 1), (0, 0)), atol=1e-9)


@given(sides, sides, seeds)
def test_a_turn_and_back_is_nothing_and_a_turn_fits_the_turned_picture(height, width, seed):
    boxes = draw_boxes(seed, (height, width))
    turned = geometry.move_boxes(boxes, geometry.turn(height, clockwise=True))
    assert turned.min() >= -1e-3
    assert turned[:, 2].max() <= height + 1e-3
    assert turned[:, 3].max() <= width + 1e-3
    back = geometry.move_boxes(turned, geometry.turn(height, clockwise=False))
    np.testing.assert_allclose(back, boxes, atol=1e-3)


@given(sides, sides, sides, sides, seeds)
@settings(max_examples=150)
def test_boxes_that_stay_are_inside_and_visible_enough(height, width, canvas_h, canvas_w, seed):
    boxes = draw_boxes(seed, (height, width))
    canvas = (canvas_h, canvas_w)
    rng = np.random.default_rng(seed)
    matrix = geometry.draw_map((height, width), boxes, canvas=canvas, scale=None, config=EVERYTHING, rng=rng)
    moved = geometry.move_boxes(boxes, matrix)
    found, keep = geometry.on_canvas(moved, canvas, min_visible=0.25, min_side=2)
    assert np.isfinite(found).all()
    assert found.min() >= 0
    assert (found[:, 2] <= canvas_w).all()
    assert (found[:, 3] <= canvas_h).all()
    sizes = (found[:, 2:] - found[:, :2])[keep]
    assert (sizes >= 2).all()
    whole = (moved[:, 2:] - moved[:, :2]).prod(1)[keep]
    assert (sizes.prod(1) >= 0.2499 * whole).all()


@given(sides, sides, st.integers(32, 200), st.integers(32, 200), seeds)
def test_without_jitter_the_map_is_that_of_the_letterbox(height, width, canvas_h, canvas_w, seed):
    boxes = draw_boxes(seed, (height, width))
    config = AugmentConfig(hflip=0, jitter=0)
    canvas = (canvas_h, canvas_w)
    rng = np.random.default_rng(seed)
    matrix = geometry.draw_map((height, width), boxes, canvas=canvas, scale=None, config=config, rng=rng)
    _, box = letterbox_image(np.zeros((height, width, 3), np.uint8), canvas=canvas)
    expected = box.apply(boxes) * np.array([canvas_w, canvas_h] * 2, np.float32)
    np.testing.assert_allclose(geometry.move_boxes(boxes, matrix), expected, atol=1e-2)


@pytest.mark.parametrize(
    "wrong",
    [
        {"hflip": 1.5},
        {"hue": 0.7},
        {"scale": (1.4, 0.6)},
        {"scale": (0.0, 1.0)},
        {"max_boxes": 0},
        {"mixup": -1},
    ],
)
def test_settings_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=next(iter(wrong))):
        AugmentConfig(**wrong)
    assert AugmentConfig.off().plain
    assert not AugmentConfig().plain


def test_nan_is_out_of_range():
    with pytest.raises(ConfigError):
        AugmentConfig(colour=float("nan"))
