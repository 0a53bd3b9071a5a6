"""Run lengths as COCO packs them, held to pycocotools."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detrx import rle


def masks() -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    found = [rng.random((h, w)) < p for h, w, p in ((1, 1, 1), (7, 5, 0.5), (40, 30, 0.02), (64, 9, 0.98))]
    disc = np.hypot(*np.mgrid[-200:200, -300:300]) < 150
    long = np.zeros((2000, 1500), bool)
    long[-1, -1] = True
    return [*found, np.zeros((3, 4), bool), np.ones((3, 4), bool), disc, long, ~long, np.asfortranarray(disc)]


@pytest.mark.parametrize("at", range(10))
def test_it_is_pycocotools_to_the_letter_and_back(at: int) -> None:
    tools = pytest.importorskip("pycocotools.mask")
    mask = masks()[at]
    found = rle.encode(mask)
    expected = tools.encode(np.asfortranarray(mask.astype(np.uint8)))
    assert found["size"] == expected["size"]
    assert found["counts"].encode() == expected["counts"]
    assert np.array_equal(rle.decode(found), mask)
    assert np.array_equal(rle.decode(expected), mask), "bytes are read like text"
    assert rle.area(found) == mask.sum() == tools.area(expected)
    x, y, w, h = tools.toBbox(expected)
    assert rle.bounds(mask) == [x, y, x + w, y + h]


def test_plain_runs_are_read() -> None:
    found = rle.decode({"size": [2, 3], "counts": [1, 2, 3]})
    assert found.tolist() == [[False, True, False], [True, False, False]]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ({"size": [2, 3], "counts": [1, 2]}, "add up to 2 x 3 = 6"),
        ({"size": [2, 3], "counts": [9, -3]}, "whole numbers"),
        ({"size": [2, 3], "counts": [1.5, 4.5]}, "whole numbers"),
        ({"size": [2, 3], "counts": "12 "}, "packed run lengths"),
        ({"size": [2, 3], "counts": "P"}, "packed run lengths"),
        ({"size": [2, 3], "counts": ""}, "packed run lengths"),
        ({"size": [2, 3], "counts": "oooooooooo1"}, "at most 7 characters"),
        ({"size": [2, 3], "counts": "@@"}, "add up"),
        ({"size": [2], "counts": [6]}, "size must be"),
        ({"size": [True, 6], "counts": [6]}, "size must be"),
        ({"size": [1 << 30, 1 << 30], "counts": [1 << 40]}, "size must be"),
        ({"counts": [6]}, "size must be"),
        ({"size": [2, 3]}, "counts must be"),
    ],
)
def test_what_is_no_code_is_refused(code: dict[str, Any], says: str) -> None:
    with pytest.raises(ValueError, match=says):
        rle.decode(code)
