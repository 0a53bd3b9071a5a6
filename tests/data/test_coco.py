"""The reader on real files, and its speed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from detrx.data.catalog import open_dataset, splits
from detrx.data.coco import read_coco


@pytest.mark.needs("data")
def test_blood_cells(shared_data):
    sizes = {
        split: len(open_dataset(shared_data / "bccd", split=split)) for split in ("train", "val", "test")
    }
    assert sizes == {"train": 205, "val": 87, "test": 72}
    found = open_dataset(shared_data / "bccd", split="train")
    assert found.names == ("RBC", "WBC", "Platelets")
    assert found.boxes == 2804
    assert found.report.lines() == []


@pytest.mark.needs("data")
def test_nuclei(shared_data):
    assert splits(shared_data / "nuclei") == ("train", "val")
    found = open_dataset(shared_data / "nuclei", split="valid")
    assert (len(found), found.boxes) == (113, 2735)
    assert found.images[0].id == 5


@pytest.mark.needs("data")
def test_cats(shared_data):
    found = open_dataset(shared_data / "coco_cats", split="39769")
    assert (found.names, found.category_ids) == (("cat", "couch", "bed", "remote"), (17, 63, 65, 75))
    assert found.images[0].boxes.shape == (6, 4)


@pytest.mark.needs("data")
@pytest.mark.parametrize(
    "file", ["coco_format_v1/instances_default.json", "coco_format_v2/instances_v2.json"]
)
def test_voc_photos(shared_data, file):
    database = shared_data / "review_metrics/data/database"
    found = read_coco(database / "gts" / file, image_root=database / "images")
    assert (len(found), found.boxes, len(found.names)) == (100, 273, 20)


def test_five_thousand_images_read_in_a_second(tmp_path: Path):
    rng = np.random.default_rng(0)
    images = [{"id": i, "file_name": f"{i:012d}.jpg", "width": 640, "height": 480} for i in range(5000)]
    boxes = rng.uniform(1, 200, (36_000, 4)).round(2).tolist()
    annotations = [
        {"id": i, "image_id": i % 5000, "category_id": i % 80, "bbox": box, "area": 50.0, "iscrowd": 0}
        for i, box in enumerate(boxes)
    ]
    categories = [{"id": i, "name": str(i)} for i in range(80)]
    document = {"info": {}, "images": images, "annotations": annotations, "categories": categories}
    (tmp_path / "gt.json").write_text(json.dumps(document))
    start = time.process_time()
    found = read_coco(tmp_path / "gt.json", image_root=None)
    assert time.process_time() - start < 2  # measured: 0.35 s
    assert found.boxes == 36_000


def test_the_reader_needs_neither_torch_nor_opencv():
    code = "import sys, detrx.data.catalog, detrx.data.synthetic; print({'torch', 'cv2'} & set(sys.modules))"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "set()"
