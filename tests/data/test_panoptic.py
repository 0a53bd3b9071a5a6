"""COCO's panoptic format: the published sample, and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any, Callable

import numpy as np
import pytest

from detrx import panoptic_ids
from detrx.data.catalog import open_dataset
from detrx.data.panoptic import find_panoptic, open_panoptic, segments_of
from detrx.data.segmentation import make_mask
from detrx.errors import DataError
from detrx.evaluation.panoptic_run import truth_of
from detrx.images import opencv


def write_png(path: Path, image: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(opencv().imencode(path.suffix, image[..., ::-1])[1].tobytes())


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """One picture of 6 x 8 pixels: a cat, the sky, a crowd of cats, and nothing in a corner."""
    ids = np.full((6, 8), 70_000, np.int32)
    ids[3:, :4], ids[3:, 4:], ids[0, 0] = 258, 9, 0
    write_png(tmp_path / "annotations/panoptic_val/a.png", panoptic_ids.to_rgb(ids))
    write_png(tmp_path / "val/a.png", np.zeros((6, 8, 3), np.uint8))
    segments = [
        {"id": 70_000, "category_id": 12, "bbox": [0, 0, 8, 3], "area": 23, "iscrowd": 0},
        {"id": 258, "category_id": 3, "bbox": [0, 3, 4, 3], "area": 12, "iscrowd": 0},
        {"id": 9, "category_id": 3, "bbox": [4, 3, 4, 3], "area": 12, "iscrowd": 1},
    ]
    document = {
        "info": {},
        "images": [{"id": 5, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": segments}],
        "categories": [
            {"id": 12, "name": "sky", "isthing": 0},
            {"id": 3, "name": "cat", "isthing": 1},
        ],
    }
    (tmp_path / "annotations/panoptic_val.json").write_text(json.dumps(document))
    return tmp_path


def change(root: Path, what: Callable[[Any], Any]) -> None:
    file = root / "annotations/panoptic_val.json"
    document = json.loads(file.read_text())
    what(document)
    file.write_text(json.dumps(document))


def test_segments_are_boxes_with_masks(root: Path) -> None:
    found = open_panoptic(root, split="val")
    assert (found.names, found.category_ids, found.things) == (("cat", "sky"), (3, 12), (True, False))
    (record,) = found.images
    assert (record.id, record.labels.tolist(), record.crowd.tolist()) == (5, [1, 0, 0], [False, False, True])
    assert record.boxes[1].tolist() == [0, 3, 4, 6]
    assert record.masks is not None
    masks = [make_mask(one, size=(6, 8)) for one in record.masks]
    assert [mask.sum() for mask in masks] == [23, 12, 12]
    assert masks[1][3:, :4].all()


def test_the_truth_of_a_picture(root: Path) -> None:
    truth = truth_of(open_panoptic(root, split="val").images[0])
    assert truth.classes == {70_000: 1, 258: 0, 9: 0}
    assert truth.crowds == (9,)
    assert truth.ids[0, 0] == 0


def test_the_published_sample(tmp_path: Path, shared_data: Path) -> None:
    sample = shared_data / "panoptic_sample/sample_data"
    (tmp_path / "annotations").mkdir()
    shutil.copy(sample / "panoptic_examples.json", tmp_path / "annotations/panoptic_val2017.json")
    shutil.copytree(sample / "panoptic_examples", tmp_path / "annotations/panoptic_val2017")
    shutil.copytree(sample / "input_images", tmp_path / "val2017")
    found = open_panoptic(tmp_path, split="val")
    assert (len(found), len(found.names), sum(found.things)) == (2, 133, 80)
    assert found.boxes == 50
    for record in found.images:
        ids, numbers = segments_of(record)
        assert ids.shape == (record.height, record.width)
        assert record.masks is not None
        for mask, area, number in zip(record.masks, record.areas, numbers, strict=True):
            assert make_mask(mask, size=ids.shape).sum() == area == (ids == number).sum()


def test_a_folder_without_one(tmp_path: Path) -> None:
    assert find_panoptic(tmp_path) == []
    with pytest.raises(DataError, match="must hold a panoptic data set"):
        open_panoptic(tmp_path, split="val")


def segments(document: Any) -> Any:
    return document["annotations"][0]["segments_info"]


@pytest.mark.parametrize(
    ("what", "said"),
    [
        (lambda d: d.pop("categories"), "must have images, annotations and categories"),
        (lambda d: d["annotations"][0].pop("segments_info"), "must have file_name and segments_info"),
        (lambda d: d["annotations"][0].update(file_name="../a.png"), "escapes its root"),
        (lambda d: d["annotations"][0].update(file_name="b.png"), "b.png is missing"),
        (lambda d: segments(d)[0].update(id=0), "colours from 1 on"),
        (lambda d: segments(d)[0].update(id=256**3), "colours from 1 on"),
        (lambda d: segments(d)[0].update(id=9), "must differ"),
        (lambda d: d["categories"][0].pop("isthing"), "isthing must be 0 or 1"),
        (lambda d: segments(d)[0].update(category_id=99), "unknown category_id"),
    ],
)
def test_files_that_are_refused(root: Path, what: Callable[[Any], Any], said: str) -> None:
    change(root, what)
    with pytest.raises(DataError, match=said):
        open_panoptic(root, split="val")


def test_a_link_out_of_the_folder(root: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
    elsewhere = tmp_path_factory.mktemp("elsewhere") / "a.png"
    png = root / "annotations/panoptic_val/a.png"
    shutil.move(png, elsewhere)
    png.symlink_to(elsewhere)
    with pytest.raises(DataError, match="leads out"):
        open_panoptic(root, split="val")


@pytest.mark.parametrize(
    ("ids", "said"),
    [(np.full((6, 8), 5, np.int32), r"only in the PNG: \[5\]"), (np.zeros((6, 9), np.int32), "size")],
)
def test_a_png_that_does_not_fit(root: Path, ids: np.ndarray, said: str) -> None:
    write_png(root / "annotations/panoptic_val/a.png", panoptic_ids.to_rgb(ids))
    with pytest.raises(DataError, match=said):
        segments_of(open_panoptic(root, split="val").images[0])


def test_without_its_pngs(root: Path) -> None:
    shutil.rmtree(root / "annotations/panoptic_val")
    with pytest.raises(DataError, match=r"PNGs of .* must lie in"):
        open_panoptic(root, split="val")


def test_no_json_can_name_a_png_as_a_mask(root: Path) -> None:
    """Only the reader of panoptic files points at pictures."""
    boxes = {
        "images": [{"id": 5, "file_name": "a.png", "height": 6, "width": 8}],
        "annotations": [
            {
                "id": 1,
                "image_id": 5,
                "category_id": 1,
                "bbox": [0, 0, 4, 4],
                "area": 16,
                "iscrowd": 0,
                "segmentation": {"path": "/etc/passwd", "id": 1, "size": [6, 8]},
            }
        ],
        "categories": [{"id": 1, "name": "cat"}],
    }
    (root / "annotations/instances_val.json").write_text(json.dumps(boxes))
    with pytest.raises(DataError, match="no run-length code"):
        open_dataset(root, split="val", masks=True)


def test_ids_there_and_back() -> None:
    ids = np.array([[0, 1, 255], [256, 65536, panoptic_ids.MOST]], np.int32)
    image = panoptic_ids.to_rgb(ids)
    assert image[1].tolist() == [[0, 1, 0], [0, 0, 1], [255, 255, 255]]
    assert (panoptic_ids.from_rgb(image) == ids).all()
