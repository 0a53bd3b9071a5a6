from __future__ import annotations

import pytest
import torch

from detrx.boxes import to_corners
from detrx.losses.config import LossConfig
from detrx.losses.denoise import make_denoise
from detrx.tensors import Targets

CLASSES, QUERIES = 5, 7


def make(counts, *, seed=0, **settings):
    shape = (len(counts), max(counts))
    boxes = torch.full((*shape, 4), 0.5)
    boxes[..., 2:] = 0.2
    targets = Targets(boxes, torch.full(shape, 3), torch.tensor(counts, dtype=torch.int32))
    config = LossConfig(**settings)
    generator = torch.Generator().manual_seed(seed)
    return targets, make_denoise(
        targets, classes=CLASSES, queries=QUERIES, config=config, generator=generator
    )


@pytest.mark.parametrize(
    ("counts", "groups"), [([4, 1, 0], 25), ([3], 33), ([100], 1), ([150, 2], 1), ([1], 100)]
)
def test_sizes(counts, groups):
    targets, found = make(counts)
    count = 2 * groups * max(counts)
    assert found.groups == groups
    assert found.labels.shape == (len(counts), count)
    assert found.boxes.shape == (len(counts), count, 4)
    assert found.mask.shape == (count + QUERIES, count + QUERIES)
    assert found.boxes.isfinite().all()
    asked = torch.stack([(found.owners == target).sum(1) for target in range(max(counts))], 1)
    assert torch.equal(asked, targets.valid * groups)


def test_positives_stay_close_and_negatives_go_further():
    _, found = make([4, 2])
    moved = (to_corners(found.boxes.sigmoid()) - to_corners(torch.tensor([0.5, 0.5, 0.2, 0.2]))).abs() / 0.1
    positive = found.owners >= 0
    # A negative may turn inside out; it then has no size, and its edges are not where they were put.
    real = (found.labels < CLASSES) & (found.boxes.sigmoid()[..., 2:] > 1e-3).all(-1)
    assert (moved[positive] <= 1 + 1e-4).all()
    assert (moved[~positive & real] >= 1 - 1e-4).all()
    assert (moved[~positive & real] <= 2 + 1e-4).all()


def test_padding_has_its_own_class_and_is_nobodys():
    _, found = make([4, 1], label_noise=1.0)
    padding = torch.arange(found.labels.shape[1]) % 4 >= 1
    assert (found.labels[1, padding] == CLASSES).all()
    assert (found.labels[1, ~padding] < CLASSES).all()
    assert (found.owners[1, padding] == -1).all()
    assert set(found.owners[0].tolist()) == {-1, 0, 1, 2, 3}


@pytest.mark.parametrize("noise", [0.0, 0.5, 1.0])
def test_share_of_new_classes(noise):
    _, found = make([5] * 40, label_noise=noise)
    changed = (found.labels != 3).float().mean().item()
    assert changed == pytest.approx(noise / 2 * (CLASSES - 1) / CLASSES, abs=0.02)


def test_who_may_see_whom():
    _, found = make([2, 1], denoise=4)  # two groups of four, then the learned queries
    count = found.labels.shape[1]
    assert count == 8
    hidden = found.mask
    assert hidden[count:, :count].all()
    assert not hidden[count:, count:].any()
    assert not hidden[:count, count:].any()
    assert not hidden[:4, :4].any()
    assert hidden[:4, 4:8].all()


def test_the_same_seed_gives_the_same_noise():
    a, b, c = (make([3, 2], seed=seed)[1] for seed in (1, 1, 2))
    assert torch.equal(a.boxes, b.boxes)
    assert torch.equal(a.labels, b.labels)
    assert not torch.equal(a.boxes, c.boxes)


def test_nothing_to_repair():
    assert make([0, 0])[1] is None
    assert make([3], denoise=0)[1] is None


def test_no_noise_gives_the_truth():
    _, found = make([2], label_noise=0.0, box_noise=0.0)
    assert (found.labels == 3).all()
