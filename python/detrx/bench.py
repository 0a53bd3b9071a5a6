"""How fast models are here, stage by stage, from capture to detections."""

from __future__ import annotations

import json
import os
import platform
import time
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple

import numpy as np

from detrx.clocks import clocks, power_mode
from detrx.detector import Detector
from detrx.errors import ConfigError
from detrx.live.chart import write_chart
from detrx.live.loop import LoopReport, StageTimes, run
from detrx.live.source import open_source

STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class BenchConfig:
    """Measure models here, stage by stage, from picture to boxes, in turns."""

    model: Tuple[str, ...] = ("demo",)
    """One or more of: an .onnx file, an .engine, weights, a run folder, "demo". They take turns, so that what else the
    machine does meets all of them."""
    source: str = "test://shapes"
    """What to look at, as `detrx detect` takes it."""
    frames: int = 200
    """Frames that are measured of each model."""
    warmup: int = 20
    """Frames before them that are not."""
    turns: int = 4
    """Turns that the frames of a model are divided into."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Optional[int] = None
    """CPU threads for one frame; none leaves it to the library."""
    out: Optional[Path] = None
    """Write the result here as JSON."""
    picture: Optional[Path] = None
    """Draw it here, as PNG."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.warmup < 0 or self.turns < 1:
            raise ConfigError(
                "[bench] frames and turns must be 1 or more and warmup 0 or more, "
                f"got {self.frames}, {self.turns}, {self.warmup}"
            )
        if not self.model:
            raise ConfigError("[bench] no model is given")


@dataclass(frozen=True)
class ModelBench:
    """What was measured of one model."""

    model: str
    path: str
    canvas: List[int]
    """Height, width of the model's input in pixels."""
    backend: str
    frames: int
    dropped: int
    """Frames of a live source that came while the model was busy."""
    stages: Dict[str, Dict[str, float]]
    """Milliseconds: stage -> p50, p95, p99, one frame at a time, which is the least latency. "frame" is letterbox to
    finish, "all" adds the source, "age" is from capture to the end, of a live source. Nothing is drawn or written."""
    fps: float
    """Frames a second of wall clock, one at a time."""
    throughput: float
    """The same with as many frames at once as use the machine best, as `detrx detect` does; 0 of a live source."""
    cpu: float
    """Processor time over wall clock, one frame at a time: 1 is one core busy."""
    memory_mb: float
    """What opening and running it added to the resident memory of this process, in MiB, its libraries included."""
    file_mb: float
    """What the model's file takes, in MiB."""


@dataclass(frozen=True)
class BenchReport:
    """What was measured, and on what."""

    machine: str
    source: str
    power: str
    """The power mode that a Jetson is in; empty elsewhere."""
    clocks: Dict[str, float]
    """MHz of processor, GPU and memory after the last frame, as far as the system tells."""
    memory_mb: float
    """Resident memory of this process at the end, in MiB; 0 where the system does not say."""
    models: Tuple[ModelBench, ...]

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


@dataclass
class _Turns:
    """What one model has shown so far."""

    path: str
    detector: Detector
    grown: float
    reports: List[LoopReport] = field(default_factory=list)
    cpu: float = 0.0
    throughput: float = 0.0


def bench(config: BenchConfig) -> BenchReport:
    """Measure models on one source, in turns.

    Raises:
        ConfigError, SourceError, DeviceError: as Detector and open_source raise them.
    """
    with ExitStack() as stack:
        contenders = [_open(config, model, stack) for model in config.model]
        per_turn = max(1, config.frames // config.turns)
        for turn in range(min(config.turns, config.frames)):
            left = config.frames - turn * per_turn
            for contender in contenders:
                _take_turn(contender, config, left if turn == config.turns - 1 else per_turn)
        live = contenders[0].reports[0].times.ages.size > 0
        for contender in () if live else contenders:
            found = run(contender.detector, open_source(config.source), limit=config.frames)
            contender.throughput = found.fps
        report = BenchReport(
            machine=describe_machine(),
            source=contenders[0].reports[0].source,
            power=power_mode(),
            clocks=clocks(),
            memory_mb=round(resident_mb(), 1),
            models=tuple(_summary(contender) for contender in contenders),
        )
    _write(config, report)
    return report


def _open(config: BenchConfig, model: str, stack: ExitStack) -> _Turns:
    before = resident_mb()
    detector = stack.enter_context(Detector(model, device=config.device, threads=config.threads))
    if config.warmup:
        detector.warmup(runs=config.warmup)
    return _Turns(str(detector.path), detector, resident_mb() - before)


def _take_turn(contender: _Turns, config: BenchConfig, frames: int) -> None:
    before = time.process_time()
    report = run(contender.detector, open_source(config.source), limit=frames, lanes=1)
    contender.cpu += time.process_time() - before
    contender.reports.append(report)


def _summary(contender: _Turns) -> ModelBench:
    reports, info = contender.reports, contender.detector.info
    seconds, frames = sum(one.seconds for one in reports), sum(one.frames for one in reports)
    times = StageTimes(
        np.concatenate([one.times.rows for one in reports]),
        np.concatenate([one.times.ages for one in reports]),
    )
    return ModelBench(
        model=info.model,
        path=contender.path,
        canvas=list(info.canvas),
        backend=contender.detector.description,
        frames=frames,
        dropped=sum(one.dropped for one in reports),
        stages={stage: row for stage, row in times.table().items() if stage not in ("draw", "write")},
        fps=round(frames / seconds, 2),
        throughput=round(contender.throughput, 2),
        cpu=round(contender.cpu / seconds, 2),
        memory_mb=round(contender.grown, 1),
        file_mb=round(Path(contender.path).stat().st_size / 2**20, 2),
    )


def _write(config: BenchConfig, report: BenchReport) -> None:
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(report.to_json() + "\n", encoding="utf-8")
    if config.picture is not None:
        bars = [(title(one), one.backend, one.stages) for one in report.models]
        write_chart(config.picture, bars, title=f"milliseconds a frame: p50, line to p99 - {report.machine}")


def title(one: ModelBench) -> str:
    """The file and what is in it."""
    height, width = one.canvas
    return f"{Path(one.path).name}: {one.model} at {height} x {width}"


def resident_mb() -> float:
    """Resident memory of this process in MiB, 0 where /proc does not say."""
    if not STATM.is_file():
        return 0.0
    return int(STATM.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 2**20


def describe_machine() -> str:
    """Processor, cores, system and Python in one line."""
    system = f"{platform.system()} {platform.machine()}, Python {platform.python_version()}"
    return f"{processor()}, {os.cpu_count()} cores, {system}"


def processor() -> str:
    """The processor's name as the system tells it."""
    told: List[Any] = []
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        lines = cpuinfo.read_text(errors="replace").splitlines()
        told = [line.split(":", 1)[1].strip() for line in lines if line.lower().startswith("model name")]
    return str(told[0]) if told else platform.processor() or platform.machine()
