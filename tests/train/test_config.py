from __future__ import annotations

import math

import pytest

from detrx.errors import ConfigError
from detrx.train.config import TrainConfig


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("lr", math.nan, "from 1e-09 to 10"),
        ("lr", math.inf, "from 1e-09 to 10"),
        ("lr", -1e-4, "from 1e-09 to 10"),
        ("lr", "fast", "a number"),
        ("batch", 0, "from 1"),
        ("batch", 2.5, "a whole number"),
        ("batch", True, "a whole number"),
        ("epochs", -1, "from 1"),
        ("minutes", 0, "from 0.01"),
        ("canvas", (320, 330), "multiples of 32"),
        ("canvas", (0, 32), "multiples of 32"),
        ("canvas", (320,), "two whole numbers"),
        ("canvas", 320, "two whole numbers"),
        ("levels", (8, 16.5), "whole numbers"),
        ("amp", "fp8", "auto, bf16, fp16, off"),
        ("device", "tpu", "auto, cpu, cuda"),
        ("seed", -1, "from 0"),
        ("ema_decay", 1.0, "from 0 to 0.999999"),
        ("freeze_norm", "yes", "true or false"),
        ("augment", {"mosaic": 1}, "AugmentConfig"),
        ("model", None, "text"),
    ],
)
def test_a_bad_value_is_named_with_its_range(key: str, value: object, words: str) -> None:
    with pytest.raises(ConfigError) as caught:
        TrainConfig(**{key: value})
    assert key in str(caught.value)
    assert words in str(caught.value)
    assert str(value)[:5] in str(caught.value)


def test_the_nearest_canvas_is_named() -> None:
    with pytest.raises(ConfigError, match="nearest to 330 is 320"):
        TrainConfig(canvas=(320, 330))


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"epochs": 3, "minutes": 2.0}, "not both"),
        ({"warmup": 0.5, "flat": 0.6}, "warmup \\+ flat"),
        ({"batch": 2, "accumulate": 4}, "accumulate"),
        ({"weights": "a.pth", "backbone_weights": "b.pth"}, "not both"),
    ],
)
def test_settings_that_contradict_each_other(settings: dict[str, object], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        TrainConfig(**settings)
