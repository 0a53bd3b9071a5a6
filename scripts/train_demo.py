"""Train the model that comes with the package, on generated scenes and from random weights, and put it into the assets.

    python scripts/train_demo.py --minutes 20

Writes python/detrx/assets/demo.onnx (at most 8 MB) and prints its AP on scenes that it has never seen.
"""

from __future__ import annotations

import argparse
import shutil
import tempfile
from pathlib import Path

import detrx
from detrx.data.augment import AugmentConfig
from detrx.data.synthetic import write_coco
from detrx.export.run import export
from detrx.train.config import TrainConfig
from detrx.train.run import train

ASSET = Path(__file__).resolve().parents[1] / "python" / "detrx" / "assets" / "demo.onnx"
CANVAS = (224, 288)
"""The shape of a 480 x 640 camera, and small: the demo must be quick on any laptop."""


def settings(data: Path, out: Path, minutes: float) -> TrainConfig:
    return TrainConfig(
        data=str(data),
        out=str(out),
        model="rt-n",
        minutes=minutes,
        canvas=CANVAS,
        backbone="mobilenetv4_conv_small_050",
        levels=(8, 16, 32),
        hidden=64,
        queries=50,
        decoder_layers=2,
        batch=4,
        lr=8e-4,
        backbone_lr_ratio=1.0,
        freeze_norm=False,
        eval_every=1000,
        augment=AugmentConfig(scale=(0.8, 1.25)),
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--minutes", type=float, default=20)
    parser.add_argument("--scenes", type=int, default=3000, help="training pictures to generate")
    parser.add_argument("--out", type=Path, default=ASSET)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        data = write_coco(Path(folder) / "scenes", train=args.scenes, val=300, size=(480, 640), seed=0)
        run = train(settings(data, Path(folder) / "run", args.minutes))
        result = export(run.best, to="onnx", out=Path(folder) / "demo.onnx")
        shutil.copyfile(result.path, args.out)
    size = args.out.stat().st_size / 1e6
    print(f"detrx {detrx.__version__}: {args.out}, {size:.1f} MB, AP {run.metrics.ap:.3f}")
    if size > 8:
        raise SystemExit(f"{args.out} must be at most 8 MB to travel with the package, it has {size:.1f}")


if __name__ == "__main__":
    main()
