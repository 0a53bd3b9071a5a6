"""What calibration makes of the pictures that it is given, and what a build makes of its timing cache."""

from __future__ import annotations

import fcntl
import logging
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from detrx.errors import DataError
from detrx.export.engine import _timing_cache
from detrx.export.gate import FEW, calibration_files, laid
from detrx.types import ModelInfo

INFO = ModelInfo("tiny", ("disc",), (1,), (32, 64))


def picture(path: Path, value: int) -> None:
    Image.fromarray(np.full((20, 30, 3), value, np.uint8)).save(path)


def test_black_pictures_and_few_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i, value in enumerate([0, 90, 200]):
        picture(tmp_path / f"{i}.png", value)
    files = calibration_files(tmp_path, None, INFO)
    with caplog.at_level(logging.WARNING):
        assert len(list(laid(files, INFO, 2))) == 2
    assert [record.getMessage().split()[0] for record in caplog.records] == ["calibrating", str(files[0])]


def test_enough_pictures_are_quiet(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for i in range(FEW):
        picture(tmp_path / f"{i:02d}.png", 50 + i)
    with caplog.at_level(logging.WARNING):
        (first, *others) = laid(calibration_files(tmp_path, None, INFO), INFO, 2)
    assert first.shape == (2, 3, 32, 64)
    assert len(others) == FEW - 1
    assert not caplog.records


def test_a_corrupt_picture_is_named(tmp_path: Path) -> None:
    (tmp_path / "a.png").write_bytes(b"no picture")
    with pytest.raises(DataError, match=r"a\.png"):
        list(laid(calibration_files(tmp_path, None, INFO), INFO, 1))


class Config:
    """What a builder's configuration does with a timing cache."""

    def __init__(self) -> None:
        self.given = b""

    def create_timing_cache(self, content: bytes) -> bytes:
        return content

    def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> None:
        assert not ignore_mismatch
        self.given = cache

    def get_timing_cache(self) -> SimpleNamespace:
        return SimpleNamespace(serialize=lambda: self.given + b"+")


def lockable(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def test_one_build_at_a_time_adds_to_a_timing_cache(tmp_path: Path) -> None:
    path = tmp_path / "sub" / "times"
    for expected in (b"+", b"++"):
        with _timing_cache(Config(), path), path.with_name("times.lock").open("w") as other:
            assert not lockable(other.fileno())
        assert path.read_bytes() == expected


def test_a_failed_build_leaves_the_timing_cache_as_it_was(tmp_path: Path) -> None:
    path = tmp_path / "times"
    path.write_bytes(b"old")
    with pytest.raises(RuntimeError), _timing_cache(Config(), path):
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert sorted(p.name for p in tmp_path.iterdir()) == ["times", "times.lock"]
