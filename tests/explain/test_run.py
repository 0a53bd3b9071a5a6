"""An explanation from end to end: files, numbers, page, and what users bring."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

import detrx
from detrx.data.synthetic import write_coco
from detrx.errors import ConfigError, DataError, SourceError
from detrx.images import read_image

Photo = NDArray[np.uint8]


def scenes(page: Path) -> list[dict]:
    text = page.read_text()
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', text, re.DOTALL)
    assert found
    return json.loads(found[1])


def write_photo(path: Path, photo: Photo) -> Path:
    cv2.imwrite(str(path), photo[..., ::-1])
    return path


def test_rt_on_a_folder(rt: Path, photo: Photo, tmp_path: Path) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    write_photo(pictures / "a.png", photo)
    (pictures / "b.png").write_bytes(b"no picture")
    report = detrx.explain(rt, pictures, out=tmp_path / "out", threshold=0.0, most=1, device="cpu")
    assert len(report.notes) == 2
    assert "12 detections reach 0; 1 explained" in report.notes[0]
    assert "b.png: skipped" in report.notes[1]
    assert all(path.stat().st_size for path in report.files)
    names = {path.name for path in report.files}
    assert {
        "found.png",
        "detection-1.png",
        "decoder.png",
        "levels.png",
        "numbers.json",
        "numbers.npz",
    } <= names
    assert max(read_image(tmp_path / "out" / "a" / "found.png").shape) == 800
    with np.load(tmp_path / "out" / "a" / "numbers.npz") as arrays:
        assert arrays["locations"].shape == (2, 1, 8, 12, 2)
    listed = json.loads((tmp_path / "out" / "a" / "numbers.json").read_text())["detections"][0]
    levels = listed["layers"][-1]
    assert sum(one["weight_inside_box"] + one["weight_outside"] for one in levels) == pytest.approx(
        1, abs=1e-3
    )
    (scene,) = scenes(report.page)
    bars = scene["subjects"][0]["views"][0]["bars"]
    assert [bar["name"] for bar in bars] == ["stride 16", "stride 32"]
    assert bars[0]["inside"] == pytest.approx(levels[0]["weight_inside_box"], abs=1e-3)


def test_detr_with_points_and_heads(detr: Path, photo: Photo, tmp_path: Path) -> None:
    report = detrx.explain(
        detr, photo, out=tmp_path, points=[(10, 10)], threshold=0.0, most=1, per_head=True, device="cpu"
    )
    (scene,) = scenes(report.page)
    assert [subject["title"].split()[0] for subject in scene["subjects"]] == ["point", "1"]
    views = scene["subjects"][0]["views"]
    assert [view["title"] for view in views] == ["all heads", "head 1", "head 2", "head 3", "head 4"]
    jpeg = base64.b64decode(views[0]["source"].partition(",")[2])
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), cv2.IMREAD_COLOR).shape[1] == 800
    names = {path.name for path in report.files}
    assert {
        "encoder.png",
        "decoder.png",
        "point-1.png",
        "point-1-head-4.png",
        "detection-1-head-2.png",
    } <= names


def test_the_page_needs_nothing_else(rt: Path, photo: Photo, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "scenes", train=1, val=2, size=(64, 96))
    named = write_photo(tmp_path / "a<b.png", photo)
    report = detrx.explain(
        rt, named, data=data, split="val", out=tmp_path / "out", most=1, slots=3, device="cpu"
    )
    text = report.page.read_text()
    assert "http" not in re.sub(r"data:image/\w+;base64,[\w+/=]+", "", text)
    assert "prefers-color-scheme: dark" in text
    assert "learns no queries" in text
    assert scenes(report.page)[0]["name"] == "a<b.png"
    assert report.use is not None
    assert report.use.scores.shape == (2, 12)
    assert {"slots.png", "use.png", "slots.json", "slots.npz"} <= {path.name for path in report.files}


def test_boxes_of_slots_are_shares_of_the_picture(detr: Path, tmp_path: Path) -> None:
    data = write_coco(tmp_path / "scenes", train=1, val=1, size=(50, 120))
    report = detrx.explain(detr, data=data, split="val", out=tmp_path / "out", threshold=0.0, device="cpu")
    assert report.use is not None
    (picture,) = (data / "val").iterdir()
    with detrx.Detector(detr, device="cpu", threshold=0.0) as detector:
        best = detector.predict(picture)
    query = int(report.use.scores[0].argmax())
    cx, cy, width, height = report.use.boxes[0, query] * np.array([120, 50, 120, 50])
    wanted = best.boxes[0]
    np.testing.assert_allclose(
        [cx - width / 2, cy - height / 2, cx + width / 2, cy + height / 2], wanted, atol=0.1
    )
    assert report.use.learned


def test_two_pictures_of_one_name_keep_apart(rt: Path, photo: Photo, tmp_path: Path) -> None:
    for folder in ("one", "two"):
        (tmp_path / "in" / folder).mkdir(parents=True)
        write_photo(tmp_path / "in" / folder / "a.png", photo)
    report = detrx.explain(rt, tmp_path / "in", out=tmp_path / "out", most=1, device="cpu")
    assert {path.parent.name for path in report.files} == {"a", "a-2"}
    less = detrx.explain(rt, tmp_path / "in", out=tmp_path / "less", most=1, limit=1, device="cpu")
    assert (len(less.notes), less.left) == (1, 1)


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({}, ConfigError, "a picture or a data set must be given"),
        ({"picture": "nowhere.jpg"}, SourceError, "nothing at 'nowhere.jpg'"),
        ({"picture": "rtsp://camera"}, ConfigError, "must be a file, a folder or a pattern"),
        ({"picture": 0}, TypeError, "image must be"),
        ({"picture": "0"}, ConfigError, "must be a file"),
        ({"picture": "x.jpg", "threshold": 2}, ConfigError, r"threshold must be in \[0, 1\]"),
        ({"picture": "x.jpg", "most": 0}, ConfigError, "most must be 1 or more"),
        ({"data": "nowhere"}, DataError, "must be a folder"),
    ],
)
def test_mistakes_are_explained(
    rt: Path, tmp_path: Path, settings: dict, error: type[Exception], words: str
) -> None:
    with pytest.raises(error, match=words):
        detrx.explain(rt, **settings, out=tmp_path / "out", device="cpu")


def test_a_lone_broken_picture_and_an_empty_data_set(rt: Path, tmp_path: Path) -> None:
    broken = tmp_path / "x.png"
    broken.write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"x\.png"):
        detrx.explain(rt, broken, out=tmp_path / "out", device="cpu")
    empty = {"images": [], "annotations": [], "categories": [{"id": 1, "name": "cell"}]}
    (tmp_path / "coco_test.json").write_text(json.dumps(empty))
    with pytest.raises(DataError):
        detrx.explain(rt, data=tmp_path, out=tmp_path / "out", device="cpu")


def test_a_video_is_no_picture(rt: Path, tmp_path: Path) -> None:
    path = tmp_path / "a.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 5, (64, 64))
    writer.write(np.zeros((64, 64, 3), np.uint8))
    writer.release()
    with pytest.raises(ConfigError, match="take frames out of it"):
        detrx.explain(rt, path, out=tmp_path / "out", device="cpu")
