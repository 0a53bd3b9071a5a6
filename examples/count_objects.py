"""Count the objects of each class that a camera sees, frame by frame.

python examples/count_objects.py                      # the synthetic camera
python examples/count_objects.py 0                    # the first camera; also rtsp://..., a video, a folder
"""

from __future__ import annotations

import sys
from collections import Counter
from itertools import islice
from pathlib import Path
from typing import Union

import detrx


def main(uri: str = "test://shapes", *, frames: int = 30, model: Union[str, Path] = "demo") -> Counter[str]:
    """Returns how often each class was seen."""
    seen: Counter[str] = Counter()
    with detrx.Detector(model) as detector:
        detector.warmup()
        for frame, found in islice(detector.stream(uri), frames):
            now = Counter(found.above(0.5).names.tolist())
            seen += now
            print(f"{frame.seconds:6.2f} s  {dict(now)}")
    return seen


if __name__ == "__main__":
    main(*sys.argv[1:2])
