"""Generated scenes: the same for a seed and a time, and their boxes are those of the pixels seen."""

from __future__ import annotations

import numpy as np
import pytest

from detrx.data.catalog import open_dataset
from detrx.data.synthetic import CLASS_NAMES, MIN_SIDE, MIN_VISIBLE, Scenes, bounce, write_coco

pytest.importorskip("cv2")


@pytest.mark.parametrize("seed", range(6))
def test_boxes_are_those_of_the_visible_pixels(seed):
    scene = Scenes(size=(160, 200), seed=seed, objects=(12, 16))
    for t in (0, 7, 400):
        _, boxes, labels = scene.frame(t)
        owners, all_labels, areas = scene.masks(t)
        expected = []
        for at, (label, area) in enumerate(zip(all_labels, areas, strict=True)):
            rows, columns = np.nonzero(owners == at + 1)
            if len(rows) and len(rows) >= MIN_VISIBLE * area:
                box = [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                if box[2] - box[0] >= MIN_SIDE and box[3] - box[1] >= MIN_SIDE:
                    expected.append([*box, label])
        np.testing.assert_array_equal(np.column_stack((boxes, labels)), np.array(expected).reshape(-1, 5))


def test_some_objects_are_covered_or_cut():
    scene = Scenes(size=(160, 160), seed=3, objects=(30, 30))
    owners, _, areas = scene.masks(0)
    shares = [np.count_nonzero(owners == at + 1) / area for at, area in enumerate(areas)]
    assert min(shares) < 0.5
    assert max(shares) > 0.99
    assert len(scene.frame(0)[1]) < 30


def test_a_frame_depends_on_the_seed_and_the_time_alone():
    first = Scenes(size=(64, 96), seed=5)
    first.frame(3)
    a, b = first.frame(11), Scenes(size=(64, 96), seed=5).frame(11)
    for x, y in zip(a, b, strict=True):
        np.testing.assert_array_equal(x, y)
    assert not np.array_equal(a[0], first.frame(12)[0])
    assert not np.array_equal(a[0], Scenes(size=(64, 96), seed=6).frame(11)[0])


def test_shapes_types_and_ranges():
    image, boxes, labels = Scenes(size=(64, 96), seed=0).frame(0)
    assert (image.shape, image.dtype, boxes.dtype, labels.dtype) == (
        (64, 96, 3),
        np.uint8,
        np.float32,
        np.int64,
    )
    assert boxes.min() >= 0
    assert (boxes[:, 2] <= 96).all()
    assert (boxes[:, 3] <= 64).all()
    image, boxes, _ = Scenes(size=(64, 96), seed=0, objects=(0, 0)).frame(0)
    assert boxes.shape == (0, 4)


def test_every_class_occurs():
    seen = {int(label) for seed in range(25) for label in Scenes(size=(64, 64), seed=seed).masks(0)[1]}
    assert seen == set(range(len(CLASS_NAMES)))


def test_motion_is_smooth_and_stays_inside():
    path = [bounce(90.0, 7.0, t, length=100) for t in range(200)]
    assert min(path) >= 0
    assert max(path) <= 100
    assert max(abs(b - a) for a, b in zip(path, path[1:], strict=False)) <= 7 + 1e-9


@pytest.mark.parametrize(
    "wrong", [{"size": (16, 64)}, {"seed": -1}, {"objects": (5, 2)}, {"objects": (0, 300)}]
)
def test_wrong_arguments(wrong):
    with pytest.raises(ValueError, match="Scenes"):
        Scenes(**{"size": (64, 64), "seed": 0, **wrong})


def test_a_written_data_set_reads_without_a_word(tmp_path):
    assert write_coco(tmp_path / "set", train=4, val=2, size=(96, 128), seed=1) == tmp_path / "set"
    train = open_dataset(tmp_path / "set", split="train")
    val = open_dataset(tmp_path / "set", split="val")
    assert (len(train), len(val), train.names) == (4, 2, CLASS_NAMES)
    assert [w for w in train.report.warnings if "no box here" not in w] == []
    assert train.images[0].boxes.shape[0] > 0
    assert (train.images[0].width, train.images[0].height) == (128, 96)
