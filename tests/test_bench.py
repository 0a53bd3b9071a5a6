"""The bench measures what it says, and writes it down."""

from __future__ import annotations

import json
import runpy
from pathlib import Path

import pytest

from detrx.bench import BenchConfig, bench, describe_machine, resident_mb
from detrx.errors import ConfigError

pytest.importorskip("onnx")
pytest.importorskip("onnxruntime")
pytest.importorskip("cv2")
write_model = runpy.run_path(str(Path(__file__).parent / "tiny_model.py"))["write_model"]


def test_bench_reports_every_stage(tmp_path: Path) -> None:
    out = tmp_path / "deep" / "bench.json"
    model = write_model(tmp_path / "m.onnx")
    report = bench(BenchConfig(str(model), source="test://shapes?size=64x96", frames=12, warmup=2, out=out))
    assert report.frames == 12
    assert report.canvas == [64, 96]
    assert 0 < report.stages["infer"]["p50"] <= report.stages["infer"]["p99"]
    assert report.fps > 0
    assert json.loads(out.read_text()) == json.loads(report.to_json())


def test_bench_refuses_nothing_to_measure() -> None:
    with pytest.raises(ConfigError, match="frames"):
        BenchConfig(frames=0)


def test_the_machine_is_named() -> None:
    assert "cores" in describe_machine()
    assert resident_mb() >= 0
