"""A panoptic model over a data set, from the command line to the page."""

from __future__ import annotations

import json
import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest

from detrx import panoptic_ids
from detrx.cli.main import main
from detrx.errors import ConfigError, DataError
from detrx.evaluation.panoptic_run import evaluate_panoptic, is_panoptic
from detrx.images import read_image

SCENES = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "panoptic_scenes.py")))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return SCENES.write_scenes(tmp_path / "data", pictures=3, splits=("val",))


def know(monkeypatch: pytest.MonkeyPatch, *, blind: bool = False) -> None:
    for place in ("detrx.detector", "detrx.evaluation.panoptic_run"):
        monkeypatch.setattr(f"{place}.open_backend", lambda *_, **__: SCENES.Knowing(blind=blind))
        monkeypatch.setattr(f"{place}.find_model", Path)


def test_the_command_prints_and_writes(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    know(monkeypatch)
    out = tmp_path / "out"
    assert main(["eval", "m.onnx", "--data", str(root), "--split", "val", "--out", str(out)]) == 0
    said = capsys.readouterr().out
    assert [line.split()[1:4:2] for line in said.splitlines() if "grass" in line] == [["grass", "1.0000"]]
    assert "3 images" in said
    metrics = json.loads((out / "metrics.json").read_text())
    # The two discs are one mask to this backend, which is more than half of one of them now and then.
    assert metrics["stuff"]["pq"] == 1.0
    assert 0 < metrics["things"]["pq"] < 0.5
    assert (out / "index.html").read_text().count("<tr>") == 8
    document = json.loads((out / "panoptic.json").read_text())
    assert [one["id"] for one in document["categories"]] == [7, 120, 130]
    for one in document["annotations"]:
        ids = panoptic_ids.from_rgb(read_image(out / "panoptic" / one["file_name"]))
        assert {s["id"]: s["area"] for s in one["segments_info"]} == {
            i: int((ids == i).sum()) for i in (1, 2, 3)
        }
        assert [s["category_id"] for s in one["segments_info"]] == [7, 120, 130]


def test_the_worst_pictures_are_shown(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch, blind=True)
    steps: list[tuple[int, int]] = []
    metrics = evaluate_panoptic(
        "m", data=root, limit=2, out=tmp_path / "out", progress=lambda *step: steps.append(step)
    )
    assert steps == [(1, 2), (2, 2)]
    assert metrics.per_class[SCENES.NAMES[0]].rq == 0
    assert metrics.counts["found"] == 4
    picture = read_image(tmp_path / "out" / "worst.png")
    assert picture.shape == (2 * 426 + 6, 2 * 566 + 6, 3)


def test_what_is_refused(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    know(monkeypatch)
    assert is_panoptic("m", data=root)
    assert not is_panoptic("m", data=tmp_path)
    with pytest.raises(ConfigError, match="limit must be 1 or more"):
        evaluate_panoptic("m", data=root, limit=0)
    file = root / "annotations/panoptic_val.json"
    file.write_text(file.read_text().replace("grass", "lawn"))
    with pytest.raises(DataError, match="same classes"):
        evaluate_panoptic("m", data=root)
