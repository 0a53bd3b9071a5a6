"""How fast DETR learns: AP over epochs of the paper's recipe, of the small-data one and of rt, on generated scenes.

    python benchmarks/curves/detr_curves.py --out runs/curves --backbone-weights mobilenetv2_100.pth

The three start from the same backbone weights and see the same pictures in the same batches, as often, at the same
size. Each curve is a run of its own in a folder of its own: one that is there already is not run again, so that the
script goes on where it was stopped, and `--only` makes one of them. `curves.json` and `curves.png` are of those that
there are.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from detrx.data.augment import AugmentConfig
from detrx.data.synthetic import write_coco
from detrx.train.config import TrainConfig
from detrx.train.recipes import RECIPES
from detrx.train.run import train

SIDE = 192
TRAIN, VAL = 480, 120
SHARED: dict[str, Any] = {
    "canvas": (SIDE, SIDE),
    "batch": 4,
    "hidden": 128,
    "decoder_layers": 3,
    "queries": 30,
    "augment": AugmentConfig(jitter=0.0, colour=0.0),
    "device": "cpu",
}
"""What all have: the scenes are of one size, so pictures are only mirrored."""
DETR = "detr-mobilenetv2-dc5"
"""A map of stride 16, which 30 pixels of an object need; three layers of encoder and decoder."""
CURVES: dict[str, TrainConfig] = {
    "detr, paper": replace(RECIPES["paper"], model=DETR, **SHARED),
    "detr, small-data": replace(RECIPES["small-data"], model=DETR, **SHARED),
    "rt": TrainConfig(model="rt-n", backbone="mobilenetv2_100", levels=(8, 16), **{**SHARED, "queries": 100}),
}
COLOURS = {"detr, paper": "#b2182b", "detr, small-data": "#1b7837", "rt": "#2166ac"}


def folder_of(name: str, out: Path) -> Path:
    return out / name.replace(", ", "-")


def run(name: str, args: argparse.Namespace) -> None:
    """One curve; says nothing where it is there already."""
    folder = folder_of(name, args.out)
    if not (folder / "done").is_file():
        train(
            replace(
                CURVES[name],
                data=str(args.out / "scenes"),
                out=str(folder),
                resume="auto",
                epochs=args.epochs,
                minutes=None,
                eval_every=max(1, round(args.epochs / args.points)),
                backbone_weights=str(args.backbone_weights or ""),
                freeze_stages=1 if args.backbone_weights else 0,
                freeze_norm=bool(args.backbone_weights),
                threads=args.threads,
                seed=args.seed,
            )
        )
        (folder / "done").touch()


def curve(folder: Path) -> list[dict[str, float]]:
    """The evaluations of a run."""
    rows = [json.loads(line) for line in (folder / "log.jsonl").read_text(encoding="utf-8").splitlines()]
    return [
        {"epoch": r["epoch"], "minutes": r["seconds"] / 60, "ap": r["map"], "ap50": r["ap50"]}
        for r in rows
        if r["event"] == "evaluation"
    ]


def collect(out: Path, args: argparse.Namespace) -> dict[str, Any]:
    found = {name: curve(folder_of(name, out)) for name in CURVES if folder_of(name, out).is_dir()}
    return {
        "pictures": {"train": TRAIN, "val": VAL, "side": SIDE},
        "machine": {"cpu": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "torch": torch.__version__,
        "seed": args.seed,
        "curves": {name: points for name, points in found.items() if points},
    }


def draw(found: dict[str, Any], path: Path) -> None:
    """AP over epochs, and over minutes."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4), layout="constrained")
    FigureCanvasAgg(figure)
    for place, key in zip(figure.subplots(1, 2, sharey=True), ("epoch", "minutes"), strict=True):
        for name, points in found["curves"].items():
            across = [0.0, *(p[key] for p in points)]
            place.plot(across, [0.0, *(p["ap"] for p in points)], ".-", color=COLOURS[name], label=name)
        place.set_xlabel(f"{key}s" if key == "epoch" else "minutes, evaluations included")
        place.grid(alpha=0.3)
        place.set_ylim(bottom=0)
    figure.axes[0].set_ylabel(f"AP on {VAL} other scenes")
    figure.axes[0].legend()
    figure.savefig(path, dpi=110)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--out", type=Path, required=True, help="folder of the scenes, the runs and the curves"
    )
    parser.add_argument("--backbone-weights", type=Path, help="timm's mobilenetv2_100")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--points", type=int, default=10, help="evaluations in a curve")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", choices=CURVES, action="append", help="this curve; more than once for more")
    return parser.parse_args()


def main() -> None:
    args = parse()
    scenes = args.out / "scenes"
    if not (scenes / "coco_val.json").is_file():
        write_coco(scenes, train=TRAIN, val=VAL, size=(SIDE, SIDE), seed=args.seed)
    for name in args.only or CURVES:
        run(name, args)
        found = collect(args.out, args)
        (args.out / "curves.json").write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")
        draw(found, args.out / "curves.png")
    for name, points in found["curves"].items():
        print(f"{name}: " + ", ".join(f"{p['ap']:.3f} after {p['epoch']:.0f}" for p in points))


if __name__ == "__main__":
    main()
