"""Tracking metrics of films small enough to count by hand, and the files they come in."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detrx.cli.main import main
from detrx.errors import DataError
from detrx.evaluation.track_files import read_tracks, write_mot
from detrx.evaluation.tracking import TrackCounts, as_row, count, score
from detrx.types import Detections

Objects = dict[int, float]
"""Number -> left edge of a box of 10 x 10."""


def film(*frames: Objects, scores: dict[int, float] | None = None, label: int = 0) -> dict[int, Detections]:
    return {
        at: Detections(
            np.array([[x, 0, x + 10, 10] for x in frame.values()], np.float32).reshape(-1, 4),
            np.array([(scores or {}).get(number, 1.0) for number in frame], np.float32),
            np.full(len(frame), label),
            tracks=np.array(list(frame), np.int64),
        )
        for at, frame in enumerate(frames)
    }


TWO = film(*[{1: 0.0, 2: 100.0}] * 4)


def test_what_is_followed_without_fault_is_one() -> None:
    found = score(TWO, film(*[{7: 0.0, 5: 100.0}] * 4))
    assert (found.hota, found.det_a, found.ass_a, found.idf1, found.mota, found.motp) == pytest.approx(
        (1,) * 6
    )
    assert (found.switches, found.fragments, found.missed, found.false) == (0, 0, 0, 0)
    assert (found.mostly_tracked, found.objects, found.tracks, found.frames) == (2, 2, 2, 4)


def test_an_exchange_of_numbers_is_two_switches() -> None:
    """Half of each object's life has one number, half the other: each pair has 2 of 4 + 4 - 2 frames."""
    found = score(TWO, film(*[{7: 0.0, 5: 100.0}] * 2, *[{5: 0.0, 7: 100.0}] * 2))
    assert (found.switches, found.fragments) == (2, 0)
    assert found.mota == pytest.approx(1 - 2 / 8)
    assert found.idf1 == pytest.approx(0.5)
    assert found.ass_a == pytest.approx(1 / 3)
    assert found.hota == pytest.approx((1 / 3) ** 0.5)
    assert found.det_a == 1


def test_a_gap_is_a_fragment_and_what_is_missed_or_false_counts() -> None:
    found = score(TWO, film({7: 0.0, 5: 100.0}, {7: 0.0}, {}, {7: 0.0, 5: 100.0, 9: 300.0}))
    assert (found.missed, found.false, found.fragments, found.switches) == (3, 1, 2, 0)
    assert found.mota == pytest.approx(1 - 4 / 8)
    assert found.idf1 == pytest.approx(2 * 5 / (8 + 6))
    assert found.det_a == pytest.approx(5 / 9)
    assert found.ass_a == pytest.approx((3 * 3 / 4 + 2 * 2 / 4) / 5)
    assert (found.mostly_tracked, found.mostly_lost) == (0, 0)


def test_overlap_decides_at_each_step() -> None:
    """Shifted by 2 of 10 pixels the overlap is 8 / 12: found at the 13 steps up to 0.65."""
    found = score(TWO, film(*[{7: 2.0, 5: 102.0}] * 4))
    assert found.motp == pytest.approx(2 / 3)
    assert found.det_a == pytest.approx(13 / 19)
    assert found.hota == pytest.approx(13 / 19)
    assert found.mota == 1
    assert score(TWO, film(*[{7: 6.0, 5: 106.0}] * 4)).mota == -1


def test_a_pair_goes_on_while_another_box_comes_nearer() -> None:
    near = film({7: 0.0}, {7: 3.0, 8: 0.0}, {7: 0.0})
    assert score(film(*[{1: 0.0}] * 3), near).switches == 0
    assert score(film(*[{1: 0.0}] * 3), film({7: 0.0}, {7: 6.0, 8: 0.0}, {7: 0.0})).switches == 2


def test_classes_and_what_does_not_count() -> None:
    other = film(*[{7: 0.0, 5: 100.0}] * 4, label=1)
    assert score(TWO, other).mota == 1
    assert score(TWO, other, by_class=True).mota == -1
    unsure = film(*[{1: 0.0, 2: 100.0}] * 4, scores={2: 0.0})
    for tracks in ({7: 0.0, 5: 100.0}, {7: 0.0}):
        found = score(unsure, film(*[tracks] * 4))
        assert (found.mota, found.objects, found.tracks) == (1, 1, 1)


def test_counts_add_up_and_nothing_is_no_number() -> None:
    parts = [count(TWO, film(*[{7: 0.0, 5: 100.0}] * 4)), count(TWO, {})]
    both = sum(parts, TrackCounts()).metrics()
    assert (both.mota, both.idf1, both.missed) == pytest.approx((0.5, 2 * 8 / 24, 8))
    assert (both.det_a, both.ass_a) == pytest.approx((0.5, 1))
    nothing = score({}, {})
    assert np.isnan(nothing.hota)
    assert np.isnan(nothing.mota)
    assert json.loads(json.dumps(as_row(nothing)))["idf1"] is None
    assert score({}, TWO).false == 8
    with pytest.raises(DataError, match="frame 0: each number must stand once"):
        score(film({1: 0.0}), {0: film({1: 0.0})[0][np.array([0, 0])]})


def test_files_of_both_kinds(tmp_path: Path) -> None:
    objects = [{"box": [0, 0, 10, 10], "score": 0.9, "label": 3, "track": 4}, {"box": [0, 0, 1, 1]}]
    lines = [{"frame": at, "objects": objects} for at in range(2)]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    found = read_tracks(str(tmp_path / "a.jsonl"))
    assert {frame: (one.tracks.tolist(), one.labels.tolist()) for frame, one in found.items()} == {
        0: ([4], [3]), 1: ([4], [3])
    }  # fmt: skip
    (tmp_path / "a.txt").write_text(write_mot(found))
    again = read_tracks(str(tmp_path / "a.txt"))
    np.testing.assert_allclose(again[1].boxes, found[1].boxes)
    assert again[0].scores.tolist() == found[0].scores.tolist()


def test_a_truth_of_motchallenge_marks_what_counts(tmp_path: Path) -> None:
    rows = ["1,1,1,1,9,9,1,1,1", "1,2,50,1,9,9,0,1,1", "1,3,80,1,9,9,0,8,1", "1,4,120,1,9,9,0,3,1"]
    (tmp_path / "gt.txt").write_text("\n".join(rows) + "\n")
    truth = read_tracks(str(tmp_path / "gt.txt"), truth=True)
    assert truth[0].tracks.tolist() == [1, 3]
    assert truth[0].scores.tolist() == [1, 0]


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("a.txt", "1,2,3\n", "line 1: must be FRAME,ID,LEFT,TOP"),
        ("a.txt", "1,1,0,0,5,5,1\n0,1,0,0,5,5,1\n", "line 2: frames are counted from 1"),
        ("a.txt", "1,1,0,0,x,5,1\n", "line 1: could not convert"),
        ("a.jsonl", '{"frame": 0}\n', "line 1: 'objects'"),
        ("a.csv", "", "read from .jsonl, .txt"),
    ],
)
def test_a_bad_line_is_told_where(tmp_path: Path, name: str, text: str, says: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(DataError, match=says):
        read_tracks(str(tmp_path / name))
    with pytest.raises(DataError, match="cannot be read"):
        read_tracks(str(tmp_path / "none.txt"))


def test_the_truth_of_scenes_and_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("cv2")
    uri = "test://shapes?size=96x128&frames=12&cut=6&seed=5"
    truth = read_tracks(uri)
    assert len(truth) == 12
    assert set(truth[0].tracks) & set(truth[5].tracks)
    assert not set(truth[0].tracks) & set(truth[6].tracks)
    for folder in ("one", "two"):
        (tmp_path / "truth" / folder / "gt").mkdir(parents=True)
        (tmp_path / "truth" / folder / "gt" / "gt.txt").write_text(write_mot(truth))
        (tmp_path / f"{folder}.txt").write_text(write_mot(truth))
    assert main(["tracks", uri, str(tmp_path / "one.txt"), "--out", str(tmp_path / "m.json")]) == 0
    assert json.loads((tmp_path / "m.json").read_text())["one"]["hota"] == pytest.approx(1, abs=1e-3)
    assert main(["tracks", str(tmp_path / "truth"), str(tmp_path)]) == 0
    assert " all " in capsys.readouterr().out
    (tmp_path / "two.txt").unlink()
    assert main(["tracks", str(tmp_path / "truth"), str(tmp_path)]) == 2
    assert "must hold two.txt" in capsys.readouterr().err
