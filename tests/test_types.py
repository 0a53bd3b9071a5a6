"""The data that flow check themselves and keep what they are told."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest

from detrx.errors import CheckpointError, MissingBackendError
from detrx.types import Detections, Frame, ModelInfo, Raw

BOXES = np.array([[1, 2, 11, 22], [0, 0, 5, 5]], np.float32)
FOUND = Detections(BOXES, np.array([0.9, 0.4], np.float32), np.array([1, 0]), ("a", "b"), (7, 900))


def test_detections_are_sliced_and_named() -> None:
    assert len(FOUND) == 2
    assert FOUND.names.tolist() == ["b", "a"]
    best = FOUND.above(0.5)
    assert (len(best), best.names.tolist(), best.category_ids) == (1, ["b"], (7, 900))
    assert [label for _, _, label in FOUND] == [1, 0]
    assert len(FOUND[np.array([], dtype=int)]) == 0


def test_nothing_found_is_typed_and_empty() -> None:
    none = FOUND.above(1.0)
    assert none.boxes.shape == (0, 4)
    assert none.boxes.dtype == np.float32
    assert none.names.shape == (0,)
    assert none.to_coco() == []
    assert list(none) == []


def test_shapes_are_checked() -> None:
    with pytest.raises(ValueError, match=r"boxes must have shape \(2, 4\)"):
        Detections(BOXES[:1], FOUND.scores, FOUND.labels)
    with pytest.raises(ValueError, match=r"\(_, _, 3\)"):
        Frame(np.zeros((2, 2), np.uint8), 0, 0.0)
    with pytest.raises(ValueError, match="labels"):
        Raw(np.zeros((1, 2), np.float32), np.zeros((1, 3), np.int64), np.zeros((1, 2, 4), np.float32))


def test_to_coco_speaks_the_data_sets_ids() -> None:
    rows = FOUND.to_coco(image_id="x")
    assert rows[0] == {"image_id": "x", "category_id": 900, "bbox": [1, 2, 10, 20], "score": 0.9}
    assert rows[1]["category_id"] == 7
    json.dumps(rows)


def test_to_supervision_hands_over_arrays_and_names(monkeypatch: pytest.MonkeyPatch) -> None:
    fake = SimpleNamespace(Detections=lambda **given: given)
    monkeypatch.setitem(sys.modules, "supervision", fake)  # type: ignore[arg-type]
    given = replace(FOUND, tracks=np.array([3, -1])).to_supervision()
    assert given["tracker_id"].tolist() == [3, -1]
    np.testing.assert_array_equal(given["xyxy"], BOXES)
    assert given["data"]["class_name"].tolist() == ["b", "a"]
    monkeypatch.setitem(sys.modules, "supervision", None)  # type: ignore[arg-type]
    with pytest.raises(MissingBackendError, match="pip install supervision"):
        FOUND.to_supervision()


def test_model_info_survives_json_and_refuses_nonsense() -> None:
    info = ModelInfo("rt-n", ("a", "b"), (7, 900), (64, 96))
    assert ModelInfo.from_json(info.to_json()) == info
    for text in ("", "[]", "{}", '{"model": 1}', info.to_json().replace("96", "97")):
        with pytest.raises(CheckpointError, match="ModelInfo"):
            ModelInfo.from_json(text)
    with pytest.raises(ValueError, match="equally long"):
        ModelInfo("m", ("a",), (), (64, 64))
