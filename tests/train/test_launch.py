"""Starting the processes of a run on this machine, and what becomes of them."""

from __future__ import annotations

import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from detrx.errors import ConfigError, DeviceError
from detrx.models.checkpoint import read_checkpoint
from detrx.train import launch
from detrx.train.config import TrainConfig
from detrx.train.config_file import read_config
from detrx.train.launch import count_processes, packed, threads_each
from detrx.train.run import train

CPU = torch.device("cpu")

_TRANSFORM = """
import os, sys
class Mortal:
    def __init__(self, lives):
        self.lives = lives
    def __call__(self, image, truth):
        self.lives -= 1
        if self.lives < 0 and os.environ.get("RANK") == "1":
            sys.stderr.write("a word before the end")
            sys.stderr.flush()
            os._exit(7)
        return image, truth
"""


@pytest.fixture
def two_start(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> TrainConfig:
    """Settings of a small model that another process knows, too, and two processes."""
    monkeypatch.setenv("MALLOC_ARENA_MAX", "2")
    return dataclasses.replace(
        quick,
        model="rt-n",
        backbone="mobilenetv3_small_050",
        hidden=32,
        decoder_layers=1,
        levels=(16, 32),
        processes=2,
        threads=1,
    )


@pytest.fixture
def mortal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Any]:
    """A transform in a module of its own, whose process dies after so many pictures if it is not the first."""
    (tmp_path / "a_mortal_transform.py").write_text(_TRANSFORM)
    monkeypatch.syspath_prepend(str(tmp_path))
    import importlib

    return importlib.import_module("a_mortal_transform").Mortal  # type: ignore[no-any-return]


def test_a_run_starts_a_second_process_and_leaves_none(
    two_start: TrainConfig, mortal: Callable[[int], Any], capfd: pytest.CaptureFixture[str]
) -> None:
    threads = torch.get_num_threads()
    result = train(two_start, extra_transform=mortal(1000))
    said = capfd.readouterr().err
    assert "2 processes of 1 threads" in said
    assert said.count("evaluated on 4") == 1
    assert result.steps == 4
    assert read_config(result.folder / "config.yaml").processes == 2
    state = read_checkpoint(result.folder / "last.safetensors").extra["train"]
    assert state["position"]["pictures"] == 8
    assert torch.get_num_threads() == threads
    assert "RANK" not in os.environ
    assert not [
        thread for thread in threading.enumerate() if thread.name == "detrx-watch" and not _ends(thread)
    ]

    with pytest.raises(DeviceError, match="process 1 of 2 ended with code 7") as caught:
        train(dataclasses.replace(two_start, epochs=4, resume="auto"), extra_transform=mortal(1), quiet=True)
    assert "It said: a word before the end" in str(caught.value)
    assert "--resume auto" in str(caught.value)
    assert not _children()


def _ends(thread: threading.Thread) -> bool:
    thread.join(2.0)
    return not thread.is_alive()


def _children() -> list[str]:
    """Processes of this one that run a worker."""
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = path.read_text().rpartition(")")[2].split()
            line = (path.parent / "cmdline").read_text()
        except OSError:
            continue
        if int(words[1]) == os.getpid() and "detrx.train.worker" in line:
            found.append(line)
    return found


def test_a_process_that_cannot_start_is_told_at_once(
    two_start: TrainConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(launch.sys, "path", ["/nowhere"])
    with pytest.raises(DeviceError, match=r"(?s)process 1 of 2 ended with code 1.*No module named"):
        train(two_start, quiet=True)


# --- how many


@pytest.fixture
def roomy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "cores", lambda: 6)
    monkeypatch.setattr(launch, "free_memory", lambda: 64 << 30)


@pytest.mark.usefixtures("roomy")
@pytest.mark.parametrize(
    ("settings", "count"),
    [
        ({"batch": 4}, 2),
        ({"batch": 16}, 6),
        ({"batch": 1}, 1),
        ({"batch": 16, "accumulate": 8}, 2),
        ({"batch": 16, "threads": 6}, 1),
        ({"batch": 16, "processes": 3}, 3),
        ({"batch": 2, "processes": 2}, 2),
    ],
)
def test_a_cpu_gets_a_process_for_each_core_that_has_two_pictures(
    settings: dict[str, Any], count: int
) -> None:
    assert count_processes(TrainConfig(**settings), CPU) == count


@pytest.mark.usefixtures("roomy")
def test_memory_bounds_the_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch, "free_memory", lambda: 5 << 30)
    assert count_processes(TrainConfig(batch=16), CPU) == 2
    monkeypatch.setattr(launch, "free_memory", lambda: 1 << 30)
    assert count_processes(TrainConfig(batch=16), CPU) == 1


def test_each_gpu_gets_a_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(launch.torch.cuda, "device_count", lambda: 4)
    cuda = torch.device("cuda")
    assert count_processes(TrainConfig(batch=16), cuda) == 4
    assert count_processes(TrainConfig(batch=3), cuda) == 3
    assert count_processes(TrainConfig(batch=16), torch.device("cuda", 1)) == 1
    with pytest.raises(DeviceError, match="at most one for each GPU, found 8 and 4 GPUs"):
        count_processes(TrainConfig(batch=16, processes=8), cuda)


def test_more_processes_than_pictures_are_refused() -> None:
    with pytest.raises(ConfigError, match="found 4 pictures for 8 processes x 1 parts"):
        count_processes(TrainConfig(batch=4, processes=8), CPU)


@pytest.mark.usefixtures("roomy")
def test_what_cannot_be_sent_keeps_a_run_in_one_process(two_start: TrainConfig) -> None:
    def local(image: Any, truth: Any) -> Any:
        return image, truth

    assert packed(local) is None
    assert count_processes(TrainConfig(batch=16), CPU, extra=local) == 1
    with pytest.raises(ConfigError, match="class in a module of its own"):
        train(two_start, extra_transform=local, quiet=True)


def test_this_machine_has_cores_and_memory() -> None:
    assert 1 <= launch.cores() <= (os.cpu_count() or 1)
    assert launch.free_memory() > 1 << 20
    assert threads_each(TrainConfig(threads=3), 2) == 3
    assert threads_each(TrainConfig(), 10_000) == 1


@pytest.mark.parametrize("wrong", [0, "many", 1.5])
def test_a_number_of_processes_that_is_none(wrong: Any) -> None:
    with pytest.raises(ConfigError, match="processes must be"):
        TrainConfig(processes=wrong)
