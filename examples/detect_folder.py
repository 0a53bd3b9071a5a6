"""Detect on every picture of a folder and print what was found.

python examples/detect_folder.py photos/                          # the bundled model
python examples/detect_folder.py photos/ runs/small/best.onnx     # your own
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Union

import detrx


def main(folder: Path, *, model: Union[str, Path] = "demo") -> int:
    """Returns the number of objects found."""
    total = 0
    with detrx.Detector(model) as detector:
        for frame, found in detector.stream(folder):
            total += len(found)
            listed = ", ".join(f"{name} {score:.2f}" for name, score in zip(found.names, found.scores))
            print(f"{frame.name}: {listed or 'nothing'}")
    return total


if __name__ == "__main__":
    main(Path(sys.argv[1]), model=sys.argv[2] if len(sys.argv) > 2 else "demo")
