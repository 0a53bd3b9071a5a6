"""Frames a second from a video file to boxes: detrx's loop beside what one writes without it.

The bare model is a tight loop over the same ONNX session with one prepared frame, two threads to a call; beside it, for
it is what the loop itself does with a file, two such loops at once with one thread to a call, which no reading of
frames can reach. The script reads with OpenCV and runs ONNX Runtime with its default settings; the last is
supervision's frames through transformers' pipeline. All hold the same rt-n weights, each in a fresh process of its own,
and take turns over the same frames.

    python benchmarks/bench_loop.py VIDEO [--rounds 5] [--frames 100] [--json FILE]
    python benchmarks/bench_loop.py --age [--slow 10]    # how old frames are when the model is slow

A model of your own takes the place of the random one with DETRX_BENCH_ONNX=best.onnx (then transformers is left out).
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from apart import Contender, serve, take_turns
from bench_detector import CANVAS, THREADS, THRESHOLD, TRANSFORMERS, onnx_file, same_weights
from machine import describe

LOOP, BARE, BESIDE, SCRIPT, PIPELINE = NAMES = (
    "detrx loop",
    "bare model",
    "bare model, a call a thread",
    "OpenCV + ONNX Runtime script",
    "supervision + transformers",
)
TARGETS = {BARE: 0.95, SCRIPT: 1.5, PIPELINE: 2.0}
"""How many times as many frames a second as each of these the loop is to give, at least."""

FEW = 6
"""Frames before each turn that are not measured."""
Loop = Callable[[int], int]
"""So many frames; answers with the number of objects."""


def detrx_loop(folder: Path, video: str) -> Loop:
    from detrx import Detector
    from detrx.live.loop import run
    from detrx.live.source import open_source

    detector = Detector(onnx_file(folder), device="cpu", threads=THREADS, threshold=THRESHOLD)
    return lambda frames: run(detector, open_source(video), limit=frames).objects


def bare_model(folder: Path, _: str) -> Loop:
    from detrx import Detector

    detector = Detector(onnx_file(folder), device="cpu", threads=THREADS, threshold=THRESHOLD)
    image = np.random.default_rng(0).integers(0, 256, (432, 768, 3), dtype=np.uint8)
    pixels, _ = detector.prepare([image])

    def loop(frames: int) -> int:
        for _ in range(frames):
            detector.infer(pixels)
        return 0

    return loop


def bare_beside(folder: Path, _: str) -> Loop:
    """As many calls at once as the machine has use for."""
    from concurrent.futures import ThreadPoolExecutor

    from detrx import Detector

    detector = Detector(onnx_file(folder), device="cpu", threads=THREADS, threshold=THRESHOLD)
    pixels = np.ascontiguousarray(detector.prepare([np.zeros((432, 768, 3), np.uint8)])[0])
    calls, infer, _ = detector.calls(most=THREADS)
    pool = ThreadPoolExecutor(calls)

    def loop(frames: int) -> int:
        for _ in pool.map(infer, [pixels] * frames):
            pass
        return 0

    return loop


def plain_script(folder: Path, video: str) -> Loop:
    import cv2
    import onnxruntime as ort

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(str(onnx_file(folder)), options, providers=["CPUExecutionProvider"])
    mean, std = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
    height, width = session.get_inputs()[0].shape[2:]

    def loop(frames: int) -> int:
        capture, objects = cv2.VideoCapture(video), 0
        for _ in range(frames):
            arrived, image = capture.read()
            if not arrived:
                break
            rgb = cv2.cvtColor(cv2.resize(image, (width, height)), cv2.COLOR_BGR2RGB)
            pixels = ((rgb.astype(np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
            scores, _, boxes = session.run(None, {"pixels": np.ascontiguousarray(pixels)})[:3]
            keep = scores[0] > THRESHOLD
            boxes = boxes[0][keep] * np.array([image.shape[1], image.shape[0]] * 2, np.float32)
            objects += len(boxes)
        capture.release()
        return objects

    return loop


def pipeline(folder: Path, video: str) -> Loop:
    import itertools

    import supervision
    import torch
    import transformers
    from PIL import Image

    torch.set_num_threads(THREADS)
    model = transformers.DFineForObjectDetection.from_pretrained(folder / TRANSFORMERS).eval()
    size = {"height": CANVAS[0], "width": CANVAS[1]}
    processor = transformers.RTDetrImageProcessor(size=size, do_normalize=True)
    detect = transformers.pipeline("object-detection", model=model, image_processor=processor, device="cpu")

    def loop(frames: int) -> int:
        objects = 0
        for image in itertools.islice(supervision.get_video_frames_generator(video), frames):
            answers = detect(Image.fromarray(image[..., ::-1]), threshold=THRESHOLD)
            corners = [list(answer["box"].values()) for answer in answers]
            found = supervision.Detections(np.array(corners, np.float32)) if corners else ()
            objects += len(found)
        return objects

    return loop


MAKERS = dict(zip(NAMES, (detrx_loop, bare_model, bare_beside, plain_script, pipeline)))


@contextmanager
def contenders(folder: Path, video: str, frames: int) -> Iterator[list[Contender]]:
    """Each in its own process, warm; the first is ours."""
    names = NAMES
    if os.environ.get("DETRX_BENCH_ONNX"):
        names = NAMES[:-1]
    else:
        same_weights(folder)
    options = ["--folder", str(folder), "--frames", str(frames)]
    with ExitStack() as stack:
        yield [
            stack.enter_context(Contender(name, [__file__, video, "--contender", name, *options]))
            for name in names
        ]


def compare(running: list[Contender], *, rounds: int, frames: int) -> dict[str, Any]:
    found = take_turns(running, rounds=rounds, calls=1)
    print(f"\n{frames} frames of a video, {THREADS} threads, {rounds} turns each")
    for name, row in found["milliseconds"].items():
        line = f"  {name:<30} {frames / row['median'] * 1e3:7.1f} frames/s, best {frames / row['min'] * 1e3:7.1f}"
        if name in found["ratios"]:
            times = {key: 1 / value for key, value in found["ratios"][name].items()}
            line += f"   the loop gives {times['of_rounds']:.2f} x (best turns {times['of_minima']:.2f},"
            line += f" by processor time {times['of_processor_time']:.2f})"
            line += f", to be {TARGETS[name]:.2f}" if name in TARGETS else ""
        print(line)
    return found


def age(folder: Path, *, slow: float) -> dict[str, Any]:
    """How old a frame is when it is shown, and how much of that is not its own inference, with a model that is slower
    than the camera by so many times."""
    from detrx import Detector
    from detrx.live.loop import STAGES, run
    from detrx.live.source import open_source

    with Detector(onnx_file(folder), device="cpu", threads=THREADS) as detector:
        detector.warmup(runs=5)
        camera, calls = 1 / 30, detector.calls(most=1)

        def slower(pixels: Any) -> Any:
            end = time.perf_counter() + slow * camera
            raw = calls.infer(pixels)
            time.sleep(max(0.0, end - time.perf_counter()))
            return raw

        detector.calls = lambda **_: calls._replace(infer=slower)  # type: ignore[method-assign]
        source = open_source("test://shapes?fps=30&size=432x768&frames=900&live=1")
        report = run(detector, source)
    ages = report.times.ages * 1e3
    beyond = ages - report.times.rows[:, STAGES.index("infer")] * 1e3
    found = {
        "age_ms": {f"p{p}": float(np.percentile(ages, p)) for p in (50, 95, 99)},
        "beyond_inference_ms": {f"p{p}": float(np.percentile(beyond, p)) for p in (50, 95, 99)},
        "limit_ms": 2 * camera * 1e3,
        "machine": describe(),
    }
    print(
        f"\na model of {slow:g} frame times: {report.frames} frames, {report.dropped} dropped; a frame's age when shown"
    )
    for key, words in (("age_ms", "is"), ("beyond_inference_ms", "beyond its own inference is")):
        print(f"  {words} {found[key]['p50']:.0f} ms in the middle, {found[key]['p99']:.0f} at p99")
    print(f"  the latter is to be under two frame times, {found['limit_ms']:.0f} ms")
    return found


def test_loop(benchmark: Any, tmp_path: Path, shared_data: Path) -> None:
    video = str(shared_data / "videos" / "car-detection.mp4")
    with contenders(tmp_path, video, 100) as running:
        benchmark.extra_info.update(compare(running, rounds=3, frames=100), frames_a_round=100)
        benchmark.pedantic(running[0].run, args=(1,), rounds=3)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("video", nargs="?", default="")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--frames", type=int, default=100, help="frames of the video to a turn")
    parser.add_argument(
        "--age", action="store_true", help="measure how old frames are, not how many there are"
    )
    parser.add_argument(
        "--slow", type=float, default=10, help="frame times that an inference takes for --age"
    )
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--contender", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.contender:
        loop = MAKERS[args.contender](args.folder, args.video)
        objects = loop(args.frames)
        serve(lambda: loop(args.frames), warmup=0, about={"objects": objects}, settle=lambda: loop(FEW))
        return
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        if args.age:
            if not os.environ.get("DETRX_BENCH_ONNX"):
                same_weights(folder)
            found = age(folder, slow=args.slow)
        else:
            with contenders(folder, args.video, args.frames) as running:
                found = compare(running, rounds=args.rounds, frames=args.frames)
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
