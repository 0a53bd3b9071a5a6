"""What may happen to a training picture: one flat list of plain numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Tuple

from detrx.errors import ConfigError


@dataclass(frozen=True)
class AugmentConfig:
    """How training pictures are varied. Probabilities and shares are in [0, 1]; 0 turns a change off."""

    hflip: float = 0.5
    """Probability of exchanging left and right."""
    vflip: float = 0.0
    """Probability of exchanging top and bottom: for microscopes and aerial pictures."""
    rotate90: float = 0.0
    """Probability of a quarter turn, either way: for microscopes and aerial pictures."""
    jitter: float = 1.0
    """Probability of another scale, aspect and place; else the picture is laid on the canvas as when running."""
    scale: Tuple[float, float] = (0.6, 1.4)
    """Smallest and largest size against the letterboxed picture: below 1 zooms out, above 1 crops."""
    aspect: float = 0.1
    """Width to height changes by up to this share either way."""
    translate: float = 1.0
    """Share of the free room by which the picture may leave the middle."""
    crop: float = 0.0
    """Probability, in place of the scale, of a crop that holds a drawn share of an object, as SSD crops."""
    crop_scale: Tuple[float, float] = (0.3, 1.0)
    """Smallest and largest side of that crop, as a share of the picture's."""
    colour: float = 0.5
    """Probability of another brightness, contrast, saturation and hue, all at once."""
    brightness: float = 0.2
    """Up to this share brighter or darker."""
    contrast: float = 0.2
    """Up to this share more or less contrast."""
    saturation: float = 0.3
    """Up to this share more or less colourful."""
    hue: float = 0.02
    """Up to this share of a full turn of the colour wheel, in [0, 0.5]."""
    mosaic: float = 0.0
    """Probability of four pictures on one canvas, only while the loader is asked for strong changes. DEIM takes 0.5 in
    runs of 100 epochs and more; the short runs that the defaults were measured on had none."""
    mosaic_scale: Tuple[float, float] = (0.5, 1.0)
    """Smallest and largest size of each of the four against its letterboxed self."""
    mixup: float = 0.0
    """Probability of a second picture shining through; only while strong, and as mosaic for long runs."""
    min_visible: float = 0.25
    """A box stays only if at least this share of its area is on the canvas."""
    min_side: float = 2.0
    """A box stays only if it is at least so many canvas pixels wide and high."""
    max_boxes: int = 1000
    """The largest so many boxes of one canvas stay."""

    def __post_init__(self) -> None:
        for name in (
            "hflip",
            "vflip",
            "rotate90",
            "jitter",
            "translate",
            "crop",
            "colour",
            "mosaic",
            "mixup",
        ):
            _check(name, getattr(self, name), 0, 1)
        for name in ("aspect", "brightness", "contrast", "saturation", "min_visible"):
            _check(name, getattr(self, name), 0, 0.99)
        _check("hue", self.hue, 0, 0.5)
        _check("min_side", self.min_side, 0, 1000)
        _check("max_boxes", self.max_boxes, 1, 100_000)
        for name, most in (("scale", 10.0), ("crop_scale", 1.0), ("mosaic_scale", 10.0)):
            _check_range(name, getattr(self, name), most)

    @staticmethod
    def off() -> AugmentConfig:
        """Every change off: the pixels are those of running the model."""
        return AugmentConfig(hflip=0, jitter=0, colour=0, mosaic=0, mixup=0)

    @property
    def plain(self) -> bool:
        """Whether nothing can happen to a picture."""
        names = ("hflip", "vflip", "rotate90", "jitter", "crop", "colour", "mosaic", "mixup")
        return not any(getattr(self, name) for name in names)


def _check(name: str, value: float, low: float, high: float) -> None:
    if not low <= value <= high:
        raise ConfigError(
            f"[AugmentConfig] {name} must be in [{low}, {high}], found {value}. Pass {name}=..."
        )


def _check_range(name: str, value: Tuple[float, float], most: float) -> None:
    if len(value) != 2 or not 0.05 <= value[0] <= value[1] <= most:
        raise ConfigError(
            f"[AugmentConfig] {name} must be (smallest, largest) in [0.05, {most:g}], found {value}. Pass two numbers."
        )
