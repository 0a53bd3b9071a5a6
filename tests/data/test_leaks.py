"""Pictures in two splits: found by their bytes, opened only where their sizes agree."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from detrx.data import leaks as room
from detrx.data.coco import Dataset, ImageRecord
from detrx.data.leaks import TAIL, leaks
from detrx.data.report import Tally


def split(folder: Path, files: dict[str, bytes]) -> Dataset:
    folder.mkdir()
    records = []
    for name, content in files.items():
        (folder / name).write_bytes(content)
        none = np.zeros(0, np.float32)
        records.append(
            ImageRecord(
                name, folder / name, 8, 8, none.reshape(0, 4), none.astype(np.int64), none.astype(bool), none
            )
        )
    return Dataset(folder, folder.name, ("a",), (1,), tuple(records), Tally().report(), folder / "x.json")


def names(found: tuple[tuple[Path, Path], ...]) -> list[str]:
    return [f"{a.name} = {b.name}" for a, b in found]


def test_the_same_bytes_under_another_name_are_found(tmp_path: Path) -> None:
    train = split(tmp_path / "train", {"a": b"one", "b": b"two", "c": b"three", "d": b"one"})
    val = split(tmp_path / "val", {"x": b"six", "y": b"two", "z": b"one", "w": b"three!"})
    assert names(leaks(train, val)) == ["b = y", "a = z"]
    assert leaks(val, split(tmp_path / "test", {"x": b"another"})) == ()


def test_the_same_file_in_both_is_found(tmp_path: Path) -> None:
    both = split(tmp_path / "both", {"a": b"one", "b": b"two"})
    assert names(leaks(both, both)) == ["a = a", "b = b"]


def test_files_that_end_alike_are_read_whole(tmp_path: Path) -> None:
    end = bytes(TAIL)
    train = split(tmp_path / "train", {"a": b"1" + end, "b": b"2" + end})
    val = split(tmp_path / "val", {"x": b"3" + end, "y": b"2" + end})
    assert names(leaks(train, val)) == ["b = y"]


def test_only_files_of_one_size_are_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    digest = room._digest
    monkeypatch.setattr(
        room, "_digest", lambda path, **last: opened.append(path.name) or digest(path, **last)
    )
    train = split(tmp_path / "train", {f"a{n}": bytes(n) for n in range(1, 30)})
    val = split(tmp_path / "val", {"x": bytes([7] * 5), "y": bytes(100)})
    assert leaks(train, val) == ()
    assert sorted(set(opened)) == ["a5", "x", "y"]


def test_a_picture_that_is_gone_is_no_leak(tmp_path: Path) -> None:
    train = split(tmp_path / "train", {"a": b"one", "b": b"two"})
    val = split(tmp_path / "val", {"x": b"one", "y": b"two"})
    (tmp_path / "train" / "a").unlink()
    (tmp_path / "val" / "y").unlink()
    assert leaks(train, val) == ()
