"""One training step of rt-n (forward, matching, losses, backward) against transformers' D-FINE, configured alike.

Both have the same weights, 300 queries, 100 denoising queries, pictures and targets; batch 8 at 320 x 320.
"""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import torch

from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.losses.denoise import make_denoise
from detrx.models.zoo import MODELS
from detrx.tensors import Targets

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from side_by_side import interleave

_SPEC = importlib.util.spec_from_file_location(
    "transformers_pairs", Path(__file__).parents[1] / "tests" / "models" / "transformers_pairs.py"
)
pairs = importlib.util.module_from_spec(_SPEC)
_SPEC.loader.exec_module(pairs)

BATCH, CANVAS = 8, 320


def make_batch():
    g = torch.Generator().manual_seed(0)
    counts = torch.randint(1, 14, (BATCH,), generator=g)
    most = int(counts.max())
    boxes = torch.rand(BATCH, most, 4, generator=g) * 0.3 + 0.2
    labels = torch.randint(pairs.CLASSES, (BATCH, most), generator=g)
    lists = [{"class_labels": labels[i, :n], "boxes": boxes[i, :n]} for i, n in enumerate(counts)]
    return torch.randn(BATCH, 3, CANVAS, CANVAS, generator=g), Targets(boxes, labels, counts.int()), lists


def make_steps():
    theirs, ours = pairs.dfine_pair(MODELS["rt-n"])
    pixels, targets, lists = make_batch()
    # Convolutions of so few channels are faster so; transformers' model does not ask for it, and stays as users run it.
    ours.to(memory_format=torch.channels_last)
    config = LossConfig()
    criterion = Criterion(config, pairs.CLASSES)
    ours_pixels = pixels.contiguous(memory_format=torch.channels_last)
    generator = torch.Generator().manual_seed(0)

    def step_ours():
        ours.zero_grad()
        queries = ours.queries_for((CANVAS, CANVAS))
        denoise = make_denoise(
            targets, classes=pairs.CLASSES, queries=queries, config=config, generator=generator
        )
        criterion(ours(ours_pixels, denoise), targets, denoise).total.backward()

    def step_theirs():
        theirs.zero_grad()
        theirs(pixels, labels=lists).loss.backward()

    return {"detrx": step_ours, "transformers": step_theirs}


def test_train_step(benchmark):
    contenders = make_steps()
    interleave(contenders, rounds=5, title=f"training step rt-n, batch {BATCH}, {CANVAS}")
    benchmark.pedantic(contenders["detrx"], rounds=1)
