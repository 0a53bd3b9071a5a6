from __future__ import annotations

import dataclasses
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from detrx.errors import CheckpointError
from detrx.models.checkpoint import load_model, read_checkpoint
from detrx.train import state
from detrx.train.config import TrainConfig
from detrx.train.config_file import to_yaml
from detrx.train.loop import Trainer
from detrx.train.run import train
from detrx.train.setup import loss_for, make_model, model_config

_CHILD = """
import sys
sys.path.insert(0, sys.argv[1])
from pathlib import Path
from conftest import TINY
from detrx.models import zoo
zoo.MODELS["tiny"] = TINY
from detrx.train.config_file import read_config
from detrx.train.run import train
from detrx.train import fit
whole = fit.Fit._step
def slow(self, batch):
    whole(self, batch)
    print("step", self.clock.step, flush=True)
    import time
    time.sleep(0.1 if self.clock.step >= int(sys.argv[3]) else 0)
fit.Fit._step = slow
try:
    train(read_config(Path(sys.argv[2])), quiet=True)
except KeyboardInterrupt:
    sys.exit(130)
"""


def start(config: TrainConfig, folder: Path, *, until: int) -> subprocess.Popen[str]:
    """Begin a run in another process and come back when it has done so many steps."""
    path = folder / "settings.yaml"
    path.write_text(to_yaml(config))
    child = subprocess.Popen(
        [sys.executable, "-W", "error", "-c", _CHILD, str(Path(__file__).parent), str(path), str(until)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert child.stdout is not None
    for line in child.stdout:
        if line == f"step {until}\n":
            return child
    raise AssertionError(f"the run ended early with {child.wait()}")


def same_weights(one: Path, other: Path) -> None:
    a, b = read_checkpoint(one).tensors, read_checkpoint(other).tensors
    assert a.keys() == b.keys()
    assert [k for k in a if not torch.equal(a[k], b[k])] == []


def test_a_killed_run_goes_on_to_the_same_bits(quick: TrainConfig, tmp_path: Path) -> None:
    augmented = dataclasses.replace(quick.augment, hflip=0.5, jitter=1.0, mosaic=0.5, mixup=0.5)
    config = dataclasses.replace(quick, epochs=3, augment=augmented, save_every=0.0, eval_every=1)
    killed = dataclasses.replace(config, out=str(tmp_path / "killed"))
    child = start(killed, tmp_path, until=3)
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    child.stdout.close()  # type: ignore[union-attr]
    rows = len((tmp_path / "killed" / "log.csv").read_text().splitlines())
    stopped_at = state.read_state(tmp_path / "killed" / "last.safetensors").position.step
    assert 2 <= stopped_at < 6

    resumed = train(dataclasses.replace(killed, resume="auto"), quiet=True)
    whole = train(config, quiet=True)
    assert resumed.steps == whole.steps == 6
    same_weights(resumed.folder / "last.safetensors", whole.folder / "last.safetensors")
    same_weights(resumed.best, whole.best)
    assert resumed.metrics == whole.metrics
    assert resumed.best_map == whole.best_map
    after = (tmp_path / "killed" / "log.csv").read_text().splitlines()
    assert len(after) > rows
    assert sum(line.startswith("row,") for line in after) == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_ends_the_step_saves_and_tells(
    quick: TrainConfig, tmp_path: Path, number: signal.Signals, code: int
) -> None:
    config = dataclasses.replace(quick, epochs=500)
    child = start(config, tmp_path, until=2)
    child.send_signal(number)
    assert child.wait(timeout=30) == code
    child.stdout.close()  # type: ignore[union-attr]
    assert state.read_state(Path(config.out) / "last.safetensors").position.step >= 2


def test_a_second_interrupt_quits_at_once(quick: TrainConfig, tmp_path: Path) -> None:
    child = start(dataclasses.replace(quick, epochs=500), tmp_path, until=2)
    started = time.monotonic()
    child.send_signal(signal.SIGINT)
    time.sleep(0.01)
    child.send_signal(signal.SIGINT)
    assert child.wait(timeout=20) in (-signal.SIGINT, 130)
    assert time.monotonic() - started < 10
    child.stdout.close()  # type: ignore[union-attr]


def test_best_weights_open_as_a_model(quick: TrainConfig) -> None:
    result = train(quick, quiet=True)
    model, info = load_model(result.best)
    assert info.names == ("red", "green")
    assert info.canvas == (64, 64)
    assert all(name.startswith("model.") for name in read_checkpoint(result.best).tensors)
    assert model(torch.zeros(1, 3, 64, 64)).logits.shape[0] == 1


def test_weights_alone_are_no_state(quick: TrainConfig) -> None:
    result = train(quick, quiet=True)
    with pytest.raises(CheckpointError, match="--weights"):
        state.read_state(result.best)


def test_a_full_disk_keeps_the_state_before(quick: TrainConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    result = train(quick, quiet=True)
    last = result.folder / "last.safetensors"
    before = last.read_bytes()

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(state, "save_checkpoint", full)
    with pytest.raises(CheckpointError, match="No space left"):
        train(dataclasses.replace(quick, epochs=3, resume="auto"), quiet=True)
    assert last.read_bytes() == before
    assert not list(result.folder.glob(".last*"))


def test_a_run_may_go_on_in_float16(quick: TrainConfig) -> None:
    result = train(quick, quiet=True)
    saved = state.read_state(result.folder / "last.safetensors")
    shape = model_config(quick)
    trainer = Trainer(
        make_model(quick, shape, classes=2)[0],
        quick,
        loss=loss_for(quick.loss, shape),
        classes=2,
        queries=shape.queries,
        device=torch.device("cpu"),
    )
    trainer.scaler = torch.amp.GradScaler("cpu")
    state.restore(saved, trainer)
    assert trainer.scaler.get_scale() > 1
    ours = {f"model.{name}": value for name, value in trainer.model.state_dict().items()}
    assert all(torch.equal(saved.checkpoint.tensors[name], value) for name, value in ours.items())


def test_another_model_is_not_resumed(quick: TrainConfig) -> None:
    train(quick, quiet=True)
    with pytest.raises(CheckpointError, match="queries 12 -> 10"):
        train(dataclasses.replace(quick, queries=10, resume="auto"), quiet=True)
