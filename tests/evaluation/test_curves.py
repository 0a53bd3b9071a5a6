from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detrx.data.coco import Dataset, ImageRecord
from detrx.data.report import ReadReport
from detrx.evaluation.curves import assign_greedily, best_threshold, confusion, curves, iou
from detrx.evaluation.tables import Prediction
from detrx.types import Detections

BOXES = np.array([[0, 0, 10, 10], [20, 0, 30, 10], [40, 0, 50, 10], [60, 0, 70, 10]], np.float32)


def data_set(labels: list[int], crowd: list[bool] | None = None) -> Dataset:
    n = len(labels)
    record = ImageRecord(
        id=1,
        path=Path("a.png"),
        width=100,
        height=50,
        boxes=BOXES[:n],
        labels=np.array(labels, np.int64),
        crowd=np.array(crowd or [False] * n, dtype=bool),
        areas=np.full(n, 100, np.float32),
    )
    return Dataset(Path(), "val", ("disc", "ring"), (1, 2), (record,), ReadReport(), Path("a.json"))


def guess(boxes: np.ndarray, labels: list[int], scores: list[float], names: tuple = ()) -> list[Prediction]:
    found = Detections(
        boxes.astype(np.float32), np.array(scores, np.float32), np.array(labels, np.int64), names
    )
    return [Prediction(1, found)]


def test_iou_of_known_boxes() -> None:
    a = np.array([[0, 0, 10, 10], [5, 5, 5, 9]], np.float32)
    b = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 30, 30]], np.float32)
    np.testing.assert_allclose(iou(a, b), [[1, 1 / 3, 0], [0, 0, 0]], atol=1e-6)


def test_the_better_detection_chooses_first() -> None:
    near = np.array([[0.6, 0.7], [0.9, 0.8], [0.55, 0.2]], np.float32)
    assert assign_greedily(near).tolist() == [1, 0, -1]
    assert assign_greedily(np.zeros((2, 0), np.float32)).tolist() == [-1, -1]


def test_precision_and_recall_by_hand() -> None:
    boxes = np.concatenate([BOXES[[0, 1]], BOXES[:1] + 30, BOXES[[2]]])
    found = curves(data_set([0, 0, 0, 0]), guess(boxes, [0, 0, 0, 0], [0.9, 0.8, 0.7, 0.6]))["disc"]
    np.testing.assert_allclose(found.precision, [1, 1, 2 / 3, 3 / 4])
    np.testing.assert_allclose(found.recall, [1 / 4, 2 / 4, 2 / 4, 3 / 4])
    assert found.at(0.75) == pytest.approx((1, 0.5, 2 / 3))
    assert found.at(0.95) == (0, 0, 0)


def test_a_detection_on_a_crowd_does_not_count() -> None:
    found = curves(data_set([0, 0], [False, True]), guess(BOXES[:2], [0, 0], [0.9, 0.8]))["disc"]
    assert (found.truths, len(found.scores), found.precision[-1]) == (1, 1, 1.0)


def test_a_small_detection_inside_a_crowd_does_not_count() -> None:
    truth, inside = data_set([0, 0], [False, True]), np.array([[22, 2, 25, 5]])
    predictions = guess(np.concatenate([BOXES[:1], inside]), [0, 0], [0.9, 0.8])
    assert len(curves(truth, predictions)["disc"].scores) == 1
    table, errors = confusion(truth, predictions, threshold=0.5)
    assert table.tolist() == [[1, 0, 0], [0, 0, 0], [0, 0, 0]]
    assert errors[0].false == 0


def test_classes_are_matched_by_name() -> None:
    found = curves(data_set([0, 1]), guess(BOXES[:2], [1, 0], [0.9, 0.8], names=("ring", "disc")))
    assert found["disc"].recall[-1] == found["ring"].recall[-1] == 1.0


def test_the_recommended_threshold_parts_good_from_bad() -> None:
    boxes = np.concatenate([BOXES, BOXES + 1000])
    found = curves(data_set([0, 0, 0, 0]), guess(boxes, [0] * 8, [0.9, 0.8, 0.8, 0.7, 0.4, 0.3, 0.2, 0.1]))
    threshold, mean = best_threshold(found)
    assert 0.4 < threshold <= 0.7
    assert mean.max() == pytest.approx(1.0)
    assert best_threshold({})[0] == 0.5


def test_confusions_by_hand() -> None:
    # disc found, disc taken for ring, ring missed, one false alarm, one under the threshold
    boxes = np.concatenate([BOXES[[0, 1]], BOXES[[3]] + 500, BOXES[[2]]])
    predictions = guess(boxes, [0, 1, 0, 1], [0.9, 0.8, 0.7, 0.1])
    table, errors = confusion(data_set([0, 0, 1]), predictions, threshold=0.5)
    assert table.tolist() == [[1, 1, 0], [0, 0, 1], [1, 0, 0]]
    assert (errors[0].missed, errors[0].false, errors[0].confused, errors[0].truths) == (1, 1, 1, 3)


def test_an_image_with_nothing_in_it() -> None:
    empty = guess(np.zeros((0, 4)), [], [])
    table, errors = confusion(data_set([]), empty, threshold=0.5)
    assert table.sum() == 0
    assert errors[0].weight[0] == 0
    assert curves(data_set([]), empty) == {}
