"""What ``detrx detect`` leaves behind of a panoptic model: pictures, and files that the reader of data sets takes."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

from detrx import panoptic_ids
from detrx.cli.main import main
from detrx.data.document import load_document
from detrx.data.panoptic import read_panoptic, segments_of
from detrx.draw import colour
from detrx.images import read_image
from detrx.live.panoptic_sink import PanopticSink
from detrx.live.sink import Shown
from detrx.types import Detections, Frame, Panoptic, Segment

SCENES = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "panoptic_scenes.py")))


def test_from_pictures_to_files(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("detrx.detector.open_backend", lambda *_, **__: SCENES.Knowing())
    monkeypatch.setattr("detrx.detector.find_model", Path)
    pictures, out = tmp_path / "pictures", tmp_path / "out"
    for number in range(2):
        SCENES.write_png(pictures / f"{number}.png", SCENES.scene(number)[0])
    assert main(["detect", str(pictures), "--model", "m.onnx", "--out", str(out)]) == 0
    assert "panoptic.json" in capsys.readouterr().out
    # The folder may be opened as a data set.
    file = out / "panoptic.json"
    file.write_text(file.read_text().replace(f"{pictures}/", ""))
    found = read_panoptic(
        load_document(file), file, image_root=pictures, segment_root=out / "panoptic", max_bad=0
    )
    assert (found.names, found.things, len(found)) == (SCENES.INFO.names, SCENES.INFO.things, 2)
    for number, record in enumerate(found.images):
        truth = SCENES.scene(number)[1]
        assert (segments_of(record)[0] == np.array([0, 1, 1, 2, 3])[truth]).all()
    drawn = read_image(out / "pictures" / "0.jpg").astype(int)
    sky = drawn[2, 2]
    assert np.abs(sky - (0.45 * np.array((110, 160, 240)) + 0.55 * np.array(colour(2)))).max() < 12


def test_a_model_that_knows_no_things(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Plain(SCENES.Knowing):
        info = type(SCENES.INFO)("plain", SCENES.INFO.names, SCENES.INFO.category_ids, SCENES.INFO.canvas)

    monkeypatch.setattr("detrx.detector.open_backend", lambda *_, **__: Plain())
    monkeypatch.setattr("detrx.detector.find_model", Path)
    SCENES.write_png(tmp_path / "a.png", SCENES.scene(0)[0])
    asked = ["detect", str(tmp_path / "a.png"), "--out", str(tmp_path / "out"), "--save", "panoptic"]
    assert main(asked) == 2
    assert "tell things from stuff" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_frames_of_a_film_and_pictures_of_one_name(tmp_path: Path) -> None:
    sink = PanopticSink(tmp_path / "found.json", SCENES.INFO)
    image = np.zeros((4, 6, 3), np.uint8)
    panoptic = Panoptic(np.full((4, 6), 1, np.int32), (Segment(1, 0, 7, True, 24, 0.9),), SCENES.INFO.names)
    none = Detections(np.zeros((0, 4), np.float32), np.zeros(0, np.float32), np.zeros(0, np.int64))
    names = ["film.mp4", "film.mp4"]
    for folder in ("a", "b"):
        SCENES.write_png(tmp_path / folder / "x.png", image)
        names.append(str(tmp_path / folder / "x.png"))
    for index, name in enumerate(names):
        sink.write(Shown(Frame(image, index, 0.0, name), none, image, panoptic=panoptic))
    sink.close()
    sink.close()
    document = json.loads((tmp_path / "found.json").read_text())
    assert [one["file_name"] for one in document["images"]] == [
        "film.mp4#0",
        "film.mp4#1",
        *names[2:],
    ]
    pngs = [one["file_name"] for one in document["annotations"]]
    assert pngs == ["frame_000000.png", "frame_000001.png", "x.png", "x_000003.png"]
    for png in pngs:
        assert (panoptic_ids.from_rgb(read_image(tmp_path / "found" / png)) == 1).all()
