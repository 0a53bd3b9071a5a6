"""Drawing: on a copy, inside the picture, at every size."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detrx.draw import colour, draw, draw_panoptic, mosaic
from detrx.types import Detections, Panoptic, Segment

pytest.importorskip("cv2")


def found(*boxes: tuple[float, float, float, float]) -> Detections:
    n = len(boxes)
    scores = np.linspace(0.9, 0.5, n).astype(np.float32)
    return Detections(
        np.array(boxes, np.float32).reshape(n, 4), scores, np.arange(n), ("disc", "ring", "star")
    )


@pytest.mark.parametrize("size", [(1, 1), (8, 500), (480, 640), (1080, 1920)])
def test_any_size_of_picture_and_box(size: tuple[int, int]) -> None:
    image = np.zeros((*size, 3), np.uint8)
    image.flags.writeable = False
    out = draw(image, found((-50, -50, 1e6, 1e6), (0, 0, 0, 0), (1, 1, 3, 3)))
    assert out.shape == image.shape
    assert out.any()
    assert not image.any()


def test_the_box_has_its_colour_and_its_inside_is_free() -> None:
    out = draw(np.zeros((480, 640, 3), np.uint8), found((100, 200, 300, 400)))
    assert tuple(out[300, 100]) == colour(0)
    assert tuple(out[400, 200]) == colour(0)
    assert not out[220:380, 120:280].any()
    assert out[180:199, 102:160].any(), "the label stands above"


def test_a_mask_shines_through_and_has_an_outline() -> None:
    masks = np.zeros((2, 480, 640), bool)
    masks[0, 250:300, 150:250] = True
    one = found((100, 200, 300, 400), (400, 300, 600, 400))
    out = draw(np.full((480, 640, 3), 100, np.uint8), dataclasses.replace(one, masks=masks))
    assert np.abs(out[250, 200] - np.array(colour(0))).max() < 40, "the outline"
    assert np.abs(out[275, 200] - (60 + 0.4 * np.array(colour(0)))).max() <= 1
    assert (out[350, 200] == 100).all()
    assert (out[370, 500] == 100).all(), "an empty mask changes nothing"


def test_a_label_at_the_edge_stays_inside() -> None:
    out = draw(np.zeros((480, 640, 3), np.uint8), found((600, 0, 640, 60)))
    assert (out[:24, 560:] == colour(0)).all(axis=2).any()


def test_nothing_found_changes_nothing() -> None:
    image = np.full((20, 20, 3), 7, np.uint8)
    np.testing.assert_array_equal(draw(image, found()), image)


def test_twenty_four_classes_have_twenty_four_colours() -> None:
    colours = [colour(label) for label in range(24)]
    assert len(set(colours)) == 24
    near = min(np.abs(np.subtract(a, b)).sum() for i, a in enumerate(colours) for b in colours[:i])
    assert near > 12


def test_mosaic_holds_every_picture() -> None:
    images = [np.full((30 + 10 * i, 40, 3), 50 + i, np.uint8) for i in range(5)]
    out = mosaic(images, columns=3, cell=(60, 80), gap=4)
    assert out.shape == (2 * 64 + 4, 3 * 84 + 4, 3)
    assert {50, 51, 52, 53, 54, 24} == set(np.unique(out).tolist())
    with pytest.raises(ValueError, match="at least one"):
        mosaic([], columns=2)


def test_segments_have_the_colours_of_their_classes_and_an_outline() -> None:
    image = np.full((120, 200, 3), 100, np.uint8)
    image.flags.writeable = False
    ids = np.zeros((120, 200), np.int32)
    ids[:, 50:], ids[:, 120:] = 70_000, 3  # in any order, as COCO's files have them
    segments = (Segment(70_000, 1, 1, False, 8400, 0.9), Segment(3, 0, 0, True, 9600, 0.9))
    out = draw_panoptic(image, Panoptic(ids, segments, ("disc", "ring")))
    for x, label in ((60, 1), (190, 0)):
        wanted = 0.45 * 100 + 0.55 * np.array(colour(label))
        assert np.abs(out[5, x] - wanted).max() <= 1
    assert (out[:, 10] == 100).all()
    assert (out[5, [50, 120]] == 250).all()
    assert (out[20:100, 55:115] == colour(1)).all(2).any(), "the name stands in the middle"


def test_a_picture_without_segments_stays_as_it_is() -> None:
    image = np.full((9, 8, 3), 7, np.uint8)
    out = draw_panoptic(image, Panoptic(np.zeros((9, 8), np.int32), ()))
    assert (out == image).all()
    assert out is not image
