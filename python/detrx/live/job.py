"""What ``detrx detect`` and ``detrx webcam`` do, for Python too."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Tuple

from tyro.conf import Positional

from detrx.detector import Detector
from detrx.errors import ConfigError, SourceError
from detrx.live.frames import Source, redact
from detrx.live.loop import LoopReport, OnFrame, run
from detrx.live.sink import CocoSink, JsonLinesSink, PictureSink, Sink, VideoSink, WindowSink, why_no_window
from detrx.live.source import open_source

OnReady = Callable[[Detector], None]
KINDS = ("pictures", "video", "jsonl", "coco")


@dataclass(frozen=True)
class DetectReport:
    """What was done and where it lies."""

    loop: LoopReport
    out: Path
    files: Tuple[Path, ...]
    """What was written; a folder stands for its pictures."""


@dataclass(frozen=True)
class DetectConfig:
    """Find objects in a picture, folder, glob, video, camera or stream, and write them down."""

    source: str
    """photo.jpg, photos/, 'photos/*.jpg', a.mp4, 0, rtsp://..., or test://shapes?frames=100; --source before it is
    understood too."""
    model: str = "demo"
    """An .onnx file, weights (.safetensors, .pt), a run folder, or "demo"."""
    out: Optional[Path] = None
    """Folder to write to; else the next free runs/detect, runs/detect-2, ..."""
    save: Tuple[str, ...] = ()
    """Any of: pictures video jsonl coco. Without it: pictures or video, as the source is, and jsonl."""
    threshold: float = 0.3
    """The least score, in [0, 1]."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Optional[int] = None
    """CPU threads for one frame; none leaves it to the library."""
    frames: Optional[int] = None
    """Stop after so many frames."""
    timeout: float = 5.0
    """Seconds to wait for a camera or stream."""

    def __post_init__(self) -> None:
        unknown = sorted(set(self.save) - set(KINDS))
        if unknown:
            raise ConfigError(f"[detect] save takes {', '.join(KINDS)}, got {', '.join(unknown)}")
        _check_frames("detect", self.frames)


@dataclass(frozen=True)
class WatchConfig:
    """A camera in a window, with what the model finds in it; q or Escape ends."""

    source: Positional[str] = "0"
    """0, /dev/video0, rtsp://..., a.mp4, or test://shapes?live=1; --source before it is understood too."""
    model: str = "demo"
    """An .onnx file, weights (.safetensors, .pt), a run folder, or "demo"."""
    threshold: float = 0.4
    """The least score, in [0, 1]."""
    device: str = "auto"
    """auto, cpu or cuda."""
    threads: Optional[int] = None
    """CPU threads for one frame; none leaves it to the library."""
    window: bool = True
    """Without a window, a line a second says what is seen."""
    frames: Optional[int] = None
    """Stop after so many frames."""
    timeout: float = 5.0
    """Seconds to wait for the camera."""

    def __post_init__(self) -> None:
        _check_frames("webcam", self.frames)


def detect(
    config: DetectConfig, *, on_ready: Optional[OnReady] = None, on_frame: Optional[OnFrame] = None
) -> DetectReport:
    """Run a model over a source and write what it finds.

    Args:
        config: what to do.
        on_ready: told of the detector before the first frame.
        on_frame: told of each frame.

    Raises:
        ConfigError: an unknown model or setting.
        SourceError: the source cannot be opened or read, or the folder not written to.
    """
    detector = Detector(
        config.model, device=config.device, threads=config.threads, threshold=config.threshold
    )
    with detector, open_source(config.source, timeout=config.timeout) as source:
        if on_ready is not None:
            on_ready(detector)
        folder = config.out if config.out is not None else free_folder(Path("runs/detect"))
        kinds = config.save or (("pictures" if source.fps is None else "video"), "jsonl")
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sinks, files = _make_sinks(kinds, folder, config.source, source)
        except OSError as error:
            raise SourceError(
                f"[detect] {folder} cannot be written to: {error}; give another with --out"
            ) from error
        report = run(detector, source, sinks=sinks, limit=config.frames, on_frame=on_frame)
    return DetectReport(report, folder, tuple(files))


def watch(
    config: WatchConfig, *, on_ready: Optional[OnReady] = None, on_frame: Optional[OnFrame] = None
) -> LoopReport:
    """Show a source with what a model finds in it, in a window, until q, Escape or Ctrl-C.

    Args:
        config: what to do.
        on_ready: told of the detector before the first frame.
        on_frame: told of each frame.

    Raises:
        ConfigError: no window can be opened here; the message says how to look without one.
        SourceError: the source cannot be opened or read.
    """
    reason = why_no_window() if config.window else None
    if reason is not None:
        raise ConfigError(
            f"[webcam] no window: {reason}. To look without one: `detrx webcam {redact(config.source)} --no-window` "
            f"prints what is seen, `detrx detect {redact(config.source)} --frames 300` writes a video; "
            f"over ssh, `ssh -X` lends your display"
        )
    detector = Detector(
        config.model, device=config.device, threads=config.threads, threshold=config.threshold
    )
    with detector:
        detector.warmup(runs=1)
        if on_ready is not None:
            on_ready(detector)
        source = open_source(config.source, timeout=config.timeout)
        sinks = [WindowSink(f"detrx - {source.name} - q ends")] if config.window else []
        return run(detector, source, sinks=sinks, limit=config.frames, on_frame=on_frame)


def _check_frames(where: str, frames: Optional[int]) -> None:
    if frames is not None and frames < 1:
        raise ConfigError(f"[{where}] frames must be 1 or more, got {frames}")


def free_folder(path: Path) -> Path:
    """The path itself, or with -2, -3, ... behind it: the first that holds nothing."""
    number, place = 1, path
    while place.exists() and (not place.is_dir() or any(place.iterdir())):
        number += 1
        place = path.with_name(f"{path.name}-{number}")
    return place


def _make_sinks(
    kinds: Tuple[str, ...], folder: Path, source: str, opened: Source
) -> Tuple[List[Sink], List[Path]]:
    sinks: List[Sink] = []
    files: List[Path] = []
    root = Path(source) if Path(source).is_dir() else None
    if "pictures" in kinds:
        sinks.append(PictureSink(folder / "pictures", root=root))
        files.append(folder / "pictures")
    if "video" in kinds:
        files.append(folder / "video.mp4")
        sinks.append(VideoSink(files[-1], fps=opened.fps))
    if "jsonl" in kinds:
        files.append(folder / "detections.jsonl")
        sinks.append(JsonLinesSink(files[-1]))
    if "coco" in kinds:
        files.append(folder / "detections.coco.json")
        sinks.append(CocoSink(files[-1]))
    return sinks, files
