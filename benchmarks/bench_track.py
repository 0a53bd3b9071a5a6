"""Our tracker beside others, over the same films with known truth: HOTA, IDF1, switches and milliseconds a frame.

Films of 10, 100 and 500 objects with a detector of known faults, at the camera's pace and slower, and the generated
scenes as the bundled demo model sees them: as they are, and with each object named once, since the others expect that.
All get the same boxes and, where they take one, the same score from which an object may begin a track; the rest is
their defaults. Classes do not count in the metrics. What is not installed is left out.

    python benchmarks/bench_track.py [--films 3] [--seconds 10] [--demo 4] [--json FILE]
"""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
import warnings
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from track_films import Noise, Walk

from detrx.bench import processor
from detrx.evaluation.tracking import TrackCounts, count
from detrx.live.pairs import overlaps
from detrx.live.track import SAME, TrackConfig, Tracker
from detrx.types import Detections

HIGH = 0.4
Follow = Callable[[Detections, float], Detections]
"""Detections of a frame and its seconds -> the same with tracks."""


def ours(_: float) -> Follow:
    tracker = Tracker(TrackConfig(), high=HIGH)
    return lambda found, seconds: tracker.update(found, seconds=seconds)


def _peer(tracker: Any, step: str) -> Follow:
    """A tracker of supervision's boxes."""
    supervision, update = importlib.import_module("supervision"), getattr(tracker, step)

    def follow(found: Detections, _: float) -> Detections:
        said = update(supervision.Detections(found.boxes, confidence=found.scores, class_id=found.labels))
        tracks = np.zeros(0, np.int64) if said.tracker_id is None else said.tracker_id
        return Detections(said.xyxy, said.confidence, said.class_id, tracks=tracks.astype(np.int64))

    return follow


def supervision_bytetrack(fps: float) -> Follow:
    module = importlib.import_module("supervision")
    tracker = module.ByteTrack(track_activation_threshold=HIGH, frame_rate=fps)
    return _peer(tracker, "update_with_detections")


def of_trackers(name: str, options: dict[str, Any]) -> Callable[[float], Follow]:
    return lambda fps: _peer(
        getattr(importlib.import_module("trackers"), name)(frame_rate=fps, **options), "update"
    )


TRACKERS: dict[str, Callable[[float], Follow]] = {
    "detrx": ours,
    "supervision ByteTrack": supervision_bytetrack,
    "trackers ByteTrack": of_trackers(
        "ByteTrackTracker", {"track_activation_threshold": HIGH, "high_conf_det_threshold": HIGH}
    ),
    "trackers SORT": of_trackers("SORTTracker", {"track_activation_threshold": HIGH}),
    "trackers OC-SORT": of_trackers("OCSORTTracker", {"high_conf_det_threshold": HIGH}),
    "trackers BoT-SORT": of_trackers(
        "BoTSORTTracker",
        {"track_activation_threshold": HIGH, "high_conf_det_threshold": HIGH, "enable_cmc": False},
    ),
}

Shot = tuple[float, Detections, Detections]
"""Seconds, truth, what a detector found."""


def walks(objects: int, *, films: int, seconds: float, fps: float) -> list[list[Shot]]:
    made = [Walk(objects=objects, seconds=seconds, seed=seed) for seed in range(films)]
    times = np.arange(round(seconds * fps)) / fps
    return [[(float(t), film.truth(t), film.found(t, Noise())) for t in times] for film in made]


def seen_by_demo(films: int, *, frames: int) -> list[list[Shot]]:
    """Generated scenes through the bundled model."""
    from detrx import Detector
    from detrx.data.synthetic import Scenes

    shots = []
    with Detector("demo", device="cpu", threshold=0.1) as detector:
        for seed in range(films):
            scenes = Scenes(size=(240, 320), seed=9000 + seed)
            film = []
            for t in range(frames):
                boxes, labels, numbers = scenes.truth(t)
                truth = Detections(boxes, np.ones(len(boxes), np.float32), labels, tracks=numbers)
                film.append((t / 30, truth, detector.predict(scenes.frame(t)[0])))
            shots.append(film)
    return shots


def named_once(films: list[list[Shot]]) -> list[list[Shot]]:
    """Without boxes that overlap a better one by four fifths, of whatever class."""
    return [[(at, truth, found[_best(found)]) for at, truth, found in film] for film in films]


def _best(found: Detections) -> np.ndarray:
    boxes = found.boxes.astype(np.float64)
    same, keep = overlaps(boxes, boxes) >= SAME, np.zeros(len(found), bool)
    for one in range(len(found)):
        keep[one] = not (same[one] & keep).any()
    return keep


def measure(films: list[list[Shot]], fps: float) -> dict[str, dict[str, float]]:
    """All trackers over all films, in turns frame by frame."""
    names = [name for name in TRACKERS if _is_there(name, fps)]
    totals, spent = dict.fromkeys(names, TrackCounts()), {name: list[float]() for name in names}
    for film in films:
        follows = {name: TRACKERS[name](fps) for name in names}
        answers = {name: dict[int, Detections]() for name in names}
        for at, (seconds, _, found) in enumerate(film):
            for name in names:
                begun = time.perf_counter()
                answers[name][at] = follows[name](found, seconds)
                spent[name].append(time.perf_counter() - begun)
        for name in names:
            totals[name] += count({at: shot[1] for at, shot in enumerate(film)}, answers[name])
    return {name: _row(totals[name], spent[name]) for name in names}


def _is_there(name: str, fps: float) -> bool:
    try:
        TRACKERS[name](fps)
    except (ImportError, AttributeError):
        return False
    return True


def _row(total: TrackCounts, spent: list[float]) -> dict[str, float]:
    found, keys = total.metrics(), ("hota", "det_a", "ass_a", "idf1", "mota", "switches", "fragments")
    times = {"ms": np.median(spent), "ms_p95": np.percentile(spent, 95)}
    return {
        **{key: round(float(getattr(found, key)), 4) for key in keys},
        **{key: round(1e3 * float(value), 4) for key, value in times.items()},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def show(title: str, rows: dict[str, dict[str, float]]) -> None:
    print(f"\n{title}\n{'':<24}  HOTA   DetA   AssA   IDF1   MOTA   switches  fragments  ms a frame (p95)")
    for name, row in rows.items():
        shares = "  ".join(f"{row[key]:.3f}" for key in ("hota", "det_a", "ass_a", "idf1", "mota"))
        counts = f"{row['switches']:8.0f}  {row['fragments']:9.0f}"
        print(f"{name:<24}  {shares}  {counts}  {row['ms']:8.3f} ({row['ms_p95']:.3f})")


def test_track(benchmark: Any) -> None:
    film = walks(100, films=1, seconds=2, fps=30)
    benchmark.extra_info.update(measure(film, 30))

    def follow_all() -> None:
        follow = ours(30)
        for seconds, _, found in film[0]:
            follow(found, seconds)

    benchmark.pedantic(follow_all, rounds=3)
    assert benchmark.extra_info["detrx"]["hota"] > 0.75


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--films", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=10, help="length of the films")
    parser.add_argument("--demo", type=int, default=4, help="scenes that the demo model looks at; 0 for none")
    parser.add_argument("--crowd", type=float, default=4, help="seconds of the films of 100 objects and more")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    args = parser.parse_args()
    warnings.simplefilter("ignore")
    found: dict[str, Any] = {}
    for objects in (10, 100, 500):
        seconds, films = (args.seconds, args.films) if objects == 10 else (args.crowd, 1)
        found[f"{objects} objects, 30 fps"] = measure(
            walks(objects, films=films, seconds=seconds, fps=30), 30
        )
    for fps in (10, 5):
        title = f"10 objects, {fps} fps"
        found[title] = measure(walks(10, films=args.films, seconds=args.seconds, fps=fps), fps)
    if args.demo:
        scenes = seen_by_demo(args.demo, frames=150)
        found["demo model, generated scenes"] = measure(scenes, 30)
        found["the same, each object named once"] = measure(named_once(scenes), 30)
    for title, rows in found.items():
        show(title, rows)
    if args.json:
        versions = {name: _version(name) for name in ("detrx", "numpy", "supervision", "trackers")}
        about = {"processor": processor(), "cores": len(os.sched_getaffinity(0)), "versions": versions}
        args.json.write_text(json.dumps({"machine": about, **found}, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
