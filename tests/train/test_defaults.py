"""What a run chooses where the user says nothing."""

from __future__ import annotations

import dataclasses

import pytest

from detrx.models.zoo import MODELS
from detrx.train.config import TrainConfig
from detrx.train.defaults import OPEN, fill, learning_rate, levels_for

N = MODELS["rt-n"]


def choose(
    *, pictures: int = 205, most: int = 27, keep_shape: bool = False, **settings: object
) -> TrainConfig:
    return fill(TrainConfig(data="x", **settings), N, pictures=pictures, most=most, keep_shape=keep_shape)


def test_small_data_get_small_batches_and_frozen_early_stages() -> None:
    small = choose(backbone_weights="w.pth")
    assert (small.batch, small.freeze_stages, small.freeze_norm) == (4, 2, True)
    large = choose(pictures=100_000, backbone_weights="w.pth")
    assert (large.batch, large.freeze_stages, large.freeze_norm) == (16, 0, True)


def test_nothing_is_frozen_that_starts_from_random_weights() -> None:
    assert (choose().freeze_stages, choose().freeze_norm) == (0, False)


@pytest.mark.parametrize(("most", "queries"), [(1, 100), (27, 100), (60, 180), (5000, 300)])
def test_queries_follow_the_fullest_picture(most: int, queries: int) -> None:
    assert choose(most=most).queries == queries


def test_a_small_canvas_is_looked_at_more_finely() -> None:
    assert choose(canvas=(320, 320)).levels == (8, 16)
    assert choose(canvas=(640, 640)).levels is None
    assert levels_for(MODELS["rt-s"], (320, 320)) is None


def test_what_the_user_said_stays() -> None:
    said = {
        "batch": 7,
        "lr": 1e-5,
        "freeze_norm": True,
        "freeze_stages": 1,
        "levels": (16, 32),
        "queries": 50,
    }
    chosen = choose(canvas=(320, 320), **said)
    assert {name: getattr(chosen, name) for name in OPEN} == said


def test_a_whole_detector_keeps_its_shape_and_learns_slowly() -> None:
    tuned = choose(canvas=(320, 320), weights="best.safetensors", keep_shape=True)
    assert (tuned.levels, tuned.queries) == (None, None)
    assert tuned.lr == pytest.approx(choose().lr / 4)


def test_wider_models_learn_more_slowly() -> None:
    assert learning_rate(128, tune=False) == pytest.approx(8e-4)
    assert choose(hidden=64).lr == pytest.approx(8e-4)
    wide = fill(TrainConfig(data="x"), MODELS["rt-x"], pictures=10, most=1)
    assert wide.lr == pytest.approx(0.1024 / MODELS["rt-x"].decoder_hidden)
    assert dataclasses.replace(wide) == wide
