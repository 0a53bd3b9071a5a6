"""Letterbox: geometry, pixels, and what is refused (faults row 54)."""

from __future__ import annotations

import numpy as np
import pytest

from detrx.preprocess import MEAN, PAD_VALUE, STD, lay, letterbox, letterbox_image, plan, scaled_size
from detrx.types import PADDING, ModelInfo

cv2 = pytest.importorskip("cv2")


def picture(height: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


SIZES = [(480, 640), (640, 480), (1, 1), (1, 5000), (5000, 1), (33, 31), (320, 320), (7, 2000), (100, 300)]


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("canvas", [(320, 320), (64, 96), (480, 640)])
def test_boxes_come_back_where_they_were(size: tuple[int, int], canvas: tuple[int, int]) -> None:
    box = plan(size, canvas=canvas)
    height, width = size
    rng = np.random.default_rng(1)
    ends = np.sort(rng.uniform(0, 1, (50, 2, 2)), axis=1) * (width, height)
    boxes = ends.reshape(50, 4).astype(np.float32)
    there = box.apply(boxes)
    assert there.min() >= 0
    assert there.max() <= 1 + 1e-6
    np.testing.assert_allclose(box.undo(there), boxes, atol=5e-3 if max(size) > 1000 else 1e-3)


@pytest.mark.parametrize("size", SIZES)
def test_the_picture_is_centred_on_grey(size: tuple[int, int]) -> None:
    canvas, box = letterbox_image(np.zeros((*size, 3), np.uint8), canvas=(96, 64))
    assert canvas.shape == (96, 64, 3)
    rows, columns = np.where((canvas == 0).all(axis=2))
    top, left = box.pad
    inner = (np.ptp(rows) + 1, np.ptp(columns) + 1)
    assert (rows.min(), columns.min()) == (top, left)
    assert inner == (round(size[0] * box.scale[0]), round(size[1] * box.scale[1]))
    assert abs(96 - inner[0] - 2 * top) <= 1
    assert abs(64 - inner[1] - 2 * left) <= 1
    assert (canvas == PAD_VALUE).all(axis=2).sum() == 96 * 64 - len(rows)


def test_a_picture_of_the_canvas_size_is_untouched() -> None:
    image = picture(96, 64)
    canvas, box = letterbox_image(image, canvas=(96, 64))
    np.testing.assert_array_equal(canvas, image)
    assert box.scale == (1.0, 1.0)
    assert not np.shares_memory(canvas, image)


@pytest.mark.parametrize("size", [(48, 64), (64, 48), (30, 200)])
def test_pixels_are_the_normalised_picture(size: tuple[int, int]) -> None:
    image = picture(*size)
    canvas, _ = letterbox_image(image, canvas=(64, 96))
    pixels, _ = letterbox(image, canvas=(64, 96))
    wanted = ((canvas / 255.0 - MEAN) / STD).transpose(2, 0, 1)
    np.testing.assert_allclose(pixels, wanted, atol=1e-5)
    assert pixels.dtype == np.float32


def test_out_is_written_and_an_old_picture_leaves_no_trace() -> None:
    out = np.full((3, 64, 96), np.nan, np.float32)
    first, _ = letterbox(picture(30, 200), canvas=(64, 96), out=out)
    assert first is out
    letterbox(picture(200, 30), canvas=(64, 96), out=out)
    np.testing.assert_array_equal(out, letterbox(picture(200, 30), canvas=(64, 96))[0])


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a[::-1],
        lambda a: a[:, ::-1],
        lambda a: a[..., ::-1],
        lambda a: a[::2, 1::3],
        lambda a: np.asfortranarray(a),
        lambda a: a.transpose(1, 0, 2),
    ],
)
def test_any_memory_layout_gives_the_same(view: object) -> None:
    image = view(picture(50, 70))  # type: ignore[operator]
    before = image.copy()
    image.flags.writeable = False
    found, _ = letterbox(image, canvas=(64, 96))
    np.testing.assert_array_equal(found, letterbox(np.ascontiguousarray(before), canvas=(64, 96))[0])
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("image", "error", "says"),
    [
        (None, TypeError, "NoneType"),
        ([[1, 2, 3]], TypeError, "list"),
        (np.zeros((4, 4, 3)), TypeError, "float64"),
        (np.full((4, 4, 3), np.nan, np.float32), TypeError, "float32"),
        (np.zeros((4, 4, 3), np.int16), TypeError, "int16"),
        (np.zeros((4, 4, 3), bool), TypeError, "bool"),
        (np.zeros((1, 4, 4, 3), np.uint8), ValueError, r"\(1, 4, 4, 3\)"),
        (np.zeros((4, 4), np.uint8), ValueError, "dstack"),
        (np.zeros((4, 4, 4), np.uint8), ValueError, r"\(4, 4, 4\)"),
        (np.zeros((4, 0, 3), np.uint8), ValueError, "one pixel"),
        (np.zeros((0, 4, 3), np.uint8), ValueError, "one pixel"),
        (np.zeros(0, np.uint8), ValueError, r"\(0,\)"),
    ],
)
def test_what_is_no_picture_is_refused(image: object, error: type[Exception], says: str) -> None:
    for call in (letterbox, letterbox_image):
        with pytest.raises(error, match=says):
            call(image, canvas=(64, 96))  # type: ignore[operator]


def test_an_unfit_out_is_refused() -> None:
    with pytest.raises(ValueError, match="out must be float32"):
        letterbox(picture(4, 4), canvas=(64, 96), out=np.zeros((3, 96, 64), np.float32))
    with pytest.raises(ValueError, match="positive"):
        letterbox(picture(4, 4), canvas=(0, 96))


@pytest.mark.parametrize(
    ("image", "size"),
    [
        ((480, 640), (800, 1066)),
        ((640, 480), (1066, 800)),
        ((800, 1200), (800, 1200)),
        ((427, 1280), (445, 1333)),
        ((3000, 4000), (800, 1066)),
        ((10, 4000), (3, 1200)),
    ],
)
def test_scaling_by_sides_rounds_as_detr_does(image: tuple[int, int], size: tuple[int, int]) -> None:
    assert scaled_size(image, sides=(800, 1333)) == size


def test_marked_canvases_and_free_ones() -> None:
    info = ModelInfo("m", ("a",), (1,), (64, 96), marked=True, sides=(32, 48))
    images = [np.full((64, 64, 3), 114, np.uint8), np.full((30, 60, 3), 200, np.uint8)]
    pixels, boxes = lay(images, info)
    assert pixels.shape == (2, 3, 64, 96)
    assert (pixels[0, :, :, 64:] == PADDING).all()
    assert (pixels[0, :, :, :64] > -3).all()
    assert boxes[1].pad == (0, 0)
    assert boxes[1].scale == (48 / 30, 96 / 60)
    pixels, boxes = lay(images, info, free=True)
    assert pixels.shape == (2, 3, 32, 48)  # as wide as the second, as high as the first
    assert (pixels[1, :, 24:] == PADDING).all()
    corners = np.array([[3, 4, 50, 20]], np.float32)
    assert np.allclose(boxes[1].undo(boxes[1].apply(corners)), corners, atol=1e-3)
    grey, _ = lay(images[:1], ModelInfo("m", ("a",), (1,), (64, 96)), free=True)
    assert np.array_equal(grey[0], letterbox(images[0], canvas=(64, 96))[0])
