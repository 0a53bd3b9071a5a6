"""Objects keep their numbers: through crossings, low scores, missing frames and a short time out of sight."""

from __future__ import annotations

import json
import runpy
from itertools import permutations
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx import native
from detrx.data.synthetic import Scenes, visible_box
from detrx.draw import draw
from detrx.errors import ConfigError
from detrx.live.job import DetectConfig, detect
from detrx.live.motion import Motion
from detrx.live.pairs import overlaps, pair, shortest_paths
from detrx.live.track import TrackConfig, Tracker, worth_showing
from detrx.types import Detections

TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))
FPS = 30


def found(*objects: tuple[float, float, float], side: float = 40, labels: tuple[int, ...] = ()) -> Detections:
    """Squares of (x, y, score)."""
    rows = np.array(objects, np.float32).reshape(-1, 3)
    boxes = np.hstack((rows[:, :2] - side / 2, rows[:, :2] + side / 2))
    return Detections(boxes, rows[:, 2], np.array(labels or [0] * len(rows), np.int64), ("a", "b"))


def follow(
    frames: list[Detections], config: TrackConfig | None = None, *, fps: float = FPS
) -> list[list[int]]:
    tracker = Tracker(config)
    return [tracker.update(one, seconds=at / fps).tracks.tolist() for at, one in enumerate(frames)]


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (5, 2), (4, 6)])
def test_pairs_have_the_greatest_gain(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(sum(shape))
    for _ in range(20):
        gain = rng.uniform(0, 1, shape) * (rng.uniform(size=shape) > 0.3)
        wide = gain if shape[0] <= shape[1] else gain.T
        best = max(
            sum(wide[row, column] for row, column in enumerate(columns))
            for columns in permutations(range(wide.shape[1]), len(wide))
        )
        assert -(-wide)[np.arange(len(wide)), shortest_paths(-wide)].sum() == pytest.approx(best)
        for built in (True, False):
            with monkeypatch.context() as patch:
                if not built:
                    patch.setattr(native, "find", lambda name: None)
                rows, columns = pair(gain, least=1e-9)
            assert gain[rows, columns].sum() == pytest.approx(best, abs=1e-6)
            assert len(set(rows)) == len(rows) == len(set(columns))
    assert pair(np.full(shape, 0.1), least=0.2)[0].size == 0
    assert pair(np.zeros((0, 3)), least=0.2)[1].size == 0


def test_overlaps_are_intersection_over_union() -> None:
    boxes = np.array([[0, 0, 10, 10], [5, 0, 15, 10], [20, 20, 20, 20]], float)
    np.testing.assert_allclose(overlaps(boxes, boxes), [[1, 1 / 3, 0], [1 / 3, 1, 0], [0, 0, 0]], atol=1e-6)


def test_motion_is_the_kalman_filter_of_eight_states() -> None:
    """Against the textbook's matrices, from the same noise."""
    rng = np.random.default_rng(1)
    motion = Motion(np.array([[10.0, 20, 50, 100]]))
    x = np.concatenate((motion.at[0], np.zeros(4)))
    h = x[3]
    p = np.diag([h / 10, h / 10, 2e-2, h / 10, h / 16, h / 16, 1e-4, h / 16]) ** 2
    for step in range(8):
        f = np.eye(8) + np.eye(8, k=4)
        h = x[3]
        x, p = (
            f @ x,
            f @ p @ f.T + np.diag([h / 20, h / 20, 1e-2, h / 20, h / 160, h / 160, 1e-5, h / 160]) ** 2,
        )
        motion.predict(1 / 30, unseen=np.zeros(1, bool))
        box = np.array([[10.0, 20, 50, 100]]) + 3 * step + rng.normal(size=(1, 4))
        z = np.array([box[0, [0, 2]].mean(), box[0, [1, 3]].mean(), 0, box[0, 3] - box[0, 1]])
        z[2] = (box[0, 2] - box[0, 0]) / z[3]
        noise = np.diag([x[3] / 20, x[3] / 20, 0.1, x[3] / 20]) ** 2
        k = p[:, :4] @ np.linalg.inv(p[:4, :4] + noise)
        x, p = x + k @ (z - x[:4]), p - k @ p[:4]
        motion.correct(np.array([0]), box)
        np.testing.assert_allclose(np.concatenate((motion.at[0], motion.speed[0])), x, rtol=1e-9, atol=1e-9)


def test_numbers_stay_while_objects_cross_and_change_places() -> None:
    frames = [found((50 + 6 * t, 100, 0.9), (350 - 6 * t, 130, 0.8)) for t in range(50)]
    frames = [one if t % 2 else one[::-1] for t, one in enumerate(frames)]
    ids = follow(frames)
    assert [row if t % 2 else row[::-1] for t, row in enumerate(ids)] == [ids[0][::-1]] * 50
    assert sorted(ids[0]) == [1, 2]


def test_a_low_score_goes_on_with_a_track_but_begins_none() -> None:
    frames = [found((50 + 3 * t, 60, 0.9 if t < 5 or t > 20 else 0.15), (300, 60, 0.15)) for t in range(30)]
    assert follow(frames) == [[1, -1]] * 30
    assert follow(frames, TrackConfig(low=0.2))[10] == [-1, -1]
    last = Tracker().update(frames[0], seconds=0)
    assert len(worth_showing(last, 0.95)) == 1
    assert len(worth_showing(frames[0], 0.95)) == 0


def test_a_short_time_out_of_sight_keeps_the_number_and_a_long_one_does_not() -> None:
    def film(gap: int) -> list[Detections]:
        seen = [found((50 + 4 * t, 60, 0.9)) for t in range(10 + gap, 40 + gap)]
        return [found((50 + 4 * t, 60, 0.9)) for t in range(10)] + [found()] * gap + seen

    assert follow(film(20))[-1] == [1]
    assert follow(film(60))[-1] == [2]
    assert follow(film(60), TrackConfig(lost=2.5))[-1] == [1]


def test_time_and_not_the_count_of_frames_moves_a_track() -> None:
    """30 pixels of 40 from frame to frame overlap too little, unless the time that was dropped is known."""
    times = [*range(20), 24, 25, 35, 36]
    for clock, last in ((times, 1), (list(range(len(times))), 3)):
        tracker = Tracker()
        for at, now in zip(times, clock):
            ids = tracker.update(found((50 + 10 * at, 60, 0.9)), seconds=now / FPS).tracks.tolist()
        assert ids == [last]
    tracker = Tracker()
    assert [tracker.update(found((50, 60, 0.9)), seconds=s).tracks.tolist() for s in (5, 5, 1, 2)] == [
        [1]
    ] * 4


def test_a_flash_gets_no_number_and_numbers_have_no_holes() -> None:
    frames = [found((50, 60, 0.9)), found((50, 60, 0.9), (200, 60, 0.9)), found((50, 60, 0.9))]
    late = [found((50, 60, 0.9), (300, 60, 0.9))] * 2
    assert follow(frames + late) == [[1], [1, -1], [1], [1, -1], [1, 2]]


def test_an_object_that_is_named_twice_has_one_number() -> None:
    both = found((50, 60, 0.9), (51, 60, 0.7), (50, 60, 0.6), (150, 60, 0.6), labels=(0, 0, 1, 1))
    swapped = found((50, 60, 0.9), (51, 60, 0.7), (50, 60, 0.6), (150, 60, 0.6), labels=(1, 0, 0, 1))
    assert follow([both] * 3 + [swapped] * 3) == [[1, 2]] * 6
    tracker = Tracker()
    labels = [tracker.update(one, seconds=t / FPS).labels.tolist() for t, one in enumerate((both, swapped))]
    assert labels == [[0, 1], [1, 1]]


def test_two_tracks_of_one_object_become_the_older_one() -> None:
    """What came as two objects and turns out to be one, named twice."""
    frames = [found((50, 60, 0.5), (90 - min(t, 39), 60, 0.9), labels=(0, 1)) for t in range(120)]
    ids = follow(frames)
    assert ids[0] == [1, 2]
    assert ids[-1] == [1]
    assert follow([*frames[:42], *frames[42::-1]])[-1] == [1, 2]


def test_classes_are_kept_apart_unless_told_otherwise() -> None:
    frames = [found((50 + 20 * (t // 5), 60, 0.9), labels=(t // 5,)) for t in range(10)]
    assert follow(frames)[-1] == [2]
    assert follow(frames, TrackConfig(by_class=False))[-1] == [1]
    renamed = [found((50, 60, 0.9), labels=(t // 5,)) for t in range(10)]
    assert follow(renamed)[-1] == [1]
    beside = [found((50, 60, 0.9), (58, 60, 0.9), labels=(t % 2, 1 - t % 2)) for t in range(10)]
    assert follow(beside) == [[1, 2], [2, 1]] * 5
    with pytest.raises(ConfigError, match="lost 0 to 3600"):
        TrackConfig(lost=-1)


def test_tracks_are_kept_sliced_drawn_and_checked() -> None:
    one = Tracker().update(found((50, 60, 0.9), (150, 60, 0.2)), seconds=0)
    assert one.above(0.5).tracks.tolist() == [1]
    picture = np.zeros((200, 300, 3), np.uint8)
    assert (draw(picture, one) != draw(picture, found((50, 60, 0.9), (150, 60, 0.2)))).any()
    with pytest.raises(ValueError, match="tracks"):
        Detections(one.boxes, one.scores, one.labels, tracks=np.zeros(3, np.int64))


def scene(seed: int, t: int, scenes: Scenes) -> tuple[Detections, list[int]]:
    """What a detector would see, best first, and which object each is: boxes shake, scores fall with what is seen."""
    owners, labels, areas = scenes.masks(t)
    rng = np.random.default_rng((seed, t))
    rows = []
    for at, (label, area) in enumerate(zip(labels, areas)):
        box = visible_box(owners, at + 1, area)
        if box is not None and rng.uniform() > 0.1:
            share = (owners == at + 1).sum() / area
            rows.append(
                (min(0.95, share * rng.uniform(0.7, 1)), at, label, np.array(box) + rng.normal(size=4))
            )
    rows.sort(key=lambda row: -row[0])
    boxes = np.array([row[3] for row in rows], np.float32).reshape(-1, 4)
    scores, kinds = (
        np.array([row[0] for row in rows], np.float32),
        np.array([row[2] for row in rows], np.int64),
    )
    return Detections(boxes, scores, kinds), [row[1] for row in rows]


def test_generated_scenes_are_followed_through_missed_and_covered_objects() -> None:
    """Where a tenth of all objects is missed in every frame, objects that cover each other seldom change numbers."""
    objects = switches = told = seen = 0
    for seed in range(4):
        scenes = Scenes(size=(240, 320), seed=seed)
        tracker, last = Tracker(), dict[int, int]()
        for t in range(90):
            view, truth = scene(seed, t, scenes)
            seen_as = dict(zip(view.boxes[:, 0].tolist(), truth))
            now = tracker.update(view, seconds=t / FPS)
            for left, track in zip(now.boxes[:, 0].tolist(), now.tracks.tolist()):
                thing = seen_as[left]
                seen += 1
                if track > 0:
                    told += 1
                    switches += last.get(thing, track) != track
                    last[thing] = track
        objects += len(last)
    assert told > 0.93 * seen
    assert switches <= 0.1 * objects


def test_detect_writes_tracks(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = str(TINY["write_model"](tmp_path / "tiny.onnx"))
    shapes = "test://shapes?size=64x96&frames=6"
    saves = ("jsonl", "csv", "video")
    seen: list[Any] = []
    detect(
        DetectConfig(shapes, model=model, out=tmp_path / "a", save=saves, track=True),
        on_frame=lambda frame, found, times: seen.append(found.tracks),
    )
    lines = [json.loads(line) for line in (tmp_path / "a" / "detections.jsonl").read_text().splitlines()]
    ids = [[one["track"] for one in line["objects"]] for line in lines]
    assert ids == [row.tolist() for row in seen]
    assert ids[0]
    assert ids == [ids[0]] * 6
    assert (tmp_path / "a" / "detections.csv").read_text().splitlines()[1].endswith(f",{ids[0][0]}")
    detect(DetectConfig(shapes, model=model, out=tmp_path / "b", save=("jsonl",)))
    assert "track" not in (tmp_path / "b" / "detections.jsonl").read_text()
