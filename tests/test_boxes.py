from __future__ import annotations

import pytest
import torch

from detrx.boxes import area, iou_giou, to_centres, to_corners


def test_corners_and_centres_are_inverses():
    centres = torch.rand(7, 3, 4)
    torch.testing.assert_close(to_centres(to_corners(centres)), centres)
    assert to_corners(torch.tensor([0.5, 0.5, 0.2, 0.4])).tolist() == pytest.approx([0.4, 0.3, 0.6, 0.7])


@pytest.mark.parametrize(
    ("a", "b", "iou", "giou"),
    [
        ([0, 0, 2, 2], [0, 0, 2, 2], 1, 1),
        ([0, 0, 2, 2], [1, 0, 3, 2], 1 / 3, 1 / 3),
        ([0, 0, 1, 1], [2, 0, 3, 1], 0, -1 / 3),
        ([0, 0, 0, 0], [0, 0, 0, 0], 0, 0),
        ([1, 1, 1, 1], [0, 0, 2, 2], 0, 0),
    ],
)
def test_overlap(a, b, iou, giou):
    found = iou_giou(torch.tensor(a, dtype=torch.float32), torch.tensor(b, dtype=torch.float32))
    assert [x.item() for x in found] == pytest.approx([iou, giou])


def test_area_and_broadcast():
    boxes = to_corners(torch.rand(5, 4) * 0.5 + 0.2)
    assert area(boxes).shape == (5,)
    iou, giou = iou_giou(boxes[:, None], boxes)
    torch.testing.assert_close(iou.diagonal(), torch.ones(5))
    assert (giou <= iou + 1e-6).all()
