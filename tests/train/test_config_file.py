from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from detrx.data.augment import AugmentConfig
from detrx.errors import ConfigError
from detrx.losses.config import LossConfig
from detrx.ops.match_weights import MatchWeights
from detrx.train.config import TrainConfig
from detrx.train.config_file import differences, read_config, to_yaml


def _write(folder: Path, text: str) -> Path:
    path = folder / "settings.yaml"
    path.write_text(text, encoding="utf-8")
    return path


def test_what_was_written_is_read_back(tmp_path: Path) -> None:
    config = TrainConfig(
        data="somewhere",
        minutes=20,
        canvas=(320, 640),
        levels=(16, 32),
        lr=1e-4,
        augment=AugmentConfig(scale=(0.5, 2.0)),
        loss=LossConfig(label="mal", match=MatchWeights(giou=3)),
    )
    assert read_config(_write(tmp_path, to_yaml(config))) == config


def test_rates_without_a_dot_are_numbers(tmp_path: Path) -> None:
    assert read_config(_write(tmp_path, "lr: 1e-4\n")).lr == 1e-4


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("epoch: 3\n", "nearest is epochs"),
        ("bacth: 3\n", "nearest is batch"),
        ("augment: {mosiac: 1}\n", "augment.mosiac is no setting; the nearest is augment.mosaic"),
        ("loss: {match: {goiu: 1}}\n", "nearest is loss.match.giou"),
        ("augment: 3\n", "augment must hold keys and values"),
        ("batch: many\n", "batch must be a whole number"),
        ("augment: {mosaic: 7}\n", "mosaic"),
        ("augment: {mosaic: lots}\n", "augment.mosaic must be a number, found 'lots'"),
        ("augment: {mosaic: null}\n", "augment.mosaic must be a number"),
        ("augment: {scale: 3}\n", "augment.scale must be 2 values"),
        ("augment: {scale: [1, x]}\n", "augment.scale must be a number, found 'x'"),
        ("loss: {l1_weight: .nan}\n", "loss.l1_weight must be a finite number"),
        ("loss: {match: {l1: x}}\n", "loss.match.l1 must be a number"),
        ("loss: {union: perhaps}\n", "loss.union must be true or false"),
        ("loss: {denoise: 2.5}\n", "loss.denoise must be a whole number"),
        ("- a\n- b\n", "must hold keys and values"),
        ("", "must hold keys and values"),
        ("a: [1, 2\n", "must be YAML"),
        ("a: !!python/object/apply:os.system [true]\n", "must be YAML"),
        ("a: &x [1]\nb: *x\n", "aliases"),
        ("[" * 3000, "must be"),
    ],
)
def test_a_bad_file_is_refused_with_the_reason(tmp_path: Path, text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_config(_write(tmp_path, text))


def test_a_bomb_of_aliases_is_refused_at_once(tmp_path: Path) -> None:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]" for n in range(1, 10)]
    with pytest.raises(ConfigError, match="aliases"):
        read_config(_write(tmp_path, "\n".join(lines)))


def test_large_and_binary_files_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="at most 65536 bytes"):
        read_config(_write(tmp_path, "# " + "x" * 70_000))
    (tmp_path / "latin.yaml").write_bytes(b"data: caf\xe9\n")
    with pytest.raises(ConfigError, match="UTF-8"):
        read_config(tmp_path / "latin.yaml")
    with pytest.raises(ConfigError, match="No such file"):
        read_config(tmp_path / "absent.yaml")


def test_differences_have_dotted_names() -> None:
    old = TrainConfig(lr=1e-3)
    new = dataclasses.replace(old, batch=4, augment=AugmentConfig(hflip=0.25))
    assert differences(old, new) == {"batch": (None, 4), "augment.hflip": (0.5, 0.25)}
