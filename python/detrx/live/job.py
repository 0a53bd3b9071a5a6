"""What ``detrx detect`` and ``detrx webcam`` do, for Python too."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple, Union

from tyro.conf import Positional

from detrx.detector import Detector
from detrx.errors import ConfigError, SourceError
from detrx.live.frames import Source, redact
from detrx.live.loop import FrameTimes, LoopReport, OnFrame, Step, run
from detrx.live.panoptic_sink import PanopticSink
from detrx.live.send import SendSink
from detrx.live.sink import (
    CocoSink,
    CsvSink,
    JsonLinesSink,
    PictureSink,
    Sink,
    VideoSink,
    WindowSink,
    why_no_window,
)
from detrx.live.smooth import SmoothConfig, Smoother
from detrx.live.source import open_source
from detrx.live.track import TrackConfig, Tracker, worth_showing
from detrx.live.web import LEAST, PageConfig, WebPage
from detrx.live.zone_editor import ZoneEditor
from detrx.live.zone_plan import read_zones
from detrx.live.zones import Zones
from detrx.types import Detections, Frame, ModelInfo

OnReady = Callable[[Detector], None]
Config = Union["DetectConfig", "WatchConfig"]
OnPage = Callable[[str], None]
"""Told of the address to open."""
KINDS = ("pictures", "video", "jsonl", "csv", "coco", "panoptic")


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
    """Any of: pictures video jsonl csv coco, and panoptic of a panoptic model. Without it: pictures or video, as the
    source is, jsonl, and panoptic where it can be."""
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
    retry: Optional[float] = None
    """Seconds that a camera or stream which was lost is sought; 0 not at all, none for ever."""
    send: Optional[str] = None
    """Send the pictures on as H.264 through GStreamer: udp://HOST:PORT, or rtsp://SERVER/PATH."""
    web: Optional[str] = None
    """Serve a page to watch at HOST:PORT; --web alone is 127.0.0.1:8080."""
    track: bool = False
    """Number the objects, and keep to the numbers from frame to frame."""
    tracker: TrackConfig = field(default_factory=TrackConfig)
    """Of --track."""
    smooth: bool = False
    """Take the shaking out of the boxes; tracks them too."""
    smoother: SmoothConfig = field(default_factory=SmoothConfig)
    """Of --smooth."""
    zones: Optional[Path] = None
    """A zones.json of areas and lines that count the objects in them and across them; tracks them too. With --web they
    are drawn on the page, and the file need not exist yet."""
    page: PageConfig = field(default_factory=PageConfig)
    """Of --web."""

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
    retry: Optional[float] = None
    """Seconds that a camera which was lost is sought; 0 not at all, none for ever."""
    web: Optional[str] = None
    """In place of the window, serve a page at HOST:PORT; --web alone is 127.0.0.1:8080, and 0.0.0.0:8080 lets in
    other machines that have the token."""
    track: bool = False
    """Number the objects, and keep to the numbers from frame to frame."""
    tracker: TrackConfig = field(default_factory=TrackConfig)
    """Of --track."""
    smooth: bool = False
    """Take the shaking out of the boxes; tracks them too."""
    smoother: SmoothConfig = field(default_factory=SmoothConfig)
    """Of --smooth."""
    zones: Optional[Path] = None
    """A zones.json of areas and lines that count the objects in them and across them; tracks them too. With --web they
    are drawn on the page, and the file need not exist yet."""
    page: PageConfig = field(default_factory=PageConfig)
    """Of --web."""

    def __post_init__(self) -> None:
        _check_frames("webcam", self.frames)


def detect(
    config: DetectConfig,
    *,
    on_ready: Optional[OnReady] = None,
    on_frame: Optional[OnFrame] = None,
    on_page: Optional[OnPage] = None,
) -> DetectReport:
    """Run a model over a source and write what it finds.

    Args:
        config: what to do.
        on_ready: told of the detector before the first frame.
        on_frame: told of each frame.
        on_page: told where ``config.web`` is served.

    Raises:
        ConfigError: an unknown model or setting.
        SourceError: the source cannot be opened or read, or the folder not written to.
    """
    zones = _zones(config)
    with ExitStack() as stack:
        detector, page = _open(config, stack, on_ready, on_page)
        hear = page.hear if page is not None else None
        source = stack.enter_context(
            open_source(config.source, timeout=config.timeout, retry=config.retry, on_state=hear)
        )
        folder = config.out if config.out is not None else free_folder(Path("runs/detect"))
        kinds = _kinds(config.save, source, detector.info)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            sinks, files = _make_sinks(kinds, folder, config.source, source, zones, detector.info)
        except OSError as error:
            raise SourceError(
                f"[detect] {folder} cannot be written to: {error}; give another with --out"
            ) from error
        if config.send is not None:
            sinks.append(SendSink(config.send, fps=source.fps))
        report = _loop(config, detector, source, sinks, zones, page, on_frame)
    return DetectReport(report, folder, tuple(files))


def watch(
    config: WatchConfig,
    *,
    on_ready: Optional[OnReady] = None,
    on_frame: Optional[OnFrame] = None,
    on_page: Optional[OnPage] = None,
) -> LoopReport:
    """Show a source with what a model finds in it, in a window or a web page, until q, Escape or Ctrl-C.

    Args:
        config: what to do.
        on_ready: told of the detector before the first frame.
        on_frame: told of each frame.
        on_page: told where ``config.web`` is served.

    Raises:
        ConfigError: no window can be opened here; the message says how to look without one.
        SourceError: the source cannot be opened or read.
    """
    window = config.window and config.web is None
    reason = why_no_window() if window else None
    if reason is not None:
        raise ConfigError(
            f"[webcam] no window: {reason}. To look without one: `detrx webcam {redact(config.source)} --web` "
            f"shows it in a browser, `--no-window` prints what is seen; "
            f"`detrx detect {redact(config.source)} --frames 300` writes a video"
        )
    zones = _zones(config)
    with ExitStack() as stack:
        detector, page = _open(config, stack, on_ready, on_page)
        hear = page.hear if page is not None else None
        source = open_source(config.source, timeout=config.timeout, retry=config.retry, on_state=hear)
        sinks: List[Sink] = [WindowSink(f"detrx - {source.name} - q ends")] if window else []
        return _loop(config, detector, source, sinks, zones, page, on_frame)


def _loop(
    config: Config,
    detector: Detector,
    source: Source,
    sinks: Sequence[Sink],
    zones: Optional[Zones],
    page: Optional[WebPage],
    on_frame: Optional[OnFrame],
) -> LoopReport:
    """What both commands do once all is open."""
    if page is not None and zones is not None and config.zones is not None:
        editor = ZoneEditor(zones, config.zones)
        page.draws(editor.drawn, edit=editor.edit)
    report = run(
        detector,
        source,
        sinks=sinks,
        steps=_steps(config, zones),
        paints=[zones.paint] if zones is not None else [],
        limit=config.frames,
        show=config.threshold,
        on_frame=_tell(page, source, on_frame, config.threshold),
    )
    return _with_counts(report, zones)


def _open(
    config: Config,
    stack: ExitStack,
    on_ready: Optional[OnReady],
    on_page: Optional[OnPage],
) -> Tuple[Detector, Optional[WebPage]]:
    """The detector and, where one is wanted, the page, before the source: it can be seen to connect."""
    least = min(
        config.threshold,
        config.tracker.low if _follows(config) else 1.0,
        LEAST if config.web is not None else 1.0,
    )
    detector = stack.enter_context(
        Detector(config.model, device=config.device, threads=config.threads, threshold=least)
    )
    if isinstance(config, WatchConfig):
        detector.warmup(runs=1)
    if on_ready is not None:
        on_ready(detector)
    if config.web is None:
        return detector, None
    page = WebPage(
        config.web,
        names=detector.info.names,
        threshold=config.threshold,
        least=least,
        title=redact(config.source),
        model=detector.describe(),
        config=config.page,
    )
    stack.enter_context(page)
    if on_page is not None:
        on_page(page.url)
    return detector, page


def _tell(page: Optional[WebPage], source: Source, on_frame: Optional[OnFrame], threshold: float) -> OnFrame:
    """The page is told of all that was found, so that its slider can go lower; others of what is worth showing."""
    if page is not None:
        page.watch(source)

    def tell(frame: Frame, found: Detections, times: FrameTimes) -> None:
        if page is not None:
            page.take(frame, found, times)
        if on_frame is not None:
            on_frame(frame, worth_showing(found, threshold), times)

    return tell


def _steps(config: Config, zones: Optional[Zones]) -> List[Step]:
    """What is done to the detections of each frame."""
    steps: List[Step] = [Tracker(config.tracker, high=config.threshold)] if _follows(config) else []
    if config.smooth:
        steps.append(Smoother(config.smoother))
    return steps if zones is None else [*steps, zones]


def _follows(config: Config) -> bool:
    return config.track or config.smooth or config.zones is not None


def _zones(config: Config) -> Optional[Zones]:
    if config.zones is None:
        return None
    return Zones(read_zones(config.zones, empty=config.web is not None), lost=config.tracker.lost)


def _with_counts(report: LoopReport, zones: Optional[Zones]) -> LoopReport:
    return report if zones is None else replace(report, zones=zones.counts)


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


def _kinds(asked: Tuple[str, ...], source: Source, info: ModelInfo) -> Tuple[str, ...]:
    """What is to be written: what was asked for, or the usual."""
    if "panoptic" in asked and not info.things:
        raise ConfigError(
            f"[detect] --save panoptic is for models that tell things from stuff, as detr-r50-panoptic; "
            f"found {info.model}. Leave it out"
        )
    pictures = "pictures" if source.fps is None else "video"
    return asked or (pictures, "jsonl", *(("panoptic",) if info.things else ()))


def _make_sinks(
    kinds: Tuple[str, ...],
    folder: Path,
    source: str,
    opened: Source,
    zones: Optional[Zones],
    info: ModelInfo,
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
        sinks.append(JsonLinesSink(files[-1], says=None if zones is None else zones.state))
    if "csv" in kinds:
        files.append(folder / "detections.csv")
        sinks.append(CsvSink(files[-1]))
    if "coco" in kinds:
        files.append(folder / "detections.coco.json")
        sinks.append(CocoSink(files[-1]))
    if "panoptic" in kinds:
        files.append(folder / "panoptic.json")
        sinks.append(PanopticSink(files[-1], info))
    return sinks, files
