"""Train a detector on a data set of your own, score it, export it: the whole way in one page.

python examples/train_small.py                      # generated scenes, about a minute
python examples/train_small.py my_coco_folder       # your pictures
"""

from __future__ import annotations

import sys
from pathlib import Path

import detrx
from detrx.data.synthetic import write_coco


def main(data: Path, *, out: Path, epochs: int = 2, canvas: tuple[int, int] = (160, 160)) -> Path:
    """Returns the exported file, which the other examples run."""
    detrx.train(data=str(data), model="rt-n", epochs=epochs, batch=4, canvas=canvas, out=str(out))
    metrics = detrx.evaluate(out / "best.safetensors", data=data, split="val")
    print(f"AP {metrics.ap:.3f}, AP50 {metrics.ap50:.3f} after {epochs} epochs")
    exported = detrx.export(out / "best.safetensors", to="onnx")
    print(f"wrote {exported.path}")
    return exported.path


def generated(folder: Path, *, train: int = 64, val: int = 16) -> Path:
    """A data set of generated scenes, in COCO's layout."""
    write_coco(folder, train=train, val=val, size=(160, 160), seed=1)
    return folder


if __name__ == "__main__":
    given = sys.argv[1:]
    main(Path(given[0]) if given else generated(Path("runs/scenes")), out=Path("runs/small"))
