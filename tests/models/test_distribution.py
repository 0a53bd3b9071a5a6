from __future__ import annotations

import pytest
import torch

from detrx.models.distribution import bin_offsets, edges_to_boxes
from detrx.models.encoder import position_embedding
from detrx.models.queries import make_anchors


@pytest.mark.parametrize("reg_scale", [4.0, 8.0])
def test_offsets_rise_and_mirror(reg_scale: float) -> None:
    found = bin_offsets(32, up=torch.tensor([0.5]), reg_scale=torch.tensor([reg_scale]))
    assert found.shape == (33,)
    assert bool((found.diff() > 0).all())
    torch.testing.assert_close(found, -found.flip(0))
    assert found[16] == 0
    assert found[-1] == reg_scale  # 2 * up * reg_scale
    assert float(found[-2]) == pytest.approx((0.5 * reg_scale + 1) ** (30 / 30) - 1, abs=1e-5)


def test_edges_move_outwards() -> None:
    box = torch.tensor([0.5, 0.5, 0.4, 0.2])
    scale = torch.tensor([4.0])
    torch.testing.assert_close(edges_to_boxes(box, torch.zeros(4), reg_scale=scale), box)
    moved = edges_to_boxes(box, torch.tensor([1.0, 0.0, 0.0, 2.0]), reg_scale=scale)
    # Left by a quarter of the width, bottom by half of the height.
    torch.testing.assert_close(moved, torch.tensor([0.45, 0.55, 0.5, 0.3]))


def test_anchors_stand_on_cell_centres() -> None:
    anchors, valid = make_anchors([(2, 4), (1, 2)])
    assert anchors.shape == (1, 10, 4)
    assert bool(valid.all())
    boxes = anchors.sigmoid()[0]
    torch.testing.assert_close(boxes[1], torch.tensor([0.375, 0.25, 0.05, 0.05]))
    torch.testing.assert_close(boxes[9], torch.tensor([0.75, 0.5, 0.1, 0.1]))


def test_anchors_at_the_border_are_not_used() -> None:
    anchors, valid = make_anchors([(80, 80)])
    inside = valid.view(80, 80)
    assert inside[0].sum() == inside[:, -1].sum() == 0
    assert bool(inside[1:-1, 1:-1].all())
    assert bool(anchors.isfinite().all())
    assert anchors[0, 0].sigmoid().tolist() == [1.0] * 4


def test_positions_tell_row_and_column_apart() -> None:
    found = position_embedding(3, 5, 16)[0]
    assert found.shape == (15, 16)
    assert torch.equal(found[0, :8], found[4, :8])  # the same row
    assert torch.equal(found[1, 8:], found[11, 8:])  # the same column
    assert len({tuple(row.tolist()) for row in found}) == 15
