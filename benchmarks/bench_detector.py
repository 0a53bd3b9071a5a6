"""One frame, uint8 480 x 640 in, boxes out: Detector beside transformers' pipeline and a plain ONNX Runtime script.

All hold the same rt-n weights. The script is what one writes around an ONNX file: PIL resizes, numpy normalises.
A model of your own takes the place of the random one with DETRX_BENCH_ONNX=best.onnx (then the pipeline is left out).

As a program it also counts memory over many frames:  python benchmarks/bench_detector.py [--frames 10000]
"""

from __future__ import annotations

import argparse
import importlib.util
import os
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from PIL import Image

from detrx import Detector
from detrx.bench import resident_mb
from detrx.types import Detections, ModelInfo

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from side_by_side import interleave

CANVAS = (320, 320)
THRESHOLD = 0.3
THREADS = 2


def same_weights(folder: Path) -> tuple[Path, Any]:
    """rt-n with random weights as an ONNX file, and the same in transformers."""
    import torch

    from detrx.export.onnx import write_onnx
    from detrx.models.zoo import MODELS

    spec = importlib.util.spec_from_file_location(
        "transformers_pairs", Path(__file__).parents[1] / "tests" / "models" / "transformers_pairs.py"
    )
    pairs = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(pairs)
    torch.manual_seed(0)
    theirs, ours = pairs.dfine_pair(MODELS["rt-n"])
    names = tuple(f"class {i}" for i in range(pairs.CLASSES))
    info = ModelInfo("rt-n", names, tuple(range(pairs.CLASSES)), CANVAS)
    return write_onnx(ours.eval(), info, folder / "rt-n.onnx"), theirs.eval()


def plain_script(path: Path, info: ModelInfo) -> Callable[[np.ndarray], Detections]:
    """PIL and numpy around ONNX Runtime with its default settings."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(str(path), options)
    mean, std = np.array(info.mean, np.float32), np.array(info.std, np.float32)
    height, width = info.canvas

    def predict(image: np.ndarray) -> Detections:
        small = Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR)
        pixels = ((np.asarray(small, np.float32) / 255 - mean) / std).transpose(2, 0, 1)[None]
        scores, labels, boxes = session.run(None, {"pixels": np.ascontiguousarray(pixels)})
        keep = scores[0] > THRESHOLD
        size = np.array([image.shape[1], image.shape[0]] * 2, np.float32)
        return Detections(boxes[0][keep] * size, scores[0][keep], labels[0][keep], info.names)

    return predict


def pipeline_of(model: Any) -> Callable[[np.ndarray], Any]:
    """transformers' object detection pipeline, which takes PIL images."""
    import torch
    from transformers import RTDetrImageProcessor, pipeline

    torch.set_num_threads(THREADS)
    processor = RTDetrImageProcessor(size={"height": CANVAS[0], "width": CANVAS[1]}, do_normalize=True)
    detect = pipeline("object-detection", model=model, image_processor=processor, device="cpu")
    return lambda image: detect(Image.fromarray(image), threshold=THRESHOLD)


def contenders(folder: Path) -> tuple[dict[str, Callable[[], Any]], Detector]:
    given = os.environ.get("DETRX_BENCH_ONNX")
    path, theirs = (Path(given), None) if given else same_weights(folder)
    detector = Detector(path, device="cpu", threads=THREADS, threshold=THRESHOLD)
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    script = plain_script(path, detector.info)
    found: dict[str, Callable[[], Any]] = {
        "detrx": lambda: detector.predict(image),
        "onnxruntime script": lambda: script(image),
    }
    if theirs is not None:
        pipe = pipeline_of(theirs)
        found["transformers pipeline"] = lambda: pipe(image)
    return found, detector


def compare(folder: Path, *, rounds: int) -> float:
    """The ratio of Detector to the better of the others; each pair alone, lest one's threads slow the next."""
    found, _ = contenders(folder)
    ratios = [
        interleave({"detrx": found["detrx"], name: run}, rounds=rounds, title=f"one frame, detrx and {name}")
        for name, run in found.items()
        if name != "detrx"
    ]
    return max(ratios)


def test_detector(benchmark: Any, tmp_path: Path) -> None:
    found, detector = contenders(tmp_path)
    compare(tmp_path, rounds=30)
    benchmark(found["detrx"])
    detector.close()


def soak(path: Path, *, frames: int) -> None:
    """Memory in MiB after the first frames, and every tenth of the rest."""
    image = np.random.default_rng(0).integers(0, 256, (480, 640, 3), dtype=np.uint8)
    with Detector(path, device="cpu", threads=THREADS) as detector:
        for index in range(frames + 1):
            detector.predict(image)
            if index in (100, frames) or index % max(1, frames // 10) == 0:
                print(f"  frame {index:6d}: {resident_mb():.1f} MiB")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--frames", type=int, default=0, help="also run so many frames and print the memory")
    parser.add_argument("--soak", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.soak:
        soak(args.soak, frames=args.frames)
        return
    with tempfile.TemporaryDirectory() as folder:
        print(f"ratio to the better one: {compare(Path(folder), rounds=args.rounds):.2f}")
        if args.frames:
            # A process of its own: torch and transformers are not the detector's memory.
            path = os.environ.get("DETRX_BENCH_ONNX") or str(Path(folder) / "rt-n.onnx")
            command = [sys.executable, __file__, "--soak", path, "--frames", str(args.frames)]
            os.spawnv(os.P_WAIT, sys.executable, command)


if __name__ == "__main__":
    main()
