"""Runs that several processes share. Two of them are started once, and train as often as the tests ask."""

from __future__ import annotations

import dataclasses
import json
import runpy
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tiny_detr import TINY_DETR

from detrx.errors import ConfigError, DeviceError, MissingBackendError
from detrx.models import zoo
from detrx.models.checkpoint import read_checkpoint
from detrx.tensors import Targets
from detrx.train import distributed, loop
from detrx.train.config import TrainConfig
from detrx.train.config_file import to_yaml
from detrx.train.distributed import Team, join, world
from detrx.train.folder import RunFolder
from detrx.train.gradients import pad
from detrx.train.log import read_rows
from detrx.train.run import train

SCENES = SimpleNamespace(**runpy.run_path(str(Path(__file__).parents[1] / "panoptic_scenes.py")))
_PROCESS = """
import json, os, sys, warnings
sys.path.insert(0, sys.argv[1])
from pathlib import Path
import torch
torch.set_num_threads(1)
from conftest import TINY
from tiny_detr import TINY_DETR
from detrx.models import zoo
zoo.MODELS.update({"tiny": TINY, "tiny-detr": TINY_DETR})
from detrx.errors import DetrxError
from detrx.train import course, fit, loop
from detrx.train.config_file import read_config
from detrx.train.run import train
course.draw_scores = lambda *_, **__: None
step, ready, mode = fit.Fit._step, loop.Trainer._ready, loop.train_mode
for line in sys.stdin:
    job = json.loads(line)
    os.environ.update(job["places"])
    fit.Fit._step, loop.Trainer._ready, loop.train_mode = step, ready, mode
    exec(job["first"], globals())
    said = []
    warnings.showwarning = lambda message, *_: said.append(str(message))
    try:
        result = train(read_config(Path(job["settings"])), quiet=True)
        answer = [result.steps, result.metrics.ap, *said]
    except (DetrxError, KeyboardInterrupt) as error:
        answer = [type(error).__name__, str(error), *said]
    print(json.dumps(answer), flush=True)
"""

_KEEP_NORMS = """
from torch.nn.modules.batchnorm import _BatchNorm
def keep_norms(model):
    model.train()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.eval()
loop.train_mode = keep_norms
"""


def free_port() -> str:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return str(one.getsockname()[1])


class Two:
    """Two processes, as torchrun would start them."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        command = [sys.executable, "-c", _PROCESS, str(Path(__file__).parent)]
        self.children = [
            subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in "12"
        ]

    def train(self, *configs: TrainConfig, first: str = "", **places: str) -> list[list[Any]]:
        """What each says at the end: steps and AP, or the error; then the warnings. ``first`` is run before."""
        places = {"WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": free_port(), **places}
        for rank, child in enumerate(self.children):
            settings = self.folder / f"{rank}.yaml"
            settings.write_text(to_yaml(configs[rank % len(configs)]))
            job = {"places": {**places, "RANK": str(rank)}, "settings": str(settings), "first": first}
            assert child.stdin is not None
            child.stdin.write(json.dumps(job) + "\n")
            child.stdin.flush()
        return [json.loads(child.stdout.readline()) for child in self.children if child.stdout]


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Two]:
    found = Two(tmp_path_factory.mktemp("two"))
    yield found
    for child in found.children:
        child.communicate(timeout=20)


def differences(one: Path, other: Path) -> dict[str, float]:
    """By how much the weights of two runs differ at most, where they do."""
    a, b = (read_checkpoint(path / "last.safetensors").tensors for path in (one, other))
    assert a.keys() == b.keys()
    found = {n: float((a[n].double() - b[n].double()).abs().max()) for n in a if "random.torch" not in n}
    return {name: value for name, value in found.items() if value}


@pytest.fixture
def scarce(write: Callable[..., Path], tmp_path: Path) -> Path:
    """Four pictures, two of them with nothing to find, so that now and then a process has no targets at all."""
    root = write(tmp_path / "scarce", pictures=4)
    path = root / "train" / "_annotations.coco.json"
    document = json.loads(path.read_text())
    document["annotations"] = [one for one in document["annotations"] if one["image_id"] > 2]
    path.write_text(json.dumps(document))
    return root


def test_two_processes_learn_as_one(quick: TrainConfig, two: Two, scarce: Path, tmp_path: Path) -> None:
    """The same pictures, noise, matches, normalisers and gradients; three pictures a step, which halves badly."""
    augmented = dataclasses.replace(quick.augment, hflip=0.5, jitter=1.0, mosaic=0.5)
    config = dataclasses.replace(quick, data=str(scarce), batch=3, epochs=3, augment=augmented)
    shared = dataclasses.replace(config, out=str(tmp_path / "shared"))
    one, other = two.train(shared, first=_KEEP_NORMS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "train_mode", loop.train_mode)
        exec(_KEEP_NORMS, {"loop": loop})
        alone = train(config, quiet=True)
    assert one == other == [alone.steps, alone.metrics.ap]
    weights = {
        n: v for n, v in differences(alone.folder, tmp_path / "shared").items() if "optimizer" not in n
    }
    assert max(weights.values()) < 5e-6  # of roundings: halves add up in another order
    rows = [read_rows(RunFolder(path)) for path in (alone.folder, tmp_path / "shared")]
    for ours, theirs in zip(*([row for row in table if "loss" in row] for table in rows)):
        terms = [k for k, v in ours.items() if isinstance(v, float) and k not in _OF_THE_MACHINE]
        assert {k: ours[k] for k in terms} == pytest.approx({k: theirs[k] for k in terms}, rel=1e-3, abs=1e-6)
        assert ours["fgl"] > 0


def test_two_processes_learn_masks_as_one(quick: TrainConfig, two: Two, tmp_path: Path) -> None:
    """A panoptic DETR: losses at every pixel, and each process divides its share of the pictures."""
    data = SCENES.write_scenes(tmp_path / "data", pictures=3)
    config = dataclasses.replace(
        quick,
        data=str(data),
        model="tiny-detr",
        masks=True,
        levels=None,
        queries=8,
        batch=3,
        freeze_norm=True,
    )
    one, other = two.train(dataclasses.replace(config, out=str(tmp_path / "shared")))
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(zoo.MODELS, "tiny-detr", TINY_DETR)
        alone = train(config, quiet=True)
    assert one == other == [alone.steps, alone.metrics.ap]
    weights = {
        n: v for n, v in differences(alone.folder, tmp_path / "shared").items() if "optimizer" not in n
    }
    assert max(weights.values()) < 5e-6
    rows = [read_rows(RunFolder(path)) for path in (alone.folder, tmp_path / "shared")]
    (ours, theirs), (steps, others) = (
        [[row for row in table if row["event"] == event] for table in rows]
        for event in ("evaluation", "step")
    )
    assert [row["panoptic"] for row in ours] == [row["panoptic"] for row in theirs]
    assert all(row["panoptic"].keys() >= {"pq", "pq_stuff"} for row in theirs)
    for term in ("mask", "dice"):
        assert [row[term] for row in others] == pytest.approx([row[term] for row in steps], rel=1e-4)


_OF_THE_MACHINE = ("seconds", "pictures_per_second", "memory_mb")


def test_a_signal_to_one_stops_both_and_they_go_on_to_the_same_bits(
    quick: TrainConfig, two: Two, tmp_path: Path
) -> None:
    config = dataclasses.replace(quick, epochs=3, eval_every=1)
    whole, cut = (dataclasses.replace(config, out=str(tmp_path / name)) for name in ("whole", "cut"))
    signalled = """
import signal
def signalled(self, batch):
    step(self, batch)
    if self.clock.step == 3 and os.environ["RANK"] == "1":
        os.kill(os.getpid(), signal.SIGINT)
fit.Fit._step = signalled
"""
    ended = two.train(whole)
    assert [one[0] for one in two.train(cut, first=signalled)] == ["KeyboardInterrupt"] * 2
    assert read_checkpoint(tmp_path / "cut" / "last.safetensors").extra["train"]["position"]["step"] == 3
    assert two.train(dataclasses.replace(cut, resume="auto")) == ended
    assert ended[0][0] == 6
    assert differences(tmp_path / "whole", tmp_path / "cut") == {}


def test_costs_that_are_bad_in_one_process_cost_both_the_step(
    quick: TrainConfig, two: Two, tmp_path: Path
) -> None:
    spoilt = """
def spoilt(self, batch, counts, progress):
    batch = ready(self, batch, counts, progress)
    if self.steps == 2 and os.environ["RANK"] == "1":
        batch.pixels[0] = float("nan")
    return batch
loop.Trainer._ready = spoilt
"""
    config = dataclasses.replace(quick, out=str(tmp_path / "spoilt"))
    one, other = two.train(config, first=spoilt)
    assert one[0] == other[0] == 4
    assert "a step is skipped" in one[2]
    assert "image 0 of the batch" in one[2]  # though it is the other one's
    assert read_checkpoint(tmp_path / "spoilt" / "last.safetensors").extra["train"]["health"]["skipped"] == 1


def test_processes_that_were_given_different_things_do_not_begin(
    quick: TrainConfig, two: Two, write: Callable[..., Path], tmp_path: Path
) -> None:
    one, other = two.train(quick, dataclasses.replace(quick, lr=1e-4))
    assert one[0] == other[0] == "ConfigError"
    assert "same settings as process 0, process 1 of 2 was not" in one[1]
    assert "lr 0.0001, not 0.0004" in other[1]
    one, other = two.train(dataclasses.replace(quick, processes=3))
    assert "processes must be auto or as many as WORLD_SIZE says, found 3 and 2" in one[1]
    one, other = two.train(dataclasses.replace(quick, batch=3, accumulate=2))
    assert "3 pictures for 2 processes x 2 parts" in one[1]
    assert other[0] == "DeviceError"  # it met the other one, or not quite
    assert "process 1" in other[1]


# --- without other processes


def test_shares_are_whole_and_as_equal_as_can_be() -> None:
    teams = [Team(rank, 3) for rank in range(3)]
    assert [list(team.share(5)) for team in teams] == [[0, 1], [2, 3], [4]]
    assert Team().share(5) == range(5)
    counts = torch.tensor([3, 1, 0, 2, 5, 1, 1])
    pieces = [list(team.pieces(counts, parts=2)) for team in teams]
    assert [[(p.first, p.whole, p.objects) for p in own] for own in pieces] == [
        [(0, 4, 3 + 1 + 2 + 1), (0, 3, 0 + 5 + 1)],
        [(2, 4, 7), (1, 3, 6)],
        [(3, 4, 7), (2, 3, 6)],
    ]


def test_alone_nothing_is_sent() -> None:
    team = Team()
    tensor = torch.ones(2)
    assert team.total(tensor) is tensor
    assert (team.most(1.0, 2.0), team.tell("word"), team.gather(3)) == ([1.0, 2.0], "word", [3])
    team.check_same("settings", {"lr": 1})
    assert join(0, 1, device=torch.device("cpu")) == Team()


def test_room_for_the_objects_of_others() -> None:
    targets = Targets(torch.rand(1, 2, 4), torch.ones(1, 2, dtype=torch.int64), torch.tensor([2]))
    wide = pad(targets, 5)
    assert wide.labels.tolist() == [[1, 1, 0, 0, 0]]
    assert torch.equal(wide.boxes[:, :2], targets.boxes)
    assert pad(targets, 1).labels.shape == (1, 2)


@pytest.mark.parametrize(
    ("given", "found"),
    [({}, None), ({"RANK": "1", "WORLD_SIZE": "2"}, (1, 2)), ({"RANK": "0", "WORLD_SIZE": "1"}, (0, 1))],
)
def test_the_world_is_what_torchrun_says(given: dict[str, str], found: tuple[int, int] | None) -> None:
    assert world(given) == found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"RANK": "0"}, "must both be whole numbers, found RANK='0' and WORLD_SIZE=''"),
        ({"RANK": "one", "WORLD_SIZE": "2"}, "RANK='one'"),
        ({"RANK": "2", "WORLD_SIZE": "2"}, "from 0 to WORLD_SIZE - 1"),
    ],
)
def test_a_world_that_does_not_fit_is_refused(given: dict[str, str], words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        world(given)


def test_meeting_without_a_place(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(ConfigError, match="MASTER_ADDR and MASTER_PORT must say where 2 processes meet"):
        join(0, 2, device=torch.device("cpu"))
    monkeypatch.setattr(distributed.dist, "is_nccl_available", lambda: False)
    with pytest.raises(MissingBackendError, match="NCCL, by which GPUs talk, is not available here"):
        join(0, 2, device=torch.device("cuda", 0))


def test_a_port_that_is_taken_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
        monkeypatch.setenv("MASTER_PORT", port)
        with pytest.raises(ConfigError, match=rf"127\.0\.0\.1:{port} in use by another run"):
            join(0, 2, device=torch.device("cpu"))


def test_others_that_do_not_come(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    monkeypatch.setenv("MASTER_PORT", free_port())
    monkeypatch.setattr(distributed, "GATHERING", distributed.timedelta(seconds=0.5))
    with pytest.raises(DeviceError, match="2 processes must meet at 127"):
        join(0, 2, device=torch.device("cpu"))
