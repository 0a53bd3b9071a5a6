from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detrx.resample import shrink


@pytest.mark.parametrize(
    ("image", "size"),
    [((60, 80), (20, 27)), ((97, 131), (50, 60)), ((40, 40), (39, 39)), ((300, 5), (3, 2)), ((7, 9), (1, 1))],
)
def test_is_pil_s_bilinear_within_a_level(image: tuple[int, int], size: tuple[int, int]) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (*image, 3), dtype=np.uint8)
    before = picture.copy()
    found = shrink(picture, size=size)
    expected = np.asarray(Image.fromarray(picture).resize(size[::-1], Image.Resampling.BILINEAR))
    assert found.shape == (*size, 3)
    assert np.abs(found.astype(int) - expected).max() <= 1
    assert np.array_equal(picture, before)


def test_flat_stays_flat_and_equal_sides_stay() -> None:
    assert (shrink(np.full((50, 70, 3), 255, np.uint8), size=(13, 17)) == 255).all()
    picture = np.random.default_rng(0).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    assert np.array_equal(shrink(picture, size=(30, 40)), picture)
    # A view that is not contiguous.
    assert np.array_equal(shrink(picture[:, ::-1], size=(15, 20))[:, ::-1], shrink(picture, size=(15, 20)))
