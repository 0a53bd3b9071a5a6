"""The look over a data set: counts, findings, report files, exit code."""

from __future__ import annotations

import json

import pytest

from detrx.cli.data import run
from detrx.data.check import check
from detrx.data.synthetic import CLASS_NAMES, write_coco
from detrx.errors import ConfigError, DataError

pytest.importorskip("cv2")


@pytest.fixture
def folder(tmp_path):
    return write_coco(tmp_path / "set", train=4, val=2, size=(96, 128), seed=1)


def test_a_sound_data_set(folder, tmp_path, capsys):
    out = tmp_path / "report"
    assert run(["check", str(folder), "--out", str(out)]) == 0
    found = json.loads((out / "report.json").read_text())
    assert found["sound"]
    assert [s["images"] for s in found["splits"]] == [4, 2]
    train = found["splits"][0]
    assert list(train["classes"]) == list(CLASS_NAMES)
    assert sum(train["classes"].values()) == sum(train["sizes"]) == train["boxes"]
    page = (out / "report.html").read_text()
    assert page.count("data:image/jpeg;base64,") == 6
    assert "http" not in page
    assert "report.html" in capsys.readouterr().out


def test_a_broken_picture_is_named_and_gives_two(folder, tmp_path, capsys):
    victim = folder / "val" / "000001.jpg"
    victim.write_bytes(victim.read_bytes()[:800])
    assert run(["check", str(folder), "--out", str(tmp_path / "report")]) == 2
    assert "000001.jpg" in capsys.readouterr().err
    result = check(folder, max_bad=0.5)
    assert result.splits[1].skipped == {"image: file is broken": 1}


def test_a_wrong_suffix_warns(folder):
    document = json.loads((folder / "coco_val.json").read_text())
    (folder / "val" / "000001.jpg").rename(folder / "val" / "a.png")
    document["images"][0]["file_name"] = "val/a.png"
    (folder / "coco_val.json").write_text(json.dumps(document))
    result = check(folder)
    assert result.sound
    assert any("a.png is a JPEG by another name" in text for text in result.splits[1].warnings)


def test_names_are_escaped_in_the_page(folder, tmp_path):
    document = json.loads((folder / "coco_val.json").read_text())
    document["categories"][0]["name"] = "<script>alert(1)</script>"
    (folder / "coco_val.json").write_text(json.dumps(document))
    check(folder, out=tmp_path / "report")
    assert "<script>" not in (tmp_path / "report" / "report.html").read_text()


def test_wrong_use(folder, tmp_path, capsys):
    assert run([]) == 2
    assert run(["--help"]) == 0
    with pytest.raises(ConfigError, match="must be check"):
        run(["convert"])
    with pytest.raises(DataError, match="must hold a COCO data set"):
        run(["check", str(tmp_path)])
    (tmp_path / "file").write_text("")
    with pytest.raises(DataError, match="writable"):
        check(folder, out=tmp_path / "file" / "x")
