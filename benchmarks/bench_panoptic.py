"""One panoptic picture out of 100 masks at 480 x 640: detrx beside transformers' post-processing, in turns, one thread.

    python -m pytest benchmarks/bench_panoptic.py -s

Masks are smooth random fields at a quarter of the picture's size, all of queries that are sure. transformers also drops
masks of which too little is left over, which DETR's own post-processing does not; the work up to there is the same.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from side_by_side import interleave

QUERIES, CLASSES, THINGS = 100, 133, 80
PICTURE = (480, 640)


def problem():
    """Scores, labels, mask logits at a quarter of the size."""
    rng = np.random.default_rng(0)
    coarse = rng.normal(size=(QUERIES, 10, 13)).astype(np.float32) * 4
    import torch

    masks = torch.nn.functional.interpolate(torch.from_numpy(coarse)[None], size=(120, 160), mode="bilinear")
    return np.full(QUERIES, 0.95, np.float32), rng.integers(0, CLASSES, QUERIES), masks[0].numpy()


def test_merge_100_masks(benchmark):
    import torch
    from transformers.models.detr.image_processing_detr import DetrImageProcessor

    from detrx.runtime.panoptic import mask_winners_reference, merge
    from detrx.types import Letterbox

    torch.set_num_threads(1)
    scores, labels, masks = problem()
    logits = torch.zeros(1, QUERIES, CLASSES + 1)
    logits[0, torch.arange(QUERIES), torch.from_numpy(labels)] = 9.0
    outputs = SimpleNamespace(logits=logits, pred_masks=torch.from_numpy(masks)[None])
    processor = DetrImageProcessor()
    fuse = set(range(THINGS, CLASSES))
    box = Letterbox((1.0, 1.0), (0, 0), PICTURE, PICTURE)
    things = [i < THINGS for i in range(CLASSES)]

    def ours():
        return merge(scores, labels, masks, box, things=things, category_ids=range(CLASSES))

    def theirs():
        return processor.post_process_panoptic_segmentation(
            outputs, threshold=0.85, label_ids_to_fuse=fuse, target_sizes=[PICTURE]
        )

    def plain():
        rows = np.linspace(0, 119, PICTURE[0], dtype=np.float32)
        columns = np.linspace(0, 159, PICTURE[1], dtype=np.float32)
        return mask_winners_reference(masks, rows=rows, columns=columns)

    assert len(ours().segments) > 5
    ratio = interleave(
        {"detrx": ours, "transformers": theirs, "numpy, one division": plain},
        rounds=7,
        title="panoptic picture of 100 masks at 480 x 640",
        into=benchmark.extra_info,
    )
    benchmark.extra_info["against_transformers"] = ratio
    benchmark.pedantic(ours, rounds=5)
