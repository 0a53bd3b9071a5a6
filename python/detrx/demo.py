"""``detrx demo``: the synthetic camera through the same loop as a real one, scored against its known truth."""

from __future__ import annotations

import base64
import html
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from string import Template
from typing import Any, Callable, Dict, List, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

import detrx
from detrx.bench import describe_machine, resident_mb
from detrx.detector import Detector
from detrx.draw import mosaic
from detrx.errors import ConfigError, MissingBackendError
from detrx.evaluation.coco import Metrics, Prediction, score
from detrx.live.loop import STAGES, FrameTimes, LoopReport, run
from detrx.live.scenes import Film, parse_scene
from detrx.live.sink import FilmSink, Shown, Sink, VideoSink, write_picture
from detrx.live.source import open_source
from detrx.types import Detections, Frame

PAGE = Path(__file__).parent / "assets" / "demo.html"
LEAST = 0.01
"""Scores under this tell AP nothing."""
PICTURES = 6
"""In the mosaic."""
FPS = 30
EVERY = 3
"""Of so many frames, one is in the page."""


@dataclass(frozen=True)
class DemoConfig:
    """See detrx work: offline, without GPU, camera or PyTorch, in under a minute."""

    out: Path = Path("runs/demo")
    """Folder for the page, the video and the numbers; what an earlier demo wrote there is replaced."""
    model: str = "demo"
    """The bundled one, or any model of your own that knows the generated scenes."""
    frames: int = 300
    """Frames that the synthetic camera sends, 30 a second."""
    seed: int = 20_000
    """Of the scenes; those that the bundled model was trained on lie elsewhere."""
    show: float = 0.5
    """The least score that is drawn, in [0, 1]."""
    threads: Optional[int] = None
    """CPU threads for one frame; none leaves it to the library."""

    def __post_init__(self) -> None:
        if self.frames < 1 or not 0 <= self.show <= 1:
            raise ConfigError(
                f"[demo] frames must be 1 or more and show in [0, 1], got {self.frames} and {self.show}"
            )


@dataclass(frozen=True)
class DemoReport:
    """What came out and where it lies."""

    page: Path
    video: Path
    loop: LoopReport
    metrics: Optional[Metrics]
    """Against the known truth; None where faster-coco-eval is not installed."""
    model: str
    """Backend, device, model, labels in one line."""


OnFrame = Callable[[Frame, Detections, FrameTimes], None]


def demo(
    config: DemoConfig,
    *,
    on_ready: Optional[Callable[[Detector], None]] = None,
    on_frame: Optional[OnFrame] = None,
) -> DemoReport:
    """Run the loop, score it, and write video, numbers and page.

    Args:
        config: what to do.
        on_ready: told of the detector before the first frame.
        on_frame: told of each frame, with the objects that are drawn.

    Raises:
        ConfigError: no such model.
        MissingBackendError: OpenCV or ONNX Runtime is not installed.
    """
    uri = f"test://shapes?live=1&fps={FPS}&frames={config.frames}&seed={config.seed}&cut=60"
    config.out.mkdir(parents=True, exist_ok=True)
    album = _Album(config.frames)
    video = VideoSink(config.out / "demo.mp4", fps=FPS)
    # What OpenCV's wheels encode fast, browsers do not play; so the page shows pictures one after another.
    film = FilmSink(every=EVERY)
    seen: List[Tuple[int, Detections]] = []

    def remember(frame: Frame, found: Detections, times: FrameTimes) -> None:
        seen.append((frame.index, found))
        if on_frame is not None:
            on_frame(frame, found.above(config.show), times)

    with Detector(config.model, threads=config.threads, threshold=LEAST) as detector:
        detector.warmup()
        if on_ready is not None:
            on_ready(detector)
        loop = run(
            detector, open_source(uri), sinks=[video, film, album], show=config.show, on_frame=remember
        )
        said = detector.describe()
    if loop.ended == "interrupted":
        raise KeyboardInterrupt
    write_picture(config.out / "mosaic.jpg", mosaic(album.pictures, columns=3))
    report = DemoReport(
        config.out / "index.html", video.path, loop, _score(Film(parse_scene(uri)), seen), said
    )
    _write_numbers(config.out / "demo.json", report)
    report.page.write_text(_page(report, config.out / "mosaic.jpg", film.frames), encoding="utf-8")
    return report


class _Album(Sink):
    """A few of the drawn pictures, spread over the run."""

    wants_picture = True

    def __init__(self, frames: int) -> None:
        self.pictures: List[NDArray[np.uint8]] = []
        self._step = max(1, frames // PICTURES)

    def write(self, shown: Shown) -> None:
        due = len(self.pictures) < PICTURES and shown.frame.index >= len(self.pictures) * self._step
        if due:
            self.pictures.append(shown.picture)


def _score(film: Film, seen: List[Tuple[int, Detections]]) -> Optional[Metrics]:
    """AP of the frames that the loop took, or None without the library for it."""
    images: List[Dict[str, Any]] = []
    annotations: List[Dict[str, Any]] = []
    for index, _ in seen:
        image, boxes, labels = film.frame(index)
        images.append({"id": index, "height": image.shape[0], "width": image.shape[1]})
        for box, label in zip(boxes.tolist(), labels.tolist()):
            sides = [box[0], box[1], box[2] - box[0], box[3] - box[1]]
            area = sides[2] * sides[3]
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "category_id": label + 1, "bbox": sides}
            )
            annotations[-1].update(area=area, iscrowd=0)
    categories = [{"id": place, "name": name} for place, name in enumerate(film.names, 1)]
    truth = {"images": images, "annotations": annotations, "categories": categories}
    try:
        return score(truth, [Prediction(index, found) for index, found in seen])
    except MissingBackendError:
        return None


def _write_numbers(path: Path, report: DemoReport) -> None:
    content = {
        "detrx": detrx.__version__,
        "model": report.model,
        "machine": describe_machine(),
        "frames": report.loop.frames,
        "dropped": report.loop.dropped,
        "fps": round(report.loop.fps, 2),
        "milliseconds": report.loop.times.table(),
        "memory_mb": round(resident_mb(), 1),
        "metrics": None if report.metrics is None else asdict(report.metrics),
    }
    path.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _page(report: DemoReport, picture: Path, film: List[bytes]) -> str:
    """One file that needs no other: film and pictures lie inside."""
    times, metrics = report.loop.times, report.metrics
    took = times.milliseconds("frame")
    tiles = [
        (f"{1000 / took:.0f}", "frames a second the detector could take"),
        (f"{took:.1f} ms", "picture in, boxes out (median)"),
        (f"{times.milliseconds('frame', percentile=99):.1f} ms", "the slowest in a hundred"),
    ]
    if metrics is not None:
        tiles.append((f"{metrics.ap:.3f}", "AP against the known truth"))
        tiles.append((f"{metrics.ap50:.3f}", "AP at IoU 0.50"))
    return Template(PAGE.read_text(encoding="utf-8")).substitute(
        version=html.escape(detrx.__version__),
        film=json.dumps([_inline(frame) for frame in film]),
        pause=round(1000 * EVERY / FPS),
        mosaic=_inline(picture.read_bytes()),
        tiles="".join(f"<div class=tile><b>{value}</b><span>{text}</span></div>" for value, text in tiles),
        stages=_stage_rows(report),
        classes=_class_rows(metrics),
        model=html.escape(report.model),
        machine=html.escape(describe_machine()),
        frames=report.loop.frames,
        dropped=report.loop.dropped,
    )


def _inline(jpeg: bytes) -> str:
    return "data:image/jpeg;base64," + base64.b64encode(jpeg).decode("ascii")


def _stage_rows(report: DemoReport) -> str:
    """One bar a stage; waiting for the camera is not work and has none."""
    table = report.loop.times.table()
    most = max(table[stage]["p50"] for stage in STAGES[1:]) or 1.0
    return "".join(
        f"<tr><th>{stage}<td>{table[stage]['p50']:.2f}<td>{table[stage]['p99']:.2f}"
        f'<td class=bar><i style="width:{100 * table[stage]["p50"] / most:.0f}%"></i>'
        for stage in STAGES[1:]
    )


def _class_rows(metrics: Optional[Metrics]) -> str:
    if metrics is None:
        return "<tr><th>not scored<td colspan=3>pip install faster-coco-eval"
    return "".join(
        f"<tr><th>{html.escape(name)}<td>{ap:.3f}<td>{ap50:.3f}"
        f'<td class=bar><i style="width:{100 * max(ap, 0):.0f}%"></i>'
        for name, (ap, ap50) in metrics.per_class.items()
    )
