"""Detector: pictures in, objects out, whoever asks (faults rows 54 to 57)."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx import Detector
from detrx.errors import ConfigError, DataError, DeviceError
from detrx.types import Detections

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
cv2 = pytest.importorskip("cv2")
TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parent / "tiny_model.py"))
write_model = TINY["write_model"]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    found: Path = write_model(tmp_path / "tiny.onnx", batch=None)
    return found


def picture(seed: int = 0, size: tuple[int, int] = (128, 192)) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def same(a: Detections, b: Detections) -> bool:
    return all(np.array_equal(getattr(a, n), getattr(b, n)) for n in ("boxes", "scores", "labels"))


def test_objects_come_in_pixels_best_first(model: Path) -> None:
    with Detector(model) as detector:
        found = detector.predict(np.full((128, 192, 3), 114, np.uint8))
    assert found.names.tolist() == ["star", "disc", "ring"]
    np.testing.assert_allclose(found.boxes[0], [48, 32, 144, 96], atol=1e-3)
    assert found.category_ids == (7, 3, 900)
    assert found.scores.dtype == np.float32
    assert (np.diff(found.scores) <= 0).all()


def test_masks_come_in_pixels_of_the_picture(tmp_path: Path) -> None:
    plain = Detector(write_model(tmp_path / "plain.onnx", batch=None))
    with Detector(
        write_model(tmp_path / "m.onnx", batch=None, masks=TINY["MASKS"]), threshold=0.5
    ) as detector:
        wide, high = detector.predict([np.full((128, 192, 3), 114, np.uint8), picture(size=(128, 64))])
    assert plain.predict(picture()).masks is None
    assert wide.masks is not None
    assert wide.masks.shape == (3, 128, 192)
    # Cell (2, 4) of 8 x 12 on a picture of 16 pixels a cell; half of the way to the neighbours is positive.
    assert wide.masks[0, 40, 72]
    rows, columns = wide.masks[0].nonzero()
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (32, 47, 64, 79)
    # The high picture lies in columns 32 to 63 of the canvas, half as large: each cell is 16 of its pixels again.
    assert high.masks is not None
    assert high.masks.shape == (3, 128, 64)
    assert high.masks[0, 40, 8]
    first = high.to_coco()[0]["segmentation"]
    assert first["size"] == [128, 64]


def test_a_mask_that_is_not_finite_is_dropped(tmp_path: Path) -> None:
    masks = TINY["MASKS"].copy()
    masks[1, 0, 0] = np.nan
    with Detector(write_model(tmp_path / "m.onnx", masks=masks)) as detector:
        assert detector.predict(picture()).names.tolist() == ["star", "ring"]
        assert detector.dropped == 1


def test_all_kinds_of_picture_agree(model: Path, tmp_path: Path) -> None:
    image = pytest.importorskip("PIL.Image")
    array = picture()
    path = tmp_path / "a.png"
    cv2.imwrite(str(path), array[..., ::-1])
    detector = Detector(model)
    wanted = detector.predict(array)
    assert same(detector.predict(str(path)), wanted)
    assert same(detector.predict(path), wanted)
    assert same(detector.predict(image.fromarray(array)), wanted)
    assert same(detector.predict(array[..., ::-1], bgr=True), wanted)
    both = detector.predict([path, array])
    assert isinstance(both, list)
    assert same(both[0], wanted)
    assert same(both[1], wanted)
    assert detector.predict([]) == []


@pytest.mark.parametrize(("fixed", "asked"), [(None, 3), (None, None), (1, None), (4, 2)])
def test_batches_change_nothing(tmp_path: Path, fixed: int | None, asked: int | None) -> None:
    detector = Detector(write_model(tmp_path / "m.onnx", batch=fixed), batch=asked)
    images = [picture(seed, (60 + seed, 90)) for seed in range(7)]
    for one, found in zip(images, detector.predict(images)):
        assert same(detector.predict(one), found)


def test_pictures_are_never_written_to(model: Path) -> None:
    image = picture(size=(64, 96))
    before = image.copy()
    image.flags.writeable = False
    Detector(model).predict(image)
    np.testing.assert_array_equal(image, before)


@pytest.mark.parametrize(
    ("bad", "error"),
    [
        (None, TypeError),
        (np.zeros((4, 4, 3)), TypeError),
        (np.zeros((2, 4, 4, 3), np.uint8), ValueError),
        (np.zeros((4, 0, 3), np.uint8), ValueError),
        (7, TypeError),
    ],
)
def test_what_is_no_picture_is_refused_with_its_index(
    model: Path, bad: object, error: type[Exception]
) -> None:
    detector = Detector(model)
    with pytest.raises(error, match=r"Detector\.predict"):
        detector.predict(bad)
    with pytest.raises(error, match="image 2 of the list"):
        detector.predict([picture(), picture(), bad])


def test_an_unreadable_file_is_named(model: Path, tmp_path: Path) -> None:
    (tmp_path / "bad.jpg").write_bytes(b"<html>")
    with pytest.raises(DataError, match=r"bad\.jpg"):
        Detector(model).predict(tmp_path / "bad.jpg")
    with pytest.raises(DataError, match=r"image 0 .*none\.jpg"):
        Detector(model).predict([tmp_path / "none.jpg"])


def test_broken_answers_are_dropped_and_counted(tmp_path: Path) -> None:
    boxes = TINY["BOXES"].copy()
    boxes[1, 2] = np.inf
    path = write_model(
        tmp_path / "m.onnx",
        scores=np.array([np.nan, 0.9, 0.8, 0.7], np.float32),
        labels=np.array([0, 0, 99, 1]),
        boxes=boxes,
    )
    detector = Detector(path)
    found = detector.predict(picture())
    assert found.names.tolist() == ["ring"]
    assert detector.dropped == 3


def test_ties_keep_the_models_order(tmp_path: Path) -> None:
    path = write_model(tmp_path / "m.onnx", scores=np.array([0.5, 0.9, 0.5, 0.5], np.float32))
    found = Detector(path).predict(picture())
    assert found.labels.tolist() == [0, 2, 1, 0]


def test_nothing_above_the_threshold_is_empty_and_typed(model: Path) -> None:
    found = Detector(model, threshold=1.0).predict(picture())
    assert found.boxes.shape == (0, 4)
    assert found.labels.dtype == np.int64
    assert found.class_names == ("disc", "ring", "star")


def test_eight_threads_find_what_one_finds(model: Path) -> None:
    detector = Detector(model, threads=1)
    images = [picture(seed, (60 + seed, 200 - seed)) for seed in range(40)]
    serial = [detector.predict(image) for image in images]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(3):
            assert all(map(same, pool.map(detector.predict, images), serial))


def test_closed_says_so(model: Path) -> None:
    detector = Detector(model)
    detector.close()
    detector.close()
    with pytest.raises(DeviceError, match="closed"):
        detector.predict(picture())
    with pytest.raises(DeviceError, match="closed"):
        detector.warmup()
    assert "closed" in repr(detector)


def test_after_a_fork_says_so(model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    detector = Detector(model)
    monkeypatch.setattr(os, "getpid", lambda: -1)
    with pytest.raises(DeviceError, match="spawn"):
        detector.predict(picture())


def test_the_process_ends_quietly_with_an_open_detector(model: Path) -> None:
    code = (
        "import sys, numpy as np, detrx\n"
        "d = detrx.Detector(sys.argv[1])\n"
        "print(len(d.predict(np.zeros((64, 96, 3), np.uint8))))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(model)], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stdout.strip(), done.stderr) == (0, "3", "")


def test_settings_are_checked(model: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="threshold"):
        Detector(model, threshold=1.5)
    with pytest.raises(ConfigError, match="batch"):
        Detector(model, batch=0)
    with pytest.raises(ConfigError, match="takes 1 images"):
        Detector(write_model(tmp_path / "one.onnx"), batch=2)
    with pytest.raises(ConfigError, match="no such file or model: rt-z"):
        Detector("rt-z")
    with pytest.raises(ConfigError, match=r"best\.safetensors"):
        Detector(tmp_path / "..")


def test_stream_gives_frames_with_their_objects(model: Path, tmp_path: Path) -> None:
    for name in "ab":
        cv2.imwrite(str(tmp_path / f"{name}.png"), picture())
    seen = [
        (frame.index, Path(frame.name).name, len(found)) for frame, found in Detector(model).stream(tmp_path)
    ]
    assert seen == [(0, "a.png", 3), (1, "b.png", 3)]


MEMORY = """
import sys, numpy as np, detrx
from detrx.bench import resident_mb
d = detrx.Detector(sys.argv[1])
image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
for _ in range(100): d.predict(image)
before = resident_mb()
for _ in range(400): d.predict(image)
print(before, resident_mb())
"""


@pytest.mark.skipif(not Path("/proc/self/statm").is_file(), reason="memory is read from /proc")
def test_memory_is_small_and_constant(model: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY, str(model)], capture_output=True, text=True, timeout=100, check=True
    )
    before, after = map(float, done.stdout.split())
    assert after < 350
    assert after - before < 3
