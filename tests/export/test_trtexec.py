from __future__ import annotations

import stat
from pathlib import Path

import onnx
import pytest
from torch import nn

from detrx.errors import ConfigError, EngineError, MissingBackendError
from detrx.export import engine as builder
from detrx.export.engine import EngineSettings, build_engine
from detrx.export.engine_graph import what_it_holds
from detrx.export.onnx import write_onnx
from detrx.export.plugin_nodes import ALL
from detrx.export.precision import lower
from detrx.export.trtexec import command, version_of
from detrx.types import ModelInfo

FAKE = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v{number}] # $*"
for word in "$@"; do
  case "$word" in
    --help) exit 0 ;;
    --saveEngine=*) out="${{word#--saveEngine=}}" ;;
  esac
  echo "$word" >> "{log}"
done
{end}
"""
WRITES = 'printf plan > "$out"'
FAILS = 'echo "[E] Error[10]: could not find any implementation for node {ForeignNode[/model/Conv]}"; exit 1'


@pytest.fixture(scope="module")
def graphs(model: nn.Module, info: ModelInfo, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("graphs")
    found = {
        "fixed": write_onnx(model, info, folder / "fixed.onnx"),
        "any": write_onnx(model, info, folder / "any.onnx", batch=None, nodes=ALL),
    }
    lowered, _ = lower(onnx.load(str(found["any"])), precision="fp16")
    onnx.save(lowered, str(folder / "half.onnx"))
    return {**found, "half": folder / "half.onnx"}


def fake(folder: Path, number: int, end: str = WRITES) -> Path:
    """A trtexec that writes down what it was told, and an engine."""
    program = folder / "trtexec"
    program.write_text(FAKE.format(number=number, log=folder / "words", end=end))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    return program


def words(folder: Path) -> list[str]:
    return (folder / "words").read_text().splitlines()


@pytest.mark.parametrize(
    ("number", "version", "wanted", "unwanted"),
    [
        (
            8502,
            "8.5.2",
            {"--buildOnly", "--fp16", "--precisionConstraints=obey"},
            {"--stronglyTyped", "--skipInference"},
        ),
        (8601, "8.6.1", {"--skipInference", "--fp16"}, {"--buildOnly", "--stronglyTyped"}),
        (100300, "10.3.0", {"--skipInference", "--stronglyTyped"}, {"--fp16", "--buildOnly"}),
        (110100, "11.1.0", {"--skipInference"}, {"--fp16", "--stronglyTyped"}),
    ],
)
def test_each_version_is_told_in_its_own_words(
    graphs: dict[str, Path], tmp_path: Path, number: int, version: str, wanted: set[str], unwanted: set[str]
) -> None:
    library = tmp_path / "libdetrx_plugins.so"
    library.write_bytes(b"")
    settings = EngineSettings(
        batch=(1, 4, 8),
        workspace=512,
        plugins=library,
        timing_cache=tmp_path / "t",
        trtexec=fake(tmp_path, number),
    )
    built = build_engine(graphs["half"], tmp_path / "a.engine", settings)
    assert (built.version, built.flavour) == (version, "tensorrt")
    assert (tmp_path / "a.engine").read_bytes() == b"plan"
    told = words(tmp_path)
    assert wanted <= set(told)
    assert not unwanted & set(told)
    assert {"--memPoolSize=workspace:512", "--profilingVerbosity=detailed", "--noTF32"} <= set(told)
    shapes = {f"--{n}Shapes=pixels:{b}x3x64x96" for n, b in (("min", 1), ("opt", 4), ("max", 8))}
    assert shapes <= set(told)
    assert f"--{'plugins' if number == 8502 else 'dynamicPlugins'}={library}" in told
    pinned = [word for word in told if word.startswith("--layerPrecisions=")]
    assert bool(pinned) == (number < 9000)
    if pinned:
        assert "bbox_head" in pinned[0]
        assert "/conv_stem/" not in pinned[0]


def test_a_fixed_batch_has_no_shapes(graphs: dict[str, Path], tmp_path: Path) -> None:
    holds = what_it_holds(graphs["fixed"], "10")
    line = command(Path("t"), graphs["fixed"], tmp_path / "a", EngineSettings(), holds, version=(10, 3))
    assert not [word for word in line if "Shapes" in word or "fp16" in word]
    assert (holds.batch, holds.pixels, holds.fp16, holds.plugins) == (1, (3, 64, 96), False, ())


def test_a_failing_build_leaves_nothing_and_says_why(graphs: dict[str, Path], tmp_path: Path) -> None:
    settings = EngineSettings(trtexec=fake(tmp_path, 100300, FAILS))
    with pytest.raises(EngineError, match=r"built nothing \(exit 1\).*could not find any implementation"):
        build_engine(graphs["fixed"], tmp_path / "a.engine", settings)
    assert not list(tmp_path.glob("*.engine*"))
    assert not list(tmp_path.glob(".a*"))


def test_another_version_than_asked_for_is_refused(graphs: dict[str, Path], tmp_path: Path) -> None:
    settings = EngineSettings(target="10", trtexec=fake(tmp_path, 8601))
    with pytest.raises(EngineError, match=r"asked for TensorRT 10 and found 8\.6\.1"):
        build_engine(graphs["fixed"], tmp_path / "a.engine", settings)


def test_a_program_that_says_no_version_is_refused(tmp_path: Path) -> None:
    program = tmp_path / "trtexec"
    program.write_text("#!/bin/sh\necho hello\n")
    program.chmod(0o755)
    with pytest.raises(EngineError, match="does not say its version"):
        version_of(program)


def test_the_installed_plugins_are_taken_where_the_graph_needs_them(
    graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And are what the sidecar will name."""
    monkeypatch.setattr(builder, "plugin_library", lambda major: tmp_path / f"lib{major}.so")
    settings = EngineSettings(trtexec=fake(tmp_path, 100300))
    built = build_engine(graphs["any"], tmp_path / "a.engine", settings)
    assert built.plugins == tmp_path / "lib10.so"
    assert f"--dynamicPlugins={built.plugins}" in words(tmp_path)
    (tmp_path / "words").unlink()
    assert build_engine(graphs["fixed"], tmp_path / "b.engine", settings).plugins is None
    assert not any("Plugins" in word for word in words(tmp_path))
    holds = what_it_holds(graphs["any"], "auto")
    assert builder.plugins_for(EngineSettings(target="rtx"), holds, 1) is None


@pytest.mark.parametrize(
    ("name", "target", "message"),
    [
        ("any", "rtx", r"TensorRT-RTX has no plugins, and .*Detrx\w+\) is one: --graph pure"),
        ("fixed", "8.5", r"no LayerNormalization, found at .*: --graph plugin"),
    ],
)
def test_what_a_version_cannot_take_is_named(
    graphs: dict[str, Path], tmp_path: Path, name: str, target: str, message: str
) -> None:
    with pytest.raises(EngineError, match=message):
        what_it_holds(graphs[name], target)


def test_a_damaged_graph_is_refused(tmp_path: Path) -> None:
    (tmp_path / "a.onnx").write_bytes(b"no graph")
    with pytest.raises(EngineError, match=r"(not an ONNX file|must take 'pixels')"):
        what_it_holds(tmp_path / "a.onnx", "auto")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"target": "9"}, "tensorrt must be one of"),
        ({"batch": (2, 1, 4)}, "batches must be"),
        ({"workspace": 0}, "workspace must be"),
        ({"capabilities": ("8.6",)}, "capabilities are for TensorRT-RTX"),
        ({"target": "rtx", "capabilities": ("7.2",)}, "of 7.5, 8.0"),
        ({"target": "rtx", "timing_cache": Path("t")}, "times nothing when it builds"),
        ({"plugins": Path("none.so")}, "no such file for plugins"),
    ],
)
def test_settings_out_of_range(tmp_path: Path, settings: dict, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_engine(tmp_path / "a.onnx", tmp_path / "a.engine", EngineSettings(**settings))


def test_without_tensorrt_the_error_says_what_to_type(
    graphs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder, "_import_tensorrt", lambda target: None)
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(MissingBackendError, match=r"apt install tensorrt.*--tensorrt rtx"):
        build_engine(graphs["fixed"], tmp_path / "a.engine", EngineSettings())
