"""The merge of masks: what each rule does, and its kernel against numpy."""

from __future__ import annotations

import numpy as np
import pytest

from detrx import native
from detrx.errors import ConfigError
from detrx.runtime.panoptic import _nearest, divide, mask_winners, mask_winners_reference, merge
from detrx.types import Letterbox, ModelInfo, Raw

THINGS = (True, False, False)
IDS = (7, 120, 130)


def whole(height, width):
    return Letterbox((1.0, 1.0), (0, 0), (height, width), (height, width))


def fields(count, size, *, seed=0, coarse=5):
    """Smooth random logits."""
    from detrx.resample import _blend  # a bilinear reading

    rng = np.random.default_rng(seed)
    places = [(np.arange(n) + 0.5) * coarse / n for n in size]
    found = [
        _blend(_blend(rng.normal(size=(coarse, coarse)).astype(np.float32), places[0]).T, places[1]).T
        for _ in range(count)
    ]
    return np.ascontiguousarray(np.stack(found) * 5)


def run(scores, labels, masks, box, **more):
    return merge(
        np.asarray(scores, np.float32),
        np.asarray(labels),
        masks,
        box,
        things=THINGS,
        category_ids=IDS,
        **more,
    )


@pytest.mark.parametrize(
    ("cells", "pixels"), [((3, 4), (12, 17)), ((9, 7), (9, 7)), ((1, 1), (5, 40)), ((30, 41), (97, 64))]
)
@pytest.mark.parametrize("threads", [1, 3])
def test_the_kernel_is_the_reference(cells, pixels, threads):
    masks = fields(11, cells)
    masks[3, 0, 0] = np.nan
    masks[7] = masks[2]  # of equals the first
    rows, columns = (
        (((np.arange(n) + 0.5) * k / n - 0.5).clip(0, k - 1)).astype(np.float32)
        for n, k in zip(pixels, cells)
    )
    found = mask_winners(masks, rows=rows, columns=columns, threads=threads)
    expected = mask_winners_reference(masks, rows=rows, columns=columns)
    assert found.dtype == np.int32
    assert (found != 7).all()
    # The machine may multiply and add in one rounding, so that a near tie may fall otherwise.
    assert (found == expected).mean() > 0.999


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rows": [0.0, 2.5]}, r"rows must be in \[0, 2\], got 2.5 at 1"),
        ({"columns": [np.nan]}, "columns must be in"),
        ({"best": (2, 3)}, "best must have shape"),
        ({"logits": (0, 3, 4)}, "at least one mask"),
        ({"threads": 0}, "threads must be >= 1"),
    ],
)
def test_what_the_kernel_refuses(change, said):
    rows, columns = (np.array(change.get(k, [0.0, 1.0]), np.float32) for k in ("rows", "columns"))
    best = np.zeros(change.get("best", (len(rows), len(columns))), np.int32)
    logits = np.zeros(change.get("logits", (1, 3, 4)), np.float32)
    with pytest.raises(ValueError, match=said):
        native.load().mask_winners(logits, rows, columns, best, change.get("threads", 1))


def test_without_the_extension(monkeypatch):
    from detrx.errors import MissingBackendError

    def missing():
        raise MissingBackendError("detrx._C", "Build it.")

    masks = fields(6, (8, 8))
    here = run([0.9] * 6, [0] * 6, masks, whole(32, 32))
    monkeypatch.setattr(native, "load", missing)
    there = run([0.9] * 6, [0] * 6, masks, whole(32, 32))
    assert len(here) == len(there)
    assert (here.segments_map == there.segments_map).mean() > 0.999


def test_segments_cover_the_picture_and_say_what_they_are():
    masks = fields(5, (10, 12))
    found = run([0.9, 0.95, 0.5, 0.86, 0.99], [0, 0, 0, 1, 2], masks, whole(40, 48))
    assert found.segments_map.shape == (40, 48)
    assert sum(one.area for one in found.segments) == 40 * 48
    assert [one.id for one in found.segments] == list(range(1, len(found) + 1))
    for one in found.segments:
        assert found.mask(one).sum() == one.area > 4
        assert (one.category_id, one.thing) == (IDS[one.label], THINGS[one.label])
    assert {round(one.score, 3) for one in found.segments} <= {0.9, 0.95, 0.86, 0.99}


def test_nobody_is_sure_enough():
    found = run([0.85, 0.2], [0, 1], fields(2, (4, 4)), whole(16, 16))
    assert found.segments == ()
    assert not found.segments_map.any()


def test_stuff_of_one_kind_is_one_segment_and_things_are_not():
    halves = np.zeros((2, 4, 8), np.float32)
    halves[0, :, :4], halves[1, :, 4:] = 5, 5
    assert len(run([0.9, 0.9], [0, 0], halves, whole(16, 32))) == 2
    found = run([0.9, 0.95], [1, 1], halves, whole(16, 32))
    assert [(one.area, round(one.score, 2)) for one in found.segments] == [(16 * 32, 0.9)]


def test_small_segments_give_their_pixels_to_the_others():
    masks = np.zeros((3, 8, 8), np.float32)
    masks[0, :, :4], masks[1, :, 4:], masks[2, 2, 2] = 1, 1, 9
    large = run([0.9] * 3, [0, 0, 0], masks, whole(32, 32))
    assert len(large) == 3
    tiny = run([0.9] * 3, [0, 0, 0], masks, Letterbox((4.0, 4.0), (0, 0), (32, 32), (8, 8)))
    assert [one.area for one in tiny.segments] == [32, 32]


@pytest.mark.parametrize("padded", [False, True])
def test_a_picture_on_a_canvas(padded):
    """The canvas's border is cut off, and a picture larger than its canvas is filled."""
    masks = np.zeros((2, 8, 8), np.float32)
    masks[0, :4], masks[1, 4:] = 3, 3
    box = Letterbox((0.25, 0.25), (8, 0), (32, 32), (64, 128)) if padded else whole(32, 32)
    found = run([0.9, 0.9], [0, 0], masks, box)
    rows = np.array([found.segments_map[y, 0] for y in range(box.image[0])])
    assert (found.segments_map == rows[:, None]).all()
    assert (rows == np.repeat([1, 2], box.image[0] // 2)).all()


@pytest.mark.parametrize(("wanted", "length"), [(10, 4), (333, 800), (640, 640), (1, 7), (500, 37)])
def test_the_nearest_pixel_is_pil_s(wanted, length):
    from PIL import Image

    strip = Image.fromarray(np.arange(length, dtype=np.int32)[None], mode=None)
    expected = np.asarray(strip.resize((wanted, 1), Image.Resampling.NEAREST))[0]
    assert (_nearest(wanted, length) == expected).all()


INFO = ModelInfo("m", ("car", "sky", "sea"), IDS, (32, 32), things=THINGS)


def raw(**changes):
    masks = fields(4, (8, 8))
    scores = np.array([0.99, 0.95, 0.9, 0.3], np.float32)
    parts = {
        "scores": scores,
        "labels": np.array([1, 1, 0, 0]),
        "masks": masks,
        "queries": np.array([3, 0, 2, 1]),
    }
    parts.update(changes)
    boxes = np.zeros((1, 4, 4), np.float32)
    queries = parts["queries"]
    return Raw(
        parts["scores"][None],
        parts["labels"][None],
        boxes,
        parts["masks"][None],
        None if queries is None else queries[None],
    )


def test_the_first_query_of_a_kind_stands_for_it_not_the_surest():
    first = divide(raw(), 0, whole(32, 32), info=INFO)
    assert [round(one.score, 2) for one in first.segments] == [0.95, 0.9]
    surest = divide(raw(queries=None), 0, whole(32, 32), info=INFO)
    assert [round(one.score, 2) for one in surest.segments] == [0.99, 0.9]


def test_what_is_no_number_or_no_class_is_left_out():
    masks = fields(4, (8, 8))
    masks[2, 3, 3] = np.inf
    found = divide(raw(masks=masks, labels=np.array([9, 1, 0, 0])), 0, whole(32, 32), info=INFO)
    assert [one.category_id for one in found.segments] == [120]


def test_a_model_that_has_no_masks_or_knows_no_things():
    from dataclasses import replace

    with pytest.raises(ConfigError, match="know things from stuff"):
        divide(raw(), 0, whole(32, 32), info=replace(INFO, things=()))
    with pytest.raises(ConfigError, match="must have masks"):
        divide(replace(raw(), masks=None), 0, whole(32, 32), info=INFO)
