"""DETR beside the code that it comes from and transformers: a picture of 480 x 640 forward, and a training step.

    DETRX_FACEBOOK_DETR=../detr python benchmarks/bench_detr.py [--rounds 10] [--json FILE]

DETRX_FACEBOOK_DETR is a checkout of facebookresearch/detr; without it that contender is left out. Weights are random
and the same for all; each contender has a fresh process, and they take turns. The step is of R18, four pictures and
100 queries: forward, matching, losses, backward.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from apart import Contender, serve, show, take_turns
from machine import describe

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
SIZE, BATCH, COLUMNS = (480, 640), 4, 91
OURS, ORIGINAL, HUB, GRAPH = "detrx.pt", "original.pth", "transformers", "detr.onnx"
CHECKOUT = os.environ.get("DETRX_FACEBOOK_DETR", "")


def same_weights(folder: Path) -> None:
    """detr-r50 and detr-r18 with random weights, in our layout and the original's; the former as a graph and for
    transformers too."""
    import torch

    from detrx.export.onnx import write_onnx
    from detrx.models.convert_detr import to_original
    from detrx.types import ModelInfo

    for name in ("detr-r50", "detr-r18"):
        model = build(name)
        torch.save(model.state_dict(), folder / f"{name}-{OURS}")
        torch.save(to_original(model), folder / f"{name}-{ORIGINAL}")
        if name == "detr-r50":
            _save_for_transformers(model, folder / HUB)
            names = tuple(f"class {i}" for i in range(COLUMNS))
            info = ModelInfo(name, names, tuple(range(COLUMNS)), SIZE, marked=True)
            write_onnx(model.eval(), info, folder / GRAPH)


def build(name: str) -> Any:
    import torch

    from detrx.models.zoo import MODELS
    from detrx.models.zoo import build as build_model

    torch.manual_seed(0)
    return build_model(replace(MODELS[name], masked=True), classes=COLUMNS)


def _save_for_transformers(model: Any, folder: Path) -> None:
    import transformers

    from detrx.models.convert_detr import from_transformers

    backbone = transformers.TimmBackboneConfig(
        backbone="resnet50", use_pretrained_backbone=False, out_indices=[1, 2, 3, 4], features_only=True
    )
    theirs = transformers.DetrForObjectDetection(
        transformers.DetrConfig(backbone_config=backbone, num_labels=COLUMNS)
    )
    model.load_state_dict(from_transformers(model, theirs.state_dict()))
    theirs.save_pretrained(folder)


def pixels(batch: int) -> Any:
    import torch

    torch.set_num_threads(THREADS)
    return torch.randn(batch, 3, *SIZE, generator=torch.Generator().manual_seed(1))


def truths() -> list[dict[str, Any]]:
    """About seven objects a picture, as COCO has them."""
    import torch

    g = torch.Generator().manual_seed(2)
    counts = (3, 12, 7, 6)[:BATCH]
    return [
        {
            "labels": torch.randint(COLUMNS, (n,), generator=g),
            "boxes": torch.rand(n, 4, generator=g) * 0.3 + 0.2,
        }
        for n in counts
    ]


# --- one picture forward


def our_forward(folder: Path) -> Callable[[], Any]:
    import torch

    model = build("detr-r50").eval()
    model.load_state_dict(torch.load(folder / f"detr-r50-{OURS}"))
    return _without_gradient(model, pixels(1))


def original_forward(folder: Path) -> Callable[[], Any]:
    import torch

    model = original("resnet50").eval()
    model.load_state_dict(torch.load(folder / f"detr-r50-{ORIGINAL}"))
    return _without_gradient(model, pixels(1))


def transformers_forward(folder: Path) -> Callable[[], Any]:
    import transformers

    model = transformers.DetrForObjectDetection.from_pretrained(folder / HUB).eval()
    return _without_gradient(model, pixels(1))


def our_graph(folder: Path) -> Callable[[], Any]:
    from detrx.runtime.onnx import OnnxBackend

    backend, picture = OnnxBackend(folder / GRAPH, device="cpu", threads=THREADS), pixels(1).numpy()
    return lambda: backend.infer(picture)


def _without_gradient(model: Any, picture: Any) -> Callable[[], Any]:
    import torch

    def call() -> Any:
        with torch.inference_mode():
            return model(picture)

    return call


def original(backbone: str) -> Any:
    """The original's DETR, without the ImageNet weights that it would fetch."""
    sys.path.insert(0, CHECKOUT)
    import hubconf
    import models.backbone

    models.backbone.is_main_process = lambda: False
    return hubconf._make_detr(backbone, num_classes=COLUMNS)


# --- a training step


def our_step(folder: Path) -> Callable[[], Any]:
    """As train.loop has it: nothing is masked, channels last."""
    import torch

    from detrx.losses.detr import DetrCriterion
    from detrx.models.zoo import MODELS
    from detrx.models.zoo import build as build_model
    from detrx.tensors import Targets

    model = build_model(MODELS["detr-r18"], classes=COLUMNS)
    model.load_state_dict(torch.load(folder / f"detr-r18-{OURS}"))
    model.to(memory_format=torch.channels_last).train()
    model.backbone.freeze(1)  # as the original does
    found, most = truths(), max(len(t["labels"]) for t in truths())
    targets = Targets(
        torch.stack([torch.nn.functional.pad(t["boxes"], (0, 0, 0, most - len(t["boxes"]))) for t in found]),
        torch.stack([torch.nn.functional.pad(t["labels"], (0, most - len(t["labels"]))) for t in found]),
        torch.tensor([len(t["labels"]) for t in found], dtype=torch.int32),
    )
    pictures = pixels(BATCH).contiguous(memory_format=torch.channels_last)
    criterion = DetrCriterion(COLUMNS)

    def step() -> float:
        model.zero_grad()
        losses = criterion(model(pictures), targets)
        losses.total.backward()
        return float(losses.total.detach())

    return step


def original_step(folder: Path) -> Callable[[], Any]:
    """As the original's main.py and engine.py have it."""
    import torch

    model = original("resnet18").train()
    model.load_state_dict(torch.load(folder / f"detr-r18-{ORIGINAL}"))
    for name, parameter in model.backbone.named_parameters():
        parameter.requires_grad_(any(f"layer{i}" in name for i in (2, 3, 4)))
    from models.detr import SetCriterion
    from models.matcher import HungarianMatcher

    weights = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
    weights |= {f"{k}_{i}": v for i in range(5) for k, v in weights.items()}
    matcher = HungarianMatcher(cost_class=1, cost_bbox=5, cost_giou=2)
    criterion = SetCriterion(
        COLUMNS, matcher, weights, eos_coef=0.1, losses=["labels", "boxes", "cardinality"]
    )
    model.aux_loss = True
    pictures, targets = list(pixels(BATCH)), truths()

    def step() -> float:
        model.zero_grad()
        found = criterion(model(pictures), targets)
        total = sum(found[key] * weight for key, weight in weights.items())
        total.backward()
        return float(total.detach())

    return step


MAKERS: dict[str, dict[str, Callable[[Path], Callable[[], Any]]]] = {
    "forward": {"detrx": our_forward, "facebook": original_forward, "transformers": transformers_forward},
    "graph": {"detrx, onnx": our_graph, "facebook": original_forward, "transformers": transformers_forward},
    "step": {"detrx": our_step, "facebook": original_step},
}


@contextmanager
def contenders(kind: str, folder: Path) -> Iterator[Sequence[Contender]]:
    """Each in its own process, warm; the first is ours."""
    names = [name for name in MAKERS[kind] if CHECKOUT or name != "facebook"]
    command = [__file__, "--folder", str(folder), "--kind", kind, "--contender"]
    with ExitStack() as stack:
        yield [stack.enter_context(Contender(name, [*command, name])) for name in names]


def compare(kind: str, folder: Path, *, rounds: int) -> dict[str, Any]:
    with contenders(kind, folder) as running:
        found = take_turns(running, rounds=rounds, calls=2)
    show(found, title=f"DETR at {SIZE[0]} x {SIZE[1]}, {kind}, {THREADS} threads")
    return found


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("detr")
    same_weights(folder)
    return folder


@pytest.mark.parametrize("kind", MAKERS)
def test_detr(benchmark: Any, weights: Path, kind: str) -> None:
    if kind == "step" and not CHECKOUT:
        pytest.skip("DETRX_FACEBOOK_DETR names no checkout of facebookresearch/detr")
    found = compare(kind, weights, rounds=10)
    benchmark.extra_info.update(found)
    benchmark.pedantic(lambda: None, rounds=1)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--kind", choices=MAKERS, help="this alone")
    parser.add_argument("--json", type=Path, help="write what was measured to this file")
    parser.add_argument("--contender", help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.contender:
        serve(MAKERS[args.kind][args.contender](args.folder), warmup=2, about={})
        return
    kinds = [args.kind] if args.kind else [kind for kind in MAKERS if CHECKOUT or kind != "step"]
    with tempfile.TemporaryDirectory() as name:
        same_weights(Path(name))
        found = {kind: compare(kind, Path(name), rounds=args.rounds) for kind in kinds}
    found["machine"] = describe()
    if args.json:
        args.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
