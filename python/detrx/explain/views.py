"""What a reader can choose from on the page of a picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Bar:
    """A level's share of the weight, in two parts."""

    name: str
    inside: float
    """Share of 1 inside the detection's box."""
    outside: float
    """Share of 1 outside it."""
    colour: str


@dataclass(frozen=True)
class View:
    """One painted picture."""

    title: str
    """Few words, for a button."""
    caption: str
    """One or two sentences: what is to be seen, with its number."""
    picture: NDArray[np.uint8]
    """(h, w, 3) RGB."""
    bars: tuple[Bar, ...] = ()
    """The levels, where there are any."""


@dataclass(frozen=True)
class Subject:
    """A point or a detection, with what was looked at for it."""

    key: str
    """Names its files: "point-1", "detection-2"."""
    title: str
    region: tuple[float, float, float, float]
    """Left, top, right, bottom as shares of the picture's sides: where a click means this one."""
    views: tuple[View, ...]
    """What is seen first comes first."""


@dataclass(frozen=True)
class Scene:
    """One picture, explained."""

    name: str
    note: str
    """What is shown of how many."""
    base: NDArray[np.uint8]
    """(h, w, 3) RGB, all detections drawn."""
    subjects: tuple[Subject, ...]
