"""COCO evaluation of 5,000 generated images beside pycocotools, as a ratio.

python benchmarks/bench_coco_eval.py
"""

from __future__ import annotations

import contextlib
import copy
import io
import os
import sys
import time

import numpy as np

from detrx.evaluation.coco import Prediction, score
from detrx.types import Detections

CLASSES = 80
LIMIT = 0.25


def scenes(images: int, *, seed: int = 0) -> tuple[dict, list[Prediction], list[dict]]:
    """A ground truth with about 7 objects an image and about 21 detections, as Prediction and as COCO results."""
    random = np.random.default_rng(seed)
    ids = tuple(range(1, CLASSES + 1))
    truth = {
        "info": {},
        "images": [{"id": i, "width": 640, "height": 480} for i in range(1, images + 1)],
        "categories": [{"id": i, "name": f"class {i}"} for i in ids],
        "annotations": [],
    }
    predictions, results = [], []
    for image in range(1, images + 1):
        n = int(random.poisson(7))
        xy, wh = random.uniform(0, 500, (n, 2)), random.lognormal(3.8, 0.8, (n, 2)).clip(4, 400)
        labels = random.integers(0, CLASSES, n)
        for (x, y), (w, h), label in zip(xy, wh, labels):
            truth["annotations"].append(
                {
                    "id": len(truth["annotations"]) + 1,
                    "image_id": image,
                    "category_id": int(label) + 1,
                    "bbox": [float(x), float(y), float(w), float(h)],
                    "area": float(w * h),
                    "iscrowd": int(random.random() < 0.03),
                }
            )
        found = _detect(random, xy, wh, labels)
        predictions.append(Prediction(image, Detections(*found, category_ids=ids)))
        results += _as_results(image, *found)
    return truth, predictions, results


def _detect(random: np.random.Generator, xy: np.ndarray, wh: np.ndarray, labels: np.ndarray) -> tuple:
    """Each object twice, displaced, and as many false ones."""
    n = len(labels)
    corners = np.concatenate([xy, xy + wh], 1)
    shaken = [corners + random.normal(0, s, (n, 4)) * np.tile(wh, 2) for s in (0.05, 0.2)]
    low = random.uniform(0, 500, (n, 2))
    false = np.concatenate([low, low + random.lognormal(3.8, 0.8, (n, 2))], 1)
    boxes = np.concatenate([*shaken, false]).astype(np.float32)
    boxes[:, 2:] = np.maximum(boxes[:, 2:], boxes[:, :2] + 1)
    names = np.concatenate([labels, labels, random.integers(0, CLASSES, n)])
    scores = np.concatenate([random.beta(5, 2, n), random.beta(2, 4, n), random.beta(1, 5, n)]).astype(
        np.float32
    )
    order = np.argsort(-scores)
    return boxes[order], scores[order], names[order]


def _as_results(image: int, boxes: np.ndarray, scores: np.ndarray, labels: np.ndarray) -> list[dict]:
    wide = boxes.astype(np.float64)
    sizes = wide[:, 2:] - wide[:, :2]
    return [
        {
            "image_id": image,
            "category_id": int(label) + 1,
            "bbox": [*map(float, box[:2]), *map(float, size)],
            "score": float(value),
        }
        for box, size, value, label in zip(wide, sizes, scores, labels)
    ]


def by_pycocotools(truth: dict, results: list[dict]) -> np.ndarray:
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    held = COCO()
    held.dataset = truth
    held.createIndex()
    run = COCOeval(held, held.loadRes(results), "bbox")
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats


def main(images: int = 5000) -> int:
    truth, predictions, results = scenes(images)
    theirs_truth, theirs_results = copy.deepcopy(truth), copy.deepcopy(results)
    start = time.perf_counter()
    ours = score(truth, predictions)
    middle = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        theirs = by_pycocotools(theirs_truth, theirs_results)
    end = time.perf_counter()
    numbers = [getattr(ours, n) for n in ("ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large")]
    numbers += [getattr(ours, f"ar_{n}") for n in ("1", "10", "100", "small", "medium", "large")]
    ratio = (middle - start) / (end - middle)
    print(
        f"{images} images, {len(truth['annotations'])} objects, {len(results)} detections, {CLASSES} classes"
    )
    print(f"detrx {middle - start:.2f} s, pycocotools {end - middle:.2f} s, load {os.getloadavg()[0]:.1f}")
    print(
        f"ratio {ratio:.3f} (limit {LIMIT}), largest difference {np.abs(theirs - numbers).max():.1e}, AP {ours.ap:.4f}"
    )
    return 0 if ratio <= LIMIT else 1


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1]) if len(sys.argv) > 1 else 5000))
