"""What is counted of queries over a data set."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from detrx.explain.numbers import write_use
from detrx.explain.slot_plots import draw_slots, draw_use, slot_meaning
from detrx.explain.slots import SlotUse


def made(scores: list[list[float]], *, learned: bool = True) -> SlotUse:
    score = np.array(scores, np.float32)
    boxes = np.full((*score.shape, 4), 0.5, np.float32)
    return SlotUse(
        boxes,
        score,
        np.zeros(score.shape, np.int64),
        0.5,
        learned,
        ("a", "b"),
        np.full(len(score), 2, np.float32),
    )


def test_counts_and_spread() -> None:
    use = made([[0.9, 0.1, 0.6, 0.0], [0.5, 0.2, 0.7, 0.4]])
    assert use.counts.tolist() == [2, 0, 2, 0]
    assert use.used == 2
    assert use.effective == pytest.approx(2)
    assert (use.busiest(0.5), use.busiest(0.9)) == (1, 2)
    assert use.most_used(3).tolist() == [0, 2, 3]  # of the unused ones the more certain


def test_nothing_found_is_no_error() -> None:
    use = made([[0.1, 0.2]])
    assert (use.used, use.effective, use.busiest(0.9)) == (0, 0.0, 0)
    draw_slots(use, most=2)
    draw_use(use)


def test_boxes_are_small_wide_or_high() -> None:
    use = made([[0.9, 0.9, 0.9]])
    # In pictures twice as wide as high, so that the second is wide in pixels alone.
    use.boxes[0, :, 2:] = [[0.09, 0.1], [0.3, 0.4], [0.2, 0.5]]
    assert use.kinds().tolist() == [[0, 1, 2]]


def test_the_figure_says_what_a_slot_is() -> None:
    use = made([[0.9, 0.1]], learned=False)
    title = draw_slots(use, most=2)._suptitle.get_text()
    assert "not learnt queries" in title
    assert "ranked k-th" in slot_meaning(use)
    assert "same vector in every picture" in slot_meaning(made([[0.9]]))


def test_numbers_are_written(tmp_path: Path) -> None:
    write_use(made([[0.9, 0.1], [0.8, 0.2]]), tmp_path)
    content = json.loads((tmp_path / "slots.json").read_text())
    assert content["of_each_query"][0]["classes"] == {"a": 2}
    assert content["of_each_query"][0]["kinds"]["large, wider than high"] == 2
    with np.load(tmp_path / "slots.npz") as arrays:
        assert arrays["boxes"].shape == (2, 2, 4)
