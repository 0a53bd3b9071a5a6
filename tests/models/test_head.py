from __future__ import annotations

import torch

from detrx.models.head import decode, decode_outputs, fade
from detrx.tensors import Outputs


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


def test_masks_are_those_of_the_chosen_queries() -> None:
    logits, boxes = torch.randn(1, 2, 5, 3), torch.rand(1, 2, 5, 4)
    embeddings, pixels = torch.randn(1, 2, 5, 8), torch.randn(2, 8, 6, 4)
    made = Outputs(logits, boxes, embeddings=embeddings, pixels=pixels)
    dense = Outputs(logits, boxes, masks=torch.einsum("lbqe,behw->lbqhw", embeddings, pixels))
    scores, _, corners, masks = decode_outputs(made, top=7)
    assert masks.shape == (2, 7, 6, 4)
    whole = decode_outputs(dense, top=7)[3]
    torch.testing.assert_close(masks, fade(whole, corners))
    query = (logits[-1].sigmoid() == scores[:, 0, None, None]).any(-1).int().argmax(1)
    torch.testing.assert_close(whole[:, 0], dense.masks[-1][torch.arange(2), query])
    assert len(decode_outputs(Outputs(logits, boxes), top=7)) == 3


def test_masks_fade_outside_their_boxes() -> None:
    corners = torch.tensor([[[0.3, 0.25, 0.5, 0.5], [0.0, 0.0, 1.0, 1.0]]])
    part, whole = fade(torch.full((1, 2, 4, 5), 3.0), corners)[0]
    lost = (3 - part) / 8
    # Columns are 0.2 wide: the box begins within the second and ends within the third. Rows are 0.25 high.
    across, down = torch.tensor([0.5, 0.0, 0.0, 0.5, 1.5]), torch.tensor([0.0, 0.0, 0.0, 1.0])
    torch.testing.assert_close(lost, down[:, None] + across)
    assert bool((whole == 3).all())
    torch.testing.assert_close(
        fade(torch.zeros(1, 2, 4, 5), corners + 1e-6),
        fade(torch.zeros(1, 2, 4, 5), corners),
        atol=1e-3,
        rtol=0,
    )
