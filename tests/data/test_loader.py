"""Batches: the same for a seed whatever the workers and the cache, every picture once, broken ones replaced."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
import torch

from detrx.data.augment import AugmentConfig
from detrx.data.catalog import open_dataset
from detrx.data.coco import Dataset
from detrx.data.loader import TrainLoader, collate, read_sample
from detrx.data.synthetic import write_coco
from detrx.errors import ConfigError, DataError
from detrx.tensors import Batch

pytest.importorskip("cv2")
CANVAS = (64, 96)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory) -> Dataset:
    folder = write_coco(tmp_path_factory.mktemp("scenes"), train=10, val=1, size=(80, 100), seed=2)
    return open_dataset(folder, split="train")


def load(dataset: Dataset, *, epoch: int = 0, strong: bool = True, start: int = 0, **options) -> list[Batch]:
    loader = TrainLoader(dataset, canvas=CANVAS, batch=4, seed=7, **options)
    return list(loader.epoch(epoch, strong=strong, start=start))


def same(a: list[Batch], b: list[Batch]) -> bool:
    return len(a) == len(b) and all(
        torch.equal(x.pixels, y.pixels)
        and torch.equal(x.targets.boxes, y.targets.boxes)
        and torch.equal(x.targets.labels, y.targets.labels)
        for x, y in zip(a, b, strict=True)
    )


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 3}, {"workers": 2, "cache_mb": 0}])
def test_workers_and_cache_change_nothing(dataset, options):
    assert same(load(dataset, workers=0), load(dataset, **options))


def test_seed_and_epoch_change_everything(dataset):
    first = load(dataset, workers=0)
    assert not same(first, load(dataset, workers=0, epoch=1))
    other = TrainLoader(dataset, canvas=CANVAS, batch=4, seed=8, workers=0)
    assert not same(first, list(other.epoch(0)))


def test_strong_changes_can_be_turned_off(dataset):
    augment = AugmentConfig(mosaic=0.5, mixup=0.5)
    strong = load(dataset, workers=0, augment=augment)
    assert not same(strong, load(dataset, workers=0, augment=augment, strong=False))


@pytest.mark.parametrize("workers", [0, 2])
def test_strong_changes_may_end_inside_an_epoch(dataset, workers):
    augment = AugmentConfig(mosaic=0.5, mixup=0.5)
    mixed = load(dataset, workers=workers, augment=augment, strong=lambda number: number < 2)
    strong, weak = (load(dataset, workers=0, augment=augment, strong=s) for s in (True, False))
    assert same(mixed, strong[:2] + weak[2:])
    assert not same(mixed, strong)


def test_resuming_in_the_middle_gives_the_rest(dataset):
    assert same(load(dataset, workers=2)[1:], load(dataset, workers=2, start=1))


def test_an_epoch_holds_every_picture_and_fills_the_last_batch(dataset):
    batches = load(dataset, workers=0, augment=AugmentConfig.off())
    assert [b.pixels.shape for b in batches] == [(4, 3, *CANVAS)] * 3
    pictures = {tuple(p.flatten()[:3000].tolist()) for b in batches for p in b.pixels}
    assert len(pictures) == 10
    torch.testing.assert_close(batches[2].pixels[2:], batches[0].pixels[:2])


def test_a_batch_larger_than_the_data_set(dataset):
    loader = TrainLoader(dataset, canvas=CANVAS, batch=25, workers=2)
    assert len(loader) == 1
    (batch,) = loader.epoch(0)
    assert batch.pixels.shape[0] == 25


def test_leaving_an_epoch_early_ends_the_workers(dataset):
    batches = TrainLoader(dataset, canvas=CANVAS, batch=2, workers=2).epoch(0)
    next(batches)
    batches.close()
    assert list(batches) == []


def test_targets_are_padded_and_inside(dataset):
    for batch in load(dataset, workers=0):
        targets = batch.targets
        assert targets.counts.dtype == torch.int32
        assert (targets.boxes[~targets.valid] == 0).all()
        assert (targets.boxes[targets.valid][:, 2:] > 0).all()
        low = targets.boxes[..., :2] - targets.boxes[..., 2:] / 2
        high = targets.boxes[..., :2] + targets.boxes[..., 2:] / 2
        assert low.min() >= -1e-6
        assert high.max() <= 1 + 1e-6


def test_a_batch_without_boxes(dataset):
    empty = [
        dataclasses.replace(i, boxes=i.boxes[:0], labels=i.labels[:0], crowd=i.crowd[:0], areas=i.areas[:0])
        for i in dataset.images
    ]
    (first, *_) = load(dataclasses.replace(dataset, images=tuple(empty)), workers=0)
    assert first.targets.boxes.shape == (4, 1, 4)
    assert first.targets.counts.tolist() == [0, 0, 0, 0]


def test_crowds_are_not_trained_on(dataset):
    record = dataset.images[0]
    crowd = np.zeros(len(record.labels), np.bool_)
    crowd[0] = True
    sample = read_sample(dataclasses.replace(record, crowd=crowd))
    assert len(sample.labels) == len(record.labels) - 1


def test_a_large_picture_is_kept_smaller_with_its_boxes(dataset):
    record = dataset.images[0]
    full, small = read_sample(record), read_sample(record, canvas=(8, 10))
    assert small.image.shape == (3, 16, 20)
    torch.testing.assert_close(small.boxes * 5, full.boxes, atol=1e-4, rtol=0)


def test_a_picture_that_breaks_later_is_replaced_up_to_a_share(dataset, tmp_path):
    path = tmp_path / "gone.jpg"
    broken = (dataclasses.replace(dataset.images[0], path=path), *dataset.images[1:])
    found = dataclasses.replace(dataset, images=broken)
    with pytest.raises(DataError, match=r"(?s)at most 1 %.*gone\.jpg.*detrx data check"):
        load(found, workers=2)
    loader = TrainLoader(found, canvas=CANVAS, batch=4, workers=2, max_bad=0.1)
    assert sum(len(b.pixels) for b in loader.epoch(0)) == 12
    assert list(loader.samples.bad) == [0]


def test_wrong_use(dataset):
    with pytest.raises(ConfigError, match="at least 1 picture"):
        TrainLoader(dataset, canvas=CANVAS, batch=0)
    with pytest.raises(DataError, match="at least 1 picture"):
        TrainLoader(dataclasses.replace(dataset, images=()), canvas=CANVAS, batch=1)


def test_collate_keeps_order(dataset):
    loader = TrainLoader(dataset, canvas=CANVAS, batch=4, workers=0, augment=AugmentConfig.off())
    prepared = [
        loader.transform(
            loader.samples[i], rng=np.random.default_rng(i), companion=loader.samples.__getitem__
        )
        for i in range(3)
    ]
    batch = collate(prepared)
    for at, one in enumerate(prepared):
        count = int(batch.targets.counts[at])
        torch.testing.assert_close(batch.targets.boxes[at, :count], one.boxes)
