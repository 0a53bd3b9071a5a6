"""The bench measures what it says, and writes it down."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from detrx.bench import BenchConfig, bench, describe_machine, resident_mb
from detrx.cli.bench import run as command
from detrx.errors import ConfigError
from detrx.images import read_image

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")
write_model = runpy.run_path(str(Path(__file__).parent / "tiny_model.py"))["write_model"]


def test_bench_reports_every_stage_of_each_model(tmp_path: Path) -> None:
    out, picture = tmp_path / "deep" / "bench.json", tmp_path / "bench.png"
    models = tuple(str(write_model(tmp_path / f"{name}.onnx")) for name in "ab")
    config = BenchConfig(
        models, source="test://shapes?size=64x96", frames=13, warmup=2, turns=3, out=out, picture=picture
    )
    report = bench(config)
    assert [one.path for one in report.models] == list(models)
    for one in report.models:
        assert (one.frames, one.dropped, one.canvas) == (13, 0, [64, 96])
        assert 0 < one.stages["infer"]["p50"] <= one.stages["infer"]["p99"]
        assert min(one.fps, one.throughput, one.cpu) > 0
    assert json.loads(out.read_text()) == json.loads(report.to_json())
    assert (read_image(picture).min(axis=(0, 1)) < 200).all()


def test_a_live_source_tells_the_age_of_its_frames(tmp_path: Path) -> None:
    source = "test://shapes?size=64x96&live=1&fps=200&frames=0"
    config = BenchConfig((str(write_model(tmp_path / "m.onnx")),), source=source, frames=5, warmup=0)
    (one,) = bench(config).models
    assert one.stages["age"]["p99"] > 0
    assert one.throughput == 0


def test_the_command_compares_models(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = str(write_model(tmp_path / "m.onnx"))
    assert command(["--model", model, model, "--source", "test://shapes?size=64x96", "--frames", "4"]) == 0
    told = capsys.readouterr().out
    assert told.count("side by side") == 2
    assert "x first" in told
    assert "tiny at 64 x 96" in told


def test_bench_refuses_nothing_to_measure() -> None:
    with pytest.raises(ConfigError, match="frames"):
        BenchConfig(frames=0)
    with pytest.raises(ConfigError, match="model"):
        BenchConfig(())


def test_the_machine_is_named() -> None:
    assert "cores" in describe_machine()
    assert resident_mb() >= 0
