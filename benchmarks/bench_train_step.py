"""One training step of rt-n (forward, matching, losses, backward) against transformers' D-FINE, configured alike.

Both have the same weights, 300 queries, 100 denoising queries, pictures and targets; batch 8 at 320 x 320. A second
part says where our time goes, with our kernels and with their references in plain torch.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.util
import statistics
import sys
import time
from pathlib import Path

import torch

from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.losses.denoise import make_denoise
from detrx.losses.kernels import KERNELS
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


def make_ours(model: torch.nn.Module, pixels: torch.Tensor, targets: Targets, config: LossConfig):
    """A training step that also says how many seconds each of its parts took."""
    pixels = pixels.contiguous(memory_format=torch.channels_last)
    criterion = Criterion(config, pairs.CLASSES)
    generator = torch.Generator().manual_seed(0)
    spent: dict[str, float] = {}

    @contextlib.contextmanager
    def timed(part: str):
        start = time.perf_counter()
        yield
        spent[part] = time.perf_counter() - start

    def match(*args, **keywords):
        with timed("match"):
            return KERNELS[config.kernels].match(*args, **keywords)

    criterion.kernels = dataclasses.replace(criterion.kernels, match=match)

    def step() -> dict[str, float]:
        model.zero_grad()
        queries = model.queries_for((CANVAS, CANVAS))
        with timed("forward"):
            denoise = make_denoise(
                targets, classes=pairs.CLASSES, queries=queries, config=config, generator=generator
            )
            outputs = model(pixels, denoise)
        with timed("losses"):
            losses = criterion(outputs, targets, denoise)
        with timed("backward"):
            losses.total.backward()
        spent["losses"] -= spent["match"]
        return dict(spent)

    return step


def make_steps():
    theirs, ours = pairs.dfine_pair(MODELS["rt-n"])
    pixels, targets, lists = make_batch()
    # Convolutions of so few channels are faster so; transformers' model does not ask for it, and stays as users run it.
    ours.to(memory_format=torch.channels_last)

    def step_theirs():
        theirs.zero_grad()
        theirs(pixels, labels=lists).loss.backward()

    return {"detrx": make_ours(ours, pixels, targets, LossConfig(label="vfl")), "transformers": step_theirs}


def test_train_step(benchmark):
    contenders = make_steps()
    interleave(contenders, rounds=5, title=f"training step rt-n, batch {BATCH}, {CANVAS}")
    benchmark.pedantic(contenders["detrx"], rounds=1)


def test_where_the_time_goes(benchmark):
    _, model = pairs.dfine_pair(MODELS["rt-n"])
    model.to(memory_format=torch.channels_last)
    pixels, targets, _ = make_batch()
    steps = {name: make_ours(model, pixels, targets, LossConfig(kernels=name)) for name in KERNELS}
    for step in steps.values():
        step()
    found = {name: [step() for _ in range(5)] for name, step in steps.items()}
    print(f"\nwhere the time of a training step goes, rt-n, batch {BATCH}, {CANVAS}")
    for name, rounds in found.items():
        middle = {part: statistics.median(one[part] for one in rounds) for part in rounds[0]}
        total = sum(middle.values())
        words = [
            f"{part} {1e3 * value:.1f} ms ({100 * value / total:.1f} %)" for part, value in middle.items()
        ]
        print(f"  {name}: {', '.join(words)}")
    benchmark.pedantic(steps["native"], rounds=1)
