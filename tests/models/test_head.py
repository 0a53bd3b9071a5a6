from __future__ import annotations

import torch

from detrx.models.head import decode


def test_the_best_pairs_in_order() -> None:
    logits = torch.tensor([[[0.0, 3.0], [2.0, -1.0], [-4.0, -5.0]]])
    boxes = torch.tensor([[[0.5, 0.5, 0.2, 0.4], [0.1, 0.1, 0.4, 0.1], [0.9, 0.9, 0.1, 0.1]]])
    scores, labels, corners = decode(logits, boxes, top=3)
    torch.testing.assert_close(scores, torch.tensor([[3.0, 2.0, 0.0]]).sigmoid())
    assert labels.tolist() == [[1, 0, 0]]
    assert labels.dtype == torch.int64
    expected = torch.tensor([[[0.4, 0.3, 0.6, 0.7], [0.0, 0.05, 0.3, 0.15], [0.4, 0.3, 0.6, 0.7]]])
    torch.testing.assert_close(corners, expected)


def test_no_more_than_there_are() -> None:
    scores, labels, corners = decode(torch.randn(2, 3, 2), torch.rand(2, 3, 4), top=100)
    assert scores.shape == labels.shape == (2, 6)
    assert corners.shape == (2, 6, 4)
    assert bool((scores[:, 1:] <= scores[:, :-1]).all())
    assert bool(((corners >= 0) & (corners <= 1)).all())
