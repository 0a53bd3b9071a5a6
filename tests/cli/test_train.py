from __future__ import annotations

from pathlib import Path

import pytest
import tyro

from detrx.cli.train import next_commands, parse
from detrx.errors import ConfigError
from detrx.evaluation.config import EvalConfig
from detrx.export.config import ExportConfig
from detrx.live.job import DetectConfig


def test_every_setting_is_an_option() -> None:
    found = parse(
        ["photos", "--model", "rt-s", "--minutes", "20", "--canvas", "320", "640", "--levels", "16", "32"]
        + ["--augment.mosaic", "0.25", "--loss.label", "mal", "--freeze-norm", "True", "--lr", "1e-3"]
    )
    assert (found.data, found.model, found.minutes, found.canvas) == ("photos", "rt-s", 20.0, (320, 640))
    assert (found.levels, found.augment.mosaic, found.loss.label) == ((16, 32), 0.25, "mal")
    assert found.freeze_norm is True
    assert found.lr == 1e-3


def test_the_command_line_wins_over_the_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("data: photos\nbatch: 4\nlr: 0.001\nepochs: 7\n")
    found = parse(["--config", str(file), "--batch", "16", "--minutes", "5"])
    assert (found.data, found.batch, found.lr) == ("photos", 16, 0.001)
    assert (found.epochs, found.minutes) == (None, 5)
    assert "batch: 16 from the command line, not 4" in capsys.readouterr().err


def test_a_resumed_run_brings_its_settings(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: photos\nmodel: rt-l\nepochs: 9\n")
    found = parse(["--resume", "auto", "--out", str(tmp_path)])
    assert (found.data, found.model, found.epochs, found.resume) == ("photos", "rt-l", 9, "auto")
    assert parse([f"--resume={tmp_path}"]).model == "rt-l"


def test_a_run_that_was_moved_goes_on_where_it_is_now(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("data: photos\nout: runs/before\n")
    assert parse([f"--resume={tmp_path}/last.safetensors"]).out == str(tmp_path)
    assert parse([f"--resume={tmp_path}", "--out", "runs/copy"]).out == "runs/copy"


def test_an_unknown_key_names_the_nearest(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("wieghts: a.pth\n")
    with pytest.raises(ConfigError, match="nearest is weights"):
        parse([f"--config={file}"])
    with pytest.raises(ConfigError, match="followed by a value"):
        parse(["--config"])


@pytest.mark.parametrize(
    "args",
    [["--lr", "nan"], ["--batch", "0"], ["--canvas", "64", "70"], ["--epochs", "1", "--minutes", "1"]]
    + [["--loss.l1-weight", "nan"]],
)
def test_a_bad_value_ends_with_code_2(args: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises((SystemExit, ConfigError)) as caught:
        parse(["photos", *args])
    if isinstance(caught.value, SystemExit):
        assert caught.value.code == 2
        said = capsys.readouterr().err.replace("_", "-")
        assert args[0].lstrip("-").rpartition(".")[2] in said


def test_the_next_commands_can_be_typed() -> None:
    commands = next_commands(Path("runs/a/best.safetensors"), "photos")
    kinds = {"eval": EvalConfig, "export": ExportConfig, "detect": DetectConfig}
    found = {}
    for line in commands:
        program, command, *args = line.split()
        assert program == "detrx"
        found[command] = tyro.cli(
            kinds[command],
            args=args,
            config=(tyro.conf.PositionalRequiredArgs,) if command == "detect" else (),
        )
    assert {name: config.model for name, config in found.items()} == dict.fromkeys(
        kinds, "runs/a/best.safetensors"
    )
    assert found["detect"].source == "PHOTO_OR_FOLDER"
