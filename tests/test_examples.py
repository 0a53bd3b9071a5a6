"""The examples run as they are written, on a model trained for a few steps."""

from __future__ import annotations

import re
import runpy
from pathlib import Path
from typing import Any

import pytest

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"


def load(name: str) -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLES / f"{name}.py"))


@pytest.fixture(scope="module")
def scenes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = load("train_small")["generated"](tmp_path_factory.mktemp("scenes"), train=4, val=2)
    return folder


@pytest.fixture(scope="module")
def trained(scenes: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("run") / "small"
    exported: Path = load("train_small")["main"](scenes, out=out, epochs=1, canvas=(96, 96))
    return exported


def test_train_small_leaves_a_model(trained: Path) -> None:
    assert trained.suffix == ".onnx"
    assert trained.stat().st_size > 100_000
    assert (trained.parent / "best.safetensors").is_file()


def test_detect_folder_names_every_picture(
    trained: Path, scenes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found = load("detect_folder")["main"](scenes, model=trained)
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 6
    assert found == sum(len(re.findall(r" [01]\.\d\d(?:,|$)", line)) for line in lines)


def test_count_objects_sees_each_frame(trained: Path, capsys: pytest.CaptureFixture[str]) -> None:
    seen = load("count_objects")["main"](frames=3, model=trained)
    assert all(count >= 1 for count in seen.values())
    assert capsys.readouterr().out.count(" s  {") == 3


def test_every_example_is_run_here() -> None:
    here = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in sorted(EXAMPLES.glob("*.py")) if f'load("{path.stem}")' not in here] == []
