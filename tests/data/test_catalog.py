"""Splits are found in every layout, and what cannot be told apart is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detrx.data.catalog import open_dataset, splits
from detrx.errors import DataError

cv2 = pytest.importorskip("cv2")


def put(root: Path, file: str, picture: str, name: str | None = None) -> None:
    """One annotation file and its one picture."""
    for path in (root / file, root / picture):
        path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(root / picture), np.zeros((50, 60, 3), np.uint8))
    images = [{"id": 1, "file_name": name or Path(picture).name, "width": 60, "height": 50}]
    boxes = [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [5, 5, 20, 10], "area": 200, "iscrowd": 0}]
    found = {"info": {}, "images": images, "annotations": boxes, "categories": [{"id": 1, "name": "a"}]}
    (root / file).write_text(json.dumps(found))


@pytest.mark.parametrize(
    ("file", "picture", "name"),
    [
        ("annotations/instances_train2017.json", "train2017/a.png", None),
        ("annotations/instances_train.json", "images/train/a.png", None),
        ("annotations/instances_train.json", "images/a.png", None),
        ("annotations/instances_train.json", "sub/a.png", "sub/a.png"),
        ("train/_annotations.coco.json", "train/a.png", None),
        ("coco_train.json", "deep/down/a.png", "deep/down/a.png"),
        ("instances_train.json", "images/a.png", None),
    ],
)
def test_layouts(tmp_path, file, picture, name):
    put(tmp_path, file, picture, name)
    found = open_dataset(tmp_path, split="train")
    assert found.images[0].path == tmp_path / picture
    assert found.annotation_file == tmp_path / file
    assert splits(tmp_path) == ("train",)


def test_valid_is_val_and_years_do_not_matter(tmp_path):
    put(tmp_path, "valid/_annotations.coco.json", "valid/a.png")
    put(tmp_path, "train/_annotations.coco.json", "train/a.png")
    put(tmp_path, "annotations/instances_test2017.json", "test2017/a.png")
    assert splits(tmp_path) == ("train", "val", "test")
    for split in ("val", "valid", "test", "test2017"):
        assert len(open_dataset(tmp_path, split=split)) == 1


def test_two_files_for_a_split_are_ambiguous(tmp_path):
    put(tmp_path, "annotations/instances_train2014.json", "train2014/a.png")
    put(tmp_path, "annotations/instances_train2017.json", "train2017/a.png")
    with pytest.raises(DataError, match=r"(?s)ambiguous.*2014.*2017"):
        open_dataset(tmp_path, split="train")
    assert open_dataset(tmp_path, split="train2014").images[0].path.parent.name == "train2014"


def test_an_unknown_split_names_those_there_are(tmp_path):
    put(tmp_path, "coco_train.json", "a.png")
    with pytest.raises(DataError, match="no split 'test', found train"):
        open_dataset(tmp_path, split="test")


def test_a_folder_without_a_data_set_says_what_was_searched(tmp_path):
    with pytest.raises(DataError, match=r"found nothing\. Searched for .*_annotations"):
        splits(tmp_path)
    with pytest.raises(DataError, match="must be a folder, found nothing"):
        splits(tmp_path / "none")
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="must be a folder, found a file"):
        splits(tmp_path / "file")


def test_a_path_that_escapes_is_not_even_looked_for(tmp_path):
    put(tmp_path, "coco_train.json", "a.png", "../a.png")
    with pytest.raises(DataError, match="escapes"):
        open_dataset(tmp_path, split="train")
