"""``detrx convert``: weights from one project's layout to another's."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, Optional, Sequence

import tyro
from tyro.conf import Positional


@dataclass(frozen=True)
class ConvertConfig:
    """Write weights in the layout of detrx, of facebookresearch/detr or of transformers, or lighter ones."""

    model: Positional[str]
    """Weights of any of these layouts, a folder of transformers, or a published name as detr-r50."""
    out: Positional[str]
    """What to write: NAME.safetensors for detrx, NAME.pth for facebook, a folder for transformers."""
    to: Literal["detrx", "facebook", "transformers"] = "detrx"
    """The layout."""
    dc5: bool = False
    """The weights are of a DC5 model, which neither they nor their file's name say."""
    layers: Optional[int] = None
    """Decoder layers to keep, from the first on: fewer are faster and a little less exact. None: all."""
    queries: Optional[int] = None
    """Of the rt family: queries to keep, the most objects that a picture can have. None: all."""


def run(args: Sequence[str]) -> int:
    config = tyro.cli(ConvertConfig, args=list(args), prog="detrx convert")
    from detrx.models.layouts import convert

    done = convert(
        config.model, config.out, to=config.to, dc5=config.dc5, layers=config.layers, queries=config.queries
    )
    names = done.info.names
    print(f"wrote {done.path}: {done.info.model}, {done.tensors} tensors, {len(names)} classes")
    for note in done.notes:
        print(f"note: {note}")
    print(f"licence: {done.info.licence}")
    if done.layout != "transformers":
        print(f"next:\n  detrx detect PHOTO_OR_FOLDER --model {done.path}")
    return 0
