"""Masks of COCO files: polygons and run lengths, held to pycocotools; what cannot be used is skipped and counted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx import rle
from detrx.data.coco import Dataset, read_coco
from detrx.data.segmentation import as_json, make_mask, read_segmentation
from detrx.errors import DataError

quiet = pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of numpy, inside pycocotools
DISC = np.hypot(*(np.mgrid[:80, :100] - np.array([40, 50])[:, None, None])) < 20


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / max((a | b).sum(), 1))


def read(folder: Path, segmentations: list[Any], **options: Any) -> Dataset:
    rows = [
        {
            "id": i + 1,
            "image_id": 1,
            "category_id": 1,
            "bbox": [30, 20, 40, 40],
            "area": 9,
            "iscrowd": 0,
            "segmentation": s,
        }
        for i, s in enumerate(segmentations)
    ]
    found = {
        "info": {},
        "images": [{"id": 1, "file_name": "a.png", "width": 100, "height": 80}],
        "categories": [{"id": 1, "name": "disc"}],
        "annotations": rows,
    }
    path = folder / "a.json"
    path.write_text(json.dumps(found))
    return read_coco(path, image_root=None, masks=True, **options)


@pytest.mark.parametrize("shift", [0.0, 0.25, 0.5, 0.77])
def test_a_polygon_fills_the_pixels_whose_middle_it_holds(shift: float) -> None:
    square = [10 + shift, 5 + shift, 30 + shift, 5 + shift, 30 + shift, 20 + shift, 10 + shift, 20 + shift]
    mask = make_mask(read_segmentation([square], size=(40, 50)), size=(40, 50))
    rows, columns = np.mgrid[:40, :50] + 0.5
    expected = (rows > 5 + shift) & (rows < 20 + shift) & (columns > 10 + shift) & (columns < 30 + shift)
    edge = shift == 0.5  # a middle on the outline may fall on either side
    assert iou(mask, expected) > (0.85 if edge else 0.9999)
    assert mask.sum() == 300


def test_polygons_reach_no_farther_than_the_picture() -> None:
    around = [[-10.0, -10.0, 60.0, -10.0, 60.0, 50.0, -10.0, 50.0]]
    assert make_mask(read_segmentation(around, size=(40, 50)), size=(40, 50)).all()
    assert not make_mask((np.array([[60, 5], [90, 5], [70, 30]], np.float32),), size=(40, 50)).any()


@quiet
def test_random_polygons_are_as_pycocotools_draws_them() -> None:
    tools = pytest.importorskip("pycocotools.mask")
    rng = np.random.default_rng(0)
    for _ in range(20):
        angle = np.sort(rng.uniform(0, 2 * np.pi, 12))
        reach = rng.uniform(15, 45, 12)
        flat = np.stack([60 + reach * np.cos(angle), 50 + reach * np.sin(angle)], 1).ravel().tolist()
        expected = tools.decode(tools.merge(tools.frPyObjects([flat], 100, 120))).astype(bool)
        found = make_mask(read_segmentation([flat], size=(100, 120)), size=(100, 120))
        assert iou(found, expected) > 0.97
        assert abs(int(found.sum()) - int(expected.sum())) < 0.02 * expected.sum()


def test_run_lengths_of_both_kinds_come_out_the_same(tmp_path: Path) -> None:
    packed = rle.encode(DISC)
    plain = {"size": [80, 100], "counts": rle.unpack(packed["counts"]).tolist()}
    record = read(tmp_path, [packed, plain]).images[0]
    assert record.masks is not None
    for mask in record.masks:
        assert np.array_equal(make_mask(mask, size=(80, 100)), DISC)
        assert as_json(mask) == packed


def test_without_asking_no_masks_are_kept(tmp_path: Path) -> None:
    read(tmp_path, [rle.encode(DISC)])
    assert read_coco(tmp_path / "a.json", image_root=None).images[0].masks is None


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (None, "no mask"),
        ([], "no mask"),
        ("text", "no mask"),
        ([[1, 2, 3, 4]], "fewer than 3 points"),
        ([[1, 2, 3, 4, 5, 6, 7]], "not pairs of finite numbers"),
        ([[1, 2, 3, 4, 5, "6"]], "not pairs of finite numbers"),
        ([[1, 2, 3, 4, 5, 1e30]], "not pairs of finite numbers"),
        ([7], "fewer than 3 points"),
        ({"size": [80, 100], "counts": "oo"}, "no run-length code"),
        ({"size": [80, 100], "counts": [1, 2]}, "no run-length code"),
        ({"size": [80, 100], "counts": [8000]}, "an empty mask"),
        ({"size": [100, 80], "counts": [10, 90, 7900]}, "another size than its image"),
        ({}, "no run-length code"),
    ],
)
def test_a_bad_mask_is_skipped_and_counted(tmp_path: Path, bad: Any, reason: str) -> None:
    found = read(tmp_path, [rle.encode(DISC), bad], max_bad=0.5)
    assert found.boxes == 1
    (said,) = [key for key in found.report.counts if key.startswith("box: ")]
    assert reason in said
    with pytest.raises(DataError, match=f"(?s)at most 1 % of the boxes.*{reason}.*annotation 2"):
        read(tmp_path, [rle.encode(DISC), bad])


@quiet
@pytest.mark.needs("data")
def test_the_cats_are_as_pycocotools_draws_them(shared_data: Path) -> None:
    cats = shared_data / "coco_cats"
    tools = pytest.importorskip("pycocotools.mask")
    found = read_coco(cats / "instances_39769.json", image_root=cats, masks=True)
    record = found.images[0]
    assert record.masks is not None
    rows = json.loads((cats / "instances_39769.json").read_text())["annotations"]
    for mask, box, row in zip(record.masks, record.boxes, rows, strict=True):
        size = (record.height, record.width)
        expected = tools.decode(tools.merge(tools.frPyObjects(row["segmentation"], *size))).astype(bool)
        drawn = make_mask(mask, size=size)
        assert iou(drawn, expected) > 0.97
        assert np.abs(np.array(rle.bounds(drawn)) - box).max() < 3


@pytest.mark.needs("data")
def test_the_nuclei_read_without_a_word_and_lie_in_their_boxes(shared_data: Path) -> None:
    nuclei = shared_data / "nuclei"
    found = read_coco(nuclei / "instances_val.json", image_root=nuclei / "images", masks=True)
    assert [line for line in found.report.lines() if "info" not in line] == []
    record = max(found.images, key=lambda image: len(image.labels))
    assert record.masks is not None
    for mask, box in zip(record.masks, record.boxes, strict=True):
        drawn = make_mask(mask, size=(record.height, record.width))
        assert np.abs(np.array(rle.bounds(drawn)) - box).max() <= 1
