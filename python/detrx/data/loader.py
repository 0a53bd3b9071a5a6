"""Batches for training: the same for a seed whatever the number of workers, decoded once where memory allows.

Workers are threads. Decoding, warping and normalising release the GIL, pictures are shared without copying, and the
cache of decoded pictures is one for all, where processes would hold one each.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import cast

import numpy as np
import torch
from numpy.typing import NDArray

from detrx.data.augment import AugmentConfig
from detrx.data.coco import Dataset, ImageRecord
from detrx.data.segmentation import Segmentation, make_mask
from detrx.data.transforms import ExtraTransform, Prepared, TrainTransform, to_sample
from detrx.errors import ConfigError, DataError
from detrx.images import opencv, read_image
from detrx.preprocess import MEAN, STD
from detrx.tensors import Batch, Sample, Targets

_AHEAD = 3
"""Batches that the workers prepare before they are asked for."""


class TrainLoader:
    """The batches of a data set, epoch after epoch."""

    def __init__(
        self,
        dataset: Dataset,
        *,
        canvas: tuple[int, int],
        batch: int,
        augment: AugmentConfig | None = None,
        seed: int = 0,
        workers: int = 2,
        mean: Sequence[float] = MEAN,
        std: Sequence[float] = STD,
        cache_mb: int = 512,
        max_bad: float = 0.01,
        extra: ExtraTransform | None = None,
        share: range | None = None,
    ) -> None:
        """
        Args:
            canvas: (height, width) in pixels.
            batch: pictures to a batch.
            workers: threads that prepare pictures; 0: in the calling thread.
            cache_mb: keep decoded pictures up to so many MB.
            max_bad: largest share, in [0, 1], of pictures that turn out broken when they are decoded.
            extra: run on each prepared canvas and its boxes, as TrainTransform says.
            share: which places of each batch to prepare, where several processes share it; None: all.

        Raises:
            ConfigError: batch is not positive.
            DataError: the data set is empty.
        """
        if batch < 1:
            raise ConfigError(
                f"[TrainLoader] batch must be at least 1 picture, found {batch}. Pass batch=1 or more."
            )
        if not len(dataset):
            raise DataError(
                "[TrainLoader] a data set must hold at least 1 picture, found none. Check its split."
            )
        self.dataset = dataset
        self.batch = batch
        self.share = range(batch) if share is None else share
        self.seed = seed
        self.workers = workers
        self.transform = TrainTransform(canvas, augment or AugmentConfig(), mean=mean, std=std, extra=extra)
        self.samples = SampleCache(dataset, canvas=canvas, megabytes=cache_mb, max_bad=max_bad)
        if self.transform.augment.plain:
            self.samples.shrink = False

    def __len__(self) -> int:
        """Batches to an epoch."""
        return -(-len(self.dataset) // self.batch)

    def epoch(
        self, number: int, *, strong: bool | Callable[[int], bool] = True, start: int = 0
    ) -> Iterator[Batch]:
        """The batches of an epoch in its own drawn order; the last one is filled up from the beginning.

        Args:
            strong: whether mosaic and mixup may happen; or what says so of each batch by its number, asked when its
                pictures are about to be prepared.
            start: batches to leave out, for resuming.

        Raises:
            DataError: more than max_bad of the pictures are broken.
        """
        order = np.random.default_rng((self.seed, number)).permutation(len(self.dataset))
        is_strong = strong if callable(strong) else lambda _, always=strong: always
        places = ((at, [at * self.batch + place for place in self.share]) for at in range(start, len(self)))
        if not self.workers:
            for at, chosen in places:
                mixed = is_strong(at)
                yield collate([self._prepare(number, order, place, mixed) for place in chosen])
            return
        pool = ThreadPoolExecutor(self.workers, thread_name_prefix="detrx-loader")
        waiting: deque[list[Future[Prepared]]] = deque()
        try:
            for at, chosen in places:
                mixed = is_strong(at)
                waiting.append([pool.submit(self._prepare, number, order, place, mixed) for place in chosen])
                if len(waiting) > _AHEAD:
                    yield collate([job.result() for job in waiting.popleft()])
            while waiting:
                yield collate([job.result() for job in waiting.popleft()])
        finally:
            pool.shutdown(wait=True, cancel_futures=True)

    def _prepare(self, epoch: int, order: NDArray[np.int64], place: int, strong: bool) -> Prepared:
        """One picture: all chance comes from the seed, the epoch and the place in it."""
        rng = np.random.default_rng((self.seed, epoch, place))
        sample = self.samples[int(order[place % len(order)])]
        return self.transform(
            sample, rng=rng, companion=lambda drawn: self.samples[drawn % len(order)], strong=strong
        )


class SampleCache:
    """Samples by index, decoded once while memory lasts."""

    def __init__(self, dataset: Dataset, *, canvas: tuple[int, int], megabytes: int, max_bad: float) -> None:
        self.dataset = dataset
        self.canvas = canvas
        self.shrink = True
        """Whether pictures more than three times too large are kept smaller."""
        self.bad: dict[int, str] = {}
        """Why a picture, by index, could not be decoded; the next one takes its place."""
        self._max_bad = max_bad
        self._room = megabytes << 20
        self._kept: dict[int, Sample] = {}
        self._lock = Lock()

    def __getitem__(self, index: int) -> Sample:
        """The sample of a picture, or of the next one that is not broken.

        Raises:
            DataError: more than max_bad of the pictures are broken.
        """
        for step in range(len(self.dataset)):
            at = (index + step) % len(self.dataset)
            found = self._kept.get(at)
            if found is None and at not in self.bad:
                found = self._read(at)
            if found is not None:
                return found
        raise DataError("[TrainLoader] every picture is broken. Type: detrx data check <root>")

    def _read(self, at: int) -> Sample | None:
        try:
            sample = read_sample(self.dataset.images[at], canvas=self.canvas if self.shrink else None)
        except DataError as error:
            self._note(at, error)
            return None
        size = sample.image.numel() + (0 if sample.masks is None else sample.masks.numel())
        with self._lock:
            if size <= self._room and at not in self._kept:
                self._room -= size
                self._kept[at] = sample
        return sample

    def _note(self, at: int, error: DataError) -> None:
        with self._lock:
            self.bad[at] = str(error)
        if len(self.bad) > self._max_bad * len(self.dataset):
            raise DataError(
                f"[TrainLoader] at most {100 * self._max_bad:g} % of the pictures may be broken, found "
                f"{len(self.bad)} of {len(self.dataset)}, the last: {error} Type: detrx data check <root>"
            ) from error


def read_sample(record: ImageRecord, *, canvas: tuple[int, int] | None = None) -> Sample:
    """Decode a picture; crowds are left out, boxes clipped to the picture as it is.

    Args:
        canvas: (height, width) that it is for: a picture more than three times too large is halved to twice the size
            needed. None: as it is.

    Raises:
        DataError: the picture is broken.
    """
    image = read_image(record.path)
    height, width = image.shape[:2]
    keep = ~record.crowd
    boxes = record.boxes[keep].clip(0, np.array([width, height, width, height], np.float32))
    large = (boxes[:, 2:] > boxes[:, :2]).all(1)
    boxes, labels = boxes[large], record.labels[keep][large]
    masks = None
    if record.masks is not None:
        masks = [record.masks[i] for i in np.flatnonzero(keep)[large]]
    if canvas is not None:
        fit = 2 * min(canvas[0] / height, canvas[1] / width)
        if fit < 2 / 3:
            cv2 = opencv()
            size = (max(1, round(width * fit)), max(1, round(height * fit)))
            image = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
            down, across = size[1] / height, size[0] / width
            boxes = boxes * np.array([across, down, across, down], np.float32)
    drawn = None if masks is None else _draw_masks(masks, (height, width), image.shape[:2])
    return to_sample(image, boxes, labels, drawn)


def _draw_masks(
    masks: list[Segmentation], size: tuple[int, int], wanted: tuple[int, int]
) -> NDArray[np.bool_]:
    """(N, H, W) at the size wanted: one after the other, so that only one is ever there at full size."""
    out = np.empty((len(masks), *wanted), bool)
    for place, mask in zip(out, masks):
        full = make_mask(mask, size=size)
        if size != wanted:
            flat = np.ascontiguousarray(full).view(np.uint8) * np.uint8(255)
            full = opencv().resize(flat, wanted[::-1], interpolation=opencv().INTER_AREA) > 127
        place[...] = full
    return out


def collate(prepared: list[Prepared]) -> Batch:
    """Stack canvases; targets are padded to the most objects, at least 1, so an empty batch is no special case."""
    counts = torch.tensor([len(p.labels) for p in prepared], dtype=torch.int32)
    most = max(1, int(counts.max()))
    boxes = torch.zeros(len(prepared), most, 4)
    labels = torch.zeros(len(prepared), most, dtype=torch.int64)
    for at, p in enumerate(prepared):
        boxes[at, : len(p.labels)] = p.boxes
        labels[at, : len(p.labels)] = p.labels
    pixels = torch.stack([p.pixels for p in prepared])
    masks = None
    if all(p.masks is not None for p in prepared):
        masks = torch.zeros(len(prepared), most, *pixels.shape[2:], dtype=torch.bool)
        for at, p in enumerate(prepared):
            masks[at, : len(p.labels)] = cast(torch.Tensor, p.masks)
    return Batch(pixels, Targets(boxes, labels, counts, masks))


def default_workers() -> int:
    """Threads that leave the training a core: 1 on two cores, at most 8."""
    return max(1, min(8, (os.cpu_count() or 2) // 2))
