from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from detrx.errors import ExportError
from detrx.export.parity import ParityReport, check, compare
from detrx.types import ModelInfo, Raw

CANVAS = (64, 96)
INFO = ModelInfo("tiny", ("disc", "ring", "star"), (7, 3, 900), CANVAS)


def answer(seed: int = 0, k: int = 30) -> Raw:
    random = np.random.default_rng(seed)
    low = random.uniform(0, 0.6, (1, k, 2))
    boxes = np.concatenate([low, low + random.uniform(0.05, 0.4, (1, k, 2))], -1).astype(np.float32)
    scores = np.sort(random.uniform(0.02, 0.95, (1, k)).astype(np.float32))[:, ::-1].copy()
    return Raw(scores, random.integers(0, 3, (1, k)), boxes)


class Fixed:
    """Answers the same to everything, image by image."""

    info, description = INFO, "fixed"

    def __init__(self, raw: Raw, batch: int | None = 1) -> None:
        self.raw, self.batch = raw, batch

    def infer(self, pixels: np.ndarray) -> Raw:
        n = len(pixels)
        return Raw(*(np.repeat(x, n, 0) for x in (self.raw.scores, self.raw.labels, self.raw.boxes)))

    def close(self) -> None: ...


def report(one: Raw, other: Raw, *, pictures: int = 3, batch: int | None = 1) -> ParityReport:
    images = [(f"{i}.png", np.zeros((20, 30, 3), np.uint8)) for i in range(pictures)]
    return check(Fixed(one), Fixed(other, batch), images)


@pytest.mark.parametrize("batch", [1, 2, None])
def test_equal_answers_pass(batch: int | None) -> None:
    found = report(answer(), answer(), batch=batch)
    assert found.passed
    assert (found.score, found.box, len(found.images)) == (0.0, 0.0, 3)


def test_a_score_or_box_beyond_its_limit_fails() -> None:
    raw = answer()
    scores = raw.scores.copy()
    scores[0, 0] += 2e-3
    assert not report(raw, dataclasses.replace(raw, scores=scores)).passed
    boxes = raw.boxes.copy()
    boxes[0, 3, 2] += 0.6 / CANVAS[1]
    found = report(raw, dataclasses.replace(raw, boxes=boxes))
    assert not found.passed
    assert found.box == pytest.approx(0.6, abs=1e-3)
    boxes[0, 3, 2] -= 0.3 / CANVAS[1]
    assert report(raw, dataclasses.replace(raw, boxes=boxes)).passed


def test_swapped_ranks_of_near_ties_pass() -> None:
    raw = answer()
    scores = raw.scores.copy()
    scores[0, 4] = scores[0, 5] + 1e-6
    order = np.arange(30)
    order[[4, 5]] = 5, 4
    swapped = Raw(scores, raw.labels[:, order], raw.boxes[:, order])
    assert report(dataclasses.replace(raw, scores=scores), swapped).passed


def test_another_class_fails() -> None:
    raw = answer()
    labels = raw.labels.copy()
    labels[0, 0] = (labels[0, 0] + 1) % 3
    assert compare(raw, dataclasses.replace(raw, labels=labels), canvas=CANVAS)[1] > 0.5


def test_a_shorter_answer_is_compared_as_far_as_it_goes() -> None:
    raw = answer()
    short = Raw(raw.scores[:, :10], raw.labels[:, :10], raw.boxes[:, :10])
    assert report(raw, short).passed
    assert report(short, raw).passed


@pytest.mark.parametrize("field", ["scores", "boxes"])
def test_nan_fails(field: str) -> None:
    raw = answer()
    bad = getattr(raw, field).copy()
    bad[0, 29] = np.nan
    found = report(raw, dataclasses.replace(raw, **{field: bad}))
    assert not found.passed
    assert "nan" in found.table()


def test_the_table_names_the_worst_first() -> None:
    found = ParityReport(
        "a",
        "b",
        tuple(
            dataclasses.replace(report(answer(), answer()).images[0], name=n, box=b)
            for n, b in (("fine", 0.1), ("bad", 3.0))
        ),
    )
    rows = found.table().splitlines()
    assert [row.split()[0] for row in rows] == ["picture", "bad", "fine", "limit"]


def test_no_pictures_is_an_error() -> None:
    with pytest.raises(ExportError, match="at least one picture"):
        report(answer(), answer(), pictures=0)
    assert not ParityReport("a", "b", ()).passed
