"""How fast a model is here, stage by stage, from capture to detections."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Dict, List, Optional

from detrx.detector import Detector
from detrx.errors import ConfigError
from detrx.live.loop import run
from detrx.live.source import open_source

STATM = Path("/proc/self/statm")


@dataclass(frozen=True)
class BenchConfig:
    """Measure a model here, stage by stage, from picture to boxes."""

    model: str = "demo"
    """An .onnx file, weights, a run folder, or "demo"."""
    source: str = "test://shapes"
    """What to look at, as `detrx detect` takes it."""
    frames: int = 200
    """Frames that are measured."""
    warmup: int = 20
    """Frames before them that are not."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Optional[int] = None
    """CPU threads for one frame; none leaves it to the library."""
    out: Optional[Path] = None
    """Write the result here as JSON."""

    def __post_init__(self) -> None:
        if self.frames < 1 or self.warmup < 0:
            raise ConfigError(
                f"[bench] frames must be 1 or more and warmup 0 or more, got {self.frames}, {self.warmup}"
            )


@dataclass(frozen=True)
class BenchReport:
    """What was measured, and on what."""

    model: str
    canvas: List[int]
    """Height, width of the model's input in pixels."""
    backend: str
    machine: str
    source: str
    frames: int
    stages: Dict[str, Dict[str, float]]
    """Milliseconds: stage -> p50, p95, p99. "frame" is letterbox to finish, "all" adds the source."""
    fps: float
    """Frames a second of wall clock."""
    memory_mb: float
    """Resident memory of this process at the end, in MiB; 0 where the system does not say."""

    def to_json(self) -> str:
        return json.dumps(asdict(self), indent=1)


def bench(config: BenchConfig) -> BenchReport:
    """Measure one model on one source.

    Raises:
        ConfigError, SourceError, DeviceError: as Detector and open_source raise them.
    """
    with Detector(config.model, device=config.device, threads=config.threads) as detector:
        if config.warmup:
            detector.warmup(runs=config.warmup)
        found = run(detector, open_source(config.source), limit=config.frames, lanes=1)
        report = BenchReport(
            model=detector.info.model,
            canvas=list(detector.info.canvas),
            backend=detector.description,
            machine=describe_machine(),
            source=found.source,
            frames=found.frames,
            stages=found.times.table(),
            fps=round(found.fps, 2),
            memory_mb=round(resident_mb(), 1),
        )
    if config.out is not None:
        config.out.parent.mkdir(parents=True, exist_ok=True)
        config.out.write_text(report.to_json() + "\n", encoding="utf-8")
    return report


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
