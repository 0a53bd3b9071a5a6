from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from detrx.resample import positive, shrink


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


@pytest.mark.parametrize("cells", [(1, 1), (2, 5), (9, 7), (40, 30)])
def test_a_mask_is_the_bilinear_map_above_zero(cells: tuple[int, int]) -> None:
    functional = pytest.importorskip("torch").nn.functional
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(0)
    for size in ((1, 1), (13, 29), (80, 60), (5, 3)):
        field = rng.normal(-1, 1, cells).astype(np.float32)
        places = [(np.arange(s) + 0.5) * c / s for s, c in zip(size, cells)]
        found = positive(field, rows=places[0], columns=places[1])
        whole = functional.interpolate(torch.from_numpy(field)[None, None], size, mode="bilinear")[
            0, 0
        ].numpy()
        near = np.abs(whole) < 1e-5
        assert np.array_equal(found[~near], whole[~near] > 0)


def test_no_positive_cell_is_an_empty_mask() -> None:
    places = np.arange(4) + 0.5
    assert not positive(np.zeros((4, 4), np.float32), rows=places, columns=places).any()
