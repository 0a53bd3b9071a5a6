"""One frame, uint8 480 x 640 in, boxes out: Detector beside transformers' pipeline and a plain ONNX Runtime script.

All hold the same rt-n weights, each in a fresh process of its own, and take turns. The script is what one writes around
an ONNX file: PIL resizes, numpy normalises. A model of your own takes the place of the random one with
DETRX_BENCH_ONNX=best.onnx (then the pipeline is left out).

    python benchmarks/bench_detector.py [--rounds 30] [--json FILE]
    python benchmarks/bench_detector.py --overhead              # what Detector adds to its own session
    python benchmarks/bench_detector.py --frames 10000          # the memory of Detector over so many frames
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from apart import Contender, serve, show, take_turns
from machine import describe

CANVAS = (320, 320)
THRESHOLD = 0.3
THREADS = 2
WARMUP = 20
CALLS = 10
"""Frames to a turn."""
ONNX, TRANSFORMERS = "rt-n.onnx", "transformers"
NAMES = ("detrx", "onnxruntime script", "transformers pipeline")


def same_weights(folder: Path) -> None:
    """rt-n with random weights as an ONNX file, and the same in transformers' layout."""
    import torch

    from detrx.export.onnx import write_onnx
    from detrx.models.zoo import MODELS
    from detrx.types import ModelInfo

    spec = importlib.util.spec_from_file_location(
        "transformers_pairs", Path(__file__).parents[1] / "tests" / "models" / "transformers_pairs.py"
    )
    pairs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pairs)
    torch.manual_seed(0)
    theirs, ours = pairs.dfine_pair(MODELS["rt-n"])
    names = tuple(f"class {i}" for i in range(pairs.CLASSES))
    info = ModelInfo("rt-n", names, tuple(range(pairs.CLASSES)), CANVAS)
    write_onnx(ours.eval(), info, folder / ONNX)
    theirs.eval().save_pretrained(folder / TRANSFORMERS)


def picture() -> np.ndarray:
    """(480, 640, 3) uint8, the same for all."""
    return np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)


def detrx_itself(folder: Path, image: np.ndarray) -> Callable[[], Any]:
    from detrx import Detector

    detector = Detector(onnx_file(folder), device="cpu", threads=THREADS, threshold=THRESHOLD)
    return lambda: detector.predict(image)


def plain_script(folder: Path, image: np.ndarray) -> Callable[[], Any]:
    """PIL and numpy around ONNX Runtime with its default settings."""
    import onnxruntime as ort
    from PIL import Image

    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(str(onnx_file(folder)), options, providers=["CPUExecutionProvider"])
    mean, std = np.array((0.485, 0.456, 0.406), np.float32), np.array((0.229, 0.224, 0.225), np.float32)
    height, width = session.get_inputs()[0].shape[2:]

    def predict() -> list[tuple[np.ndarray, float, int]]:
        small = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = ((np.asarray(small, np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
        scores, labels, boxes = session.run(None, {"pixels": np.ascontiguousarray(pixels)})
        keep = scores[0] > THRESHOLD
        boxes = boxes[0][keep] * np.array([image.shape[1], image.shape[0]] * 2, np.float32)
        return list(zip(boxes, scores[0][keep], labels[0][keep]))

    return predict


def pipeline(folder: Path, image: np.ndarray) -> Callable[[], Any]:
    """transformers' object detection pipeline, which takes PIL images."""
    import torch
    import transformers
    from PIL import Image

    torch.set_num_threads(THREADS)
    model = transformers.DFineForObjectDetection.from_pretrained(folder / TRANSFORMERS).eval()
    size = {"height": CANVAS[0], "width": CANVAS[1]}
    processor = transformers.RTDetrImageProcessor(size=size, do_normalize=True)
    detect = transformers.pipeline("object-detection", model=model, image_processor=processor, device="cpu")
    return lambda: detect(Image.fromarray(image), threshold=THRESHOLD)


MAKERS = dict(zip(NAMES, (detrx_itself, plain_script, pipeline)))


def onnx_file(folder: Path) -> Path:
    return Path(os.environ.get("DETRX_BENCH_ONNX") or folder / ONNX)


@contextmanager
def contenders(folder: Path) -> Iterator[list[Contender]]:
    """Each in its own process, warm; the first is ours."""
    names = NAMES
    if os.environ.get("DETRX_BENCH_ONNX"):
        names = NAMES[:2]
    else:
        same_weights(folder)
    with ExitStack() as stack:
        yield [
            stack.enter_context(Contender(name, [__file__, "--contender", name, "--folder", str(folder)]))
            for name in names
        ]


def compare(running: list[Contender], *, rounds: int) -> dict[str, Any]:
    found = take_turns(running, rounds=rounds, calls=CALLS)
    show(found, title=f"one frame of 480 x 640, {THREADS} threads, {rounds} turns of {CALLS} frames each")
    return found


def test_detector(benchmark: Any, tmp_path: Path) -> None:
    with contenders(tmp_path) as running:
        benchmark.extra_info.update(compare(running, rounds=20), frames_a_round=CALLS)
        benchmark.pedantic(running[0].run, args=(CALLS,), rounds=5)


def overhead(path: Path, *, rounds: int) -> dict[str, Any]:
    """What predict takes beside the run of its very own session, in turns in one process."""
    from detrx import Detector

    image = picture()
    with Detector(path, device="cpu", threads=THREADS, threshold=THRESHOLD) as detector:
        session = detector._backend._session
        pixels = {"pixels": np.ascontiguousarray(detector.prepare([image])[0])}
        calls = {
            "session.run": lambda: session.run(None, pixels),
            "Detector.predict": lambda: detector.predict(image),
        }
        detector.warmup(runs=WARMUP)
        seconds: dict[str, list[float]] = {name: [] for name in calls}
        for _ in range(rounds):
            for name, call in calls.items():
                start = time.perf_counter()
                call()
                seconds[name].append(time.perf_counter() - start)
        stages = alone(detector, image, rounds=rounds)
        objects = len(detector.predict(image))
    bare, ours = (np.array(times) * 1e3 for times in seconds.values())
    found = {
        "ms": {name: float(np.median(times) * 1e3) for name, times in seconds.items()},
        "min_ms": {name: float(np.min(times) * 1e3) for name, times in seconds.items()},
        "added_ms": float(np.median(ours - bare)),
        "alone_ms": stages,
        "objects": objects,
        "machine": describe(),
    }
    print(f"\none frame of 480 x 640 with {objects} objects, {rounds} turns, medians in ms: {found['ms']}")
    print(f"  predict adds {found['added_ms']:.2f} (median of the turns), to be under 1; alone: {stages}")
    return found


def alone(detector: Any, image: np.ndarray, *, rounds: int) -> dict[str, float]:
    """Medians in ms of what stands before and behind the model, which is not run in between."""
    seconds: dict[str, list[float]] = {"prepare": [], "finish": []}
    pixels, boxes = detector.prepare([image])
    raw = detector.infer(pixels)
    for _ in range(rounds):
        start = time.perf_counter()
        detector.prepare([image])
        middle = time.perf_counter()
        detector.finish(raw, 0, boxes[0])
        seconds["prepare"].append(middle - start)
        seconds["finish"].append(time.perf_counter() - middle)
    return {name: float(np.median(times) * 1e3) for name, times in seconds.items()}


def soak(path: Path, *, frames: int) -> None:
    """Print the resident memory of this process, which holds Detector and no other library."""
    from detrx import Detector
    from detrx.bench import resident_mb

    image, seen = picture(), []
    with Detector(path, device="cpu", threads=THREADS) as detector:
        detector.warmup(runs=50)
        print(f"{frames} frames: {resident_mb():.1f} MiB after 50 warm-ups,", end=" ")
        for index in range(frames):
            detector.predict(image)
            seen.append(resident_mb())
            if index == frames // 2:
                print(f"{seen[-1]:.1f} in the middle,", end=" ")
        print(f"{seen[-1]:.1f} at the end, at most {max(seen):.1f}")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--frames", type=int, default=0, help="measure memory over so many frames, not time")
    parser.add_argument("--overhead", action="store_true", help="measure what Detector adds to its session")
    parser.add_argument("--contender", choices=NAMES, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> None:
    args = parse()
    if args.contender:
        call = MAKERS[args.contender](args.folder, picture())
        serve(call, warmup=WARMUP, about={"objects": len(call())})
    elif args.frames and args.folder:
        soak(onnx_file(args.folder), frames=args.frames)
    elif args.overhead:
        with tempfile.TemporaryDirectory() as folder:
            if not os.environ.get("DETRX_BENCH_ONNX"):
                same_weights(Path(folder))
            write(overhead(onnx_file(Path(folder)), rounds=5 * args.rounds), args.json)
    elif args.frames:
        with tempfile.TemporaryDirectory() as folder:
            if not os.environ.get("DETRX_BENCH_ONNX"):
                same_weights(Path(folder))
            command = [sys.executable, __file__, "--folder", folder, "--frames", str(args.frames)]
            subprocess.run(command, check=True)
    else:
        with tempfile.TemporaryDirectory() as folder, contenders(Path(folder)) as running:
            write(compare(running, rounds=args.rounds), args.json)


def write(found: dict[str, Any], path: Path | None) -> None:
    if path is not None:
        path.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
