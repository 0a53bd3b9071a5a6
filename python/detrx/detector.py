"""The public face of running a model: pictures in, objects out."""

from __future__ import annotations

import dataclasses
import importlib
import os
import threading
from pathlib import Path
from typing import Any, Dict, Iterator, List, Literal, Optional, Sequence, Tuple, Union, overload

import numpy as np
from numpy.typing import NDArray

from detrx.camera_picture import CameraPicture
from detrx.errors import ConfigError, DetrxError, DeviceError
from detrx.images import read_image
from detrx.preprocess import Picture as Laid
from detrx.preprocess import check_image, lay
from detrx.runtime.backend import Calls, find_model, open_backend
from detrx.runtime.frames import Filled, Frames, open_frames
from detrx.runtime.panoptic import THRESHOLD, divide
from detrx.types import Detections, Frame, Letterbox, ModelInfo, Panoptic, Raw

Picture = Any
"""A path, a (H, W, 3) uint8 RGB array, a CameraPicture, or a PIL image."""
Prepared = Union[NDArray[np.float32], Filled]
"""Pixels (B, 3, h, w), or one picture in the memory of the GPU."""


class Detector:
    """Finds objects in pictures. Threads may share one.

    Args:
        model: an ``.onnx`` file, weights (``.safetensors``, ``.pt``, ``.pth``), a run folder, or "demo".
        device: "auto" (a GPU where there is one), "cpu" or "cuda".
        threads: CPU threads for one image; None leaves it to the library.
        threshold: the least score, in [0, 1], that an answer keeps; ``Detections.above`` raises it later.
        batch: images to one inference where a list is given; None takes the graph's own number, or 1.
        canvas: (height, width) to run at, multiples of 32, for weights; None takes the model's own way.
        slots: frames under way at once on a GPU, each a captured graph; 0 runs them step by step, None chooses.

    Raises:
        ConfigError: no such model, or a setting out of range.
        CheckpointError, ExportError: the file is damaged or was not written by detrx.
        DeviceError: "cuda" was asked for and there is none.
        MissingBackendError: the library that runs it is not installed.
    """

    def __init__(
        self,
        model: Union[str, Path],
        *,
        device: str = "auto",
        threads: Optional[int] = None,
        threshold: float = 0.3,
        batch: Optional[int] = None,
        canvas: Optional[Tuple[int, int]] = None,
        slots: Optional[int] = None,
    ) -> None:
        if slots is not None and not 0 <= slots <= 8:
            raise ConfigError(f"[Detector] slots must be 0 to 8, got {slots}")
        if not 0 <= threshold <= 1:
            raise ConfigError(f"[Detector] threshold must be in [0, 1], got {threshold}")
        if batch is not None and batch < 1:
            raise ConfigError(f"[Detector] batch must be 1 or more, got {batch}")
        self.path = find_model(model)
        self.threshold = threshold
        self.dropped = 0
        """Detections thrown away so far: the model answered with something not finite or not a class."""
        self._backend: Any = open_backend(self.path, device=device, threads=threads)
        self._free: bool = getattr(self._backend, "free", False)
        self.info: ModelInfo = _with_canvas(self._backend.info, canvas, free=self._free)
        self.description: str = self._backend.description
        self._fixed: bool = self._backend.batch is not None
        self._batch = _batch_size(self._backend.batch, batch)
        self._threads = threads or os.cpu_count() or 1
        self._process = os.getpid()
        self._local = threading.local()
        self._count = threading.Lock()
        framed = not (self._free and self.info.sides)
        self._frames: Optional[Frames] = (
            open_frames(self._backend, self.info, slots=slots) if framed else None
        )

    @overload
    def predict(self, image: List[Any], *, bgr: bool = ...) -> List[Detections]: ...  # type: ignore[overload-overlap]

    @overload
    def predict(self, image: object, *, bgr: bool = ...) -> Detections: ...

    def predict(self, image: Any, *, bgr: bool = False) -> Union[Detections, List[Detections]]:
        """Find the objects above ``threshold``, best first.

        Args:
            image: a path, (H, W, 3) uint8 RGB, a CameraPicture, a PIL image, or a list of them. Never written to.
            bgr: arrays hold blue first, as OpenCV reads them.

        Returns:
            Detections, or a list of them for a list; an image without objects gives an empty one.

        Raises:
            TypeError, ValueError: no picture; in a list the message names the index.
            DataError: a file that cannot be read.
            DeviceError: the detector was closed, or made before a fork.
        """
        self._check_alive()
        if not isinstance(image, (list, tuple)):
            return self._run([to_pixels(image, bgr=bgr)])[0]
        found: List[Detections] = []
        for start in range(0, len(image), self._batch):
            group = enumerate(image[start : start + self._batch], start)
            found += self._run([_named(index, picture, bgr=bgr) for index, picture in group])
        return found

    def panoptic(self, image: Any, *, bgr: bool = False, threshold: float = THRESHOLD) -> Panoptic:
        """Divide a picture among things and stuff, by a model that was trained for it (detr-r50-panoptic).

        Args:
            image: as ``predict`` takes one.
            bgr: arrays hold blue first, as OpenCV reads them.
            threshold: the score that a segment must be above, in [0, 1]; the published one from DETR's paper.

        Raises:
            ConfigError: the model has no masks, or does not tell things from stuff.
            TypeError, ValueError, DataError, DeviceError: as ``predict``.
        """
        self._check_alive()
        pixels, boxes = self.prepare([to_pixels(image, bgr=bgr)])
        return self.divide(self.infer(pixels), 0, boxes[0], threshold=threshold)

    def divide(self, raw: Raw, index: int, box: Letterbox, *, threshold: float = THRESHOLD) -> Panoptic:
        """The segments of one image of a batch, in pixels of that image."""
        return divide(raw, index, box, info=self.info, threshold=threshold, threads=self._threads)

    @overload
    def stream(
        self,
        uri: Union[str, int, Path],
        *,
        timeout: float = ...,
        track: bool = ...,
        smooth: bool = ...,
        times: Literal[False] = ...,
    ) -> Iterator[Tuple[Frame, Detections]]: ...

    @overload
    def stream(
        self,
        uri: Union[str, int, Path],
        *,
        timeout: float = ...,
        track: bool = ...,
        smooth: bool = ...,
        times: Literal[True],
    ) -> Iterator[Tuple[Frame, Detections, Dict[str, float]]]: ...

    def stream(
        self,
        uri: Union[str, int, Path],
        *,
        timeout: float = 5.0,
        track: bool = False,
        smooth: bool = False,
        times: bool = False,
    ) -> Iterator[Tuple[Any, ...]]:
        """Detect on every frame of a camera, stream, video, folder or picture, in order.

        Reading, letterbox and inference of the next frames go on while the caller holds one. A live source gives
        its newest frame, drops what came while the model was busy, and comes back when it was lost; a file gives
        every frame.

        Args:
            uri: as ``detrx.live.source.open_source`` takes it: 0, "csi://0", "rtsp://...", "a.mp4", "photos/".
            timeout: seconds to wait for a live source to open, and for a frame before it counts as lost.
            track: number the objects, and keep to the numbers (docs/guides/zones.md); tracks go on below ``threshold``.
            smooth: track, and take the shaking out of the boxes.
            times: add the seconds of each stage: capture, letterbox, infer, finish.

        Raises:
            SourceError: it cannot be opened.
        """
        # The one look upwards: the live room stands on the detector, but users were promised this door.
        pipeline = importlib.import_module("detrx.live.pipeline")
        for found in pipeline.open_pipeline(self, uri, timeout=timeout, track=track, smooth=smooth):
            stages = (dict(zip(pipeline.STAGES, found.times)),) if times else ()
            yield (found.frame, found.detections, *stages)

    def warmup(self, *, runs: int = 3) -> None:
        """Run on grey a few times, so that the first real picture is not the slow one."""
        image = np.full((*self.info.canvas, 3), 114, np.uint8)
        for _ in range(runs):
            self._run([image])

    def prepare(self, images: Sequence[Laid]) -> Tuple[Prepared, List[Letterbox]]:
        """Letterbox at most one batch of images into this thread's own memory, valid until its next call.

        On a GPU a single image goes into the memory of a slot instead, where one is free, and is laid there.
        """
        frames = self._frames
        filled = frames.fill(images[0]) if frames is not None and len(images) == 1 else None
        if filled is not None:
            return filled, [filled.box]
        if self._free and self.info.sides:
            return lay(images, self.info, free=True, threads=self._threads)
        pixels, boxes = lay(images, self.info, out=self._pixels(), threads=self._threads)
        return (pixels if self._fixed else pixels[: len(images)]), boxes

    def infer(self, pixels: Prepared) -> Raw:
        """Run prepared pixels (B, 3, h, w), or a slot, through the model."""
        self._check_alive()
        if isinstance(pixels, Filled):
            return pixels.run()
        raw: Raw = self._backend.infer(pixels)
        return raw

    def calls(self, *, most: int) -> Calls:
        """How many calls at once, up to ``most``, give the most frames a second, what to call, and how to end it.

        On the CPU that is a thread to a call, where ``infer``, and ``most=1``, give all threads to one for the least
        latency; on a GPU a slot to a call.
        """
        self._check_alive()
        if self._frames is not None:
            return Calls(min(most, self._frames.slots), self.infer, lambda: None)
        beside = getattr(self._backend, "calls", None)
        found: Calls = Calls(1, self.infer, lambda: None) if beside is None else beside(most=most)
        return found

    def finish(
        self, raw: Raw, index: int, box: Letterbox, *, threshold: Optional[float] = None
    ) -> Detections:
        """The detections of one image of a batch, in pixels of that image, from ``threshold`` on or the detector's."""
        least = self.threshold if threshold is None else threshold
        scores, labels, boxes = raw.scores[index], raw.labels[index], raw.boxes[index]
        sound = np.isfinite(scores) & np.isfinite(boxes).all(axis=1)
        sound &= (labels >= 0) & (labels < len(self.info.names))
        if raw.masks is not None:
            looked = sound & (scores >= least)
            sound[looked] = np.isfinite(raw.masks[index, looked]).all(axis=(1, 2))
        if not sound.all():
            with self._count:
                self.dropped += int((~sound).sum())
        keep = np.flatnonzero(sound & (scores >= least))
        keep = keep[np.argsort(-scores[keep], kind="stable")]
        masks = None if raw.masks is None else box.undo_masks(raw.masks[index, keep])
        return Detections(
            box.undo(boxes[keep]),
            scores[keep].astype(np.float32),
            labels[keep].astype(np.int64),
            self.info.names,
            self.info.category_ids,
            masks,
        )

    def describe(self) -> str:
        """Backend, device, model and labels in one line, for people."""
        names, (height, width) = self.info.names, self.info.canvas
        shown = ", ".join(names[:8]) + (", ..." if len(names) > 8 else "")
        size = f"{height} x {width}"
        if self._free and self.info.sides:
            size = f"{self.info.sides[0]} to {self.info.sides[1]} pixels a side"
        return f"{self.description} | {self.info.model} at {size} | {len(names)} labels: {shown}"

    def close(self) -> None:
        """Give the model's memory back. Closing twice does nothing."""
        frames, self._frames = self._frames, None
        if frames is not None and self._process == os.getpid():
            frames.close()
        backend, self._backend = self._backend, None
        if backend is not None:
            backend.close()

    def __enter__(self) -> Detector:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        state = "closed" if self._backend is None else self.description
        return f"<Detector {self.info.model} of {len(self.info.names)} classes, {state}>"

    def _run(self, images: Sequence[Laid]) -> List[Detections]:
        """At most one batch."""
        pixels, boxes = self.prepare(images)
        raw = self.infer(pixels)
        return [self.finish(raw, index, box) for index, box in enumerate(boxes)]

    def _pixels(self) -> NDArray[np.float32]:
        pixels: Optional[NDArray[np.float32]] = getattr(self._local, "pixels", None)
        if pixels is None:
            pixels = np.zeros((self._batch, 3, *self.info.canvas), np.float32)
            self._local.pixels = pixels
        return pixels

    def _check_alive(self) -> None:
        if self._backend is None:
            raise DeviceError("[Detector] it was closed; make a new Detector")
        if self._process != os.getpid():
            raise DeviceError(
                f"[Detector] it was made in process {self._process} and does not survive a fork; "
                f"make one in each process, or start them with multiprocessing's 'spawn'"
            )


def to_pixels(picture: Picture, *, bgr: bool = False) -> Laid:
    """Read a path or PIL image; an array or CameraPicture stays as it lies in memory.

    Raises:
        TypeError, ValueError: no picture.
        DataError: a file that cannot be read.
    """
    if isinstance(picture, (str, Path)):
        return read_image(Path(picture))
    if isinstance(picture, CameraPicture):
        return picture
    if type(picture).__module__.partition(".")[0] == "PIL":
        upright = importlib.import_module("PIL.ImageOps").exif_transpose(picture)
        return check_image(np.asarray(upright.convert("RGB")), where="Detector.predict")
    image = check_image(picture, where="Detector.predict")
    return CameraPicture(image, "bgr") if bgr else image


def to_array(picture: Picture, *, bgr: bool = False) -> NDArray[np.uint8]:
    """The same as (H, W, 3) uint8 RGB."""
    found = to_pixels(picture, bgr=bgr)
    return found.to_rgb() if isinstance(found, CameraPicture) else found


def _named(index: int, picture: Picture, *, bgr: bool) -> Laid:
    """to_pixels with the index in what it raises."""
    try:
        return to_pixels(picture, bgr=bgr)
    except (TypeError, ValueError, DetrxError) as error:
        raise type(error)(f"image {index} of the list: {error}") from error


def _batch_size(fixed: Optional[int], asked: Optional[int]) -> int:
    if fixed is not None and asked is not None and asked > fixed:
        raise ConfigError(f"[Detector] the graph takes {fixed} images to a call, batch={asked} was asked for")
    return fixed or asked or 1


def _with_canvas(info: ModelInfo, canvas: Optional[Tuple[int, int]], *, free: bool) -> ModelInfo:
    """What the model says of itself, at another size."""
    if canvas is None or (not free and tuple(canvas) == info.canvas):
        return info
    if not free:
        raise ConfigError(
            f"[Detector] the graph takes {info.canvas[0]} x {info.canvas[1]} pixels, canvas={canvas} was asked for; "
            "write another with `detrx export WEIGHTS --canvas HEIGHT WIDTH`"
        )
    try:
        return dataclasses.replace(info, canvas=(int(canvas[0]), int(canvas[1])), sides=())
    except (ValueError, TypeError, IndexError) as error:
        raise ConfigError(f"[Detector] canvas must be two multiples of 32, got {canvas}") from error
