"""The best objects of logits and boxes, as models.head has them."""

from __future__ import annotations

import numpy as np
import pytest

from detrx import native

torch = pytest.importorskip("torch")


def decoded(logits, boxes, top, *, no_object):
    from detrx.ops.cross import cross

    shape = (len(logits), top)
    found = np.empty(shape, np.float32), np.empty(shape, np.int64), np.empty((*shape, 4), np.float32)
    native.load().decode(cross(logits), cross(boxes), no_object, *found, 2)
    return found


@pytest.mark.parametrize("no_object", [False, True])
@pytest.mark.parametrize("shape", [(2, 300, 80), (1, 1, 2), (3, 33, 92)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_best_are_those_of_the_graph(shape, dtype, no_object):
    from detrx.models.head import decode, decode_queries

    generator = torch.Generator().manual_seed(1)
    # All differ, so that there is one answer.
    logits = torch.stack([torch.randperm(shape[1] * shape[2], generator=generator) for _ in range(shape[0])])
    logits = (logits.reshape(shape) / 3000 - 4).to(dtype)
    boxes = torch.rand((*shape[:2], 4), generator=generator).to(dtype)
    candidates = shape[1] if no_object else shape[1] * shape[2]
    for top in {0, 1, min(300, candidates), candidates}:
        scores, labels, corners = decoded(logits, boxes, top, no_object=no_object)
        wide = logits.float(), boxes.float()
        wanted = decode_queries(*wide, top=top, no_object=True) if no_object else decode(*wide, top=top)
        np.testing.assert_allclose(scores, wanted[0].numpy(), rtol=1e-5, atol=1e-6)
        if dtype == torch.float32:
            np.testing.assert_array_equal(labels, wanted[1].numpy())
            np.testing.assert_allclose(corners, wanted[2].numpy(), atol=1e-6)


def test_among_equals_the_first_comes_first_and_nan_is_seen():
    logits = torch.zeros(1, 40, 30)
    logits[0, 7, 3] = float("nan")
    logits[0, 9, 4] = -0.0
    scores, labels, corners = decoded(logits, torch.full((1, 40, 4), 3.0), 300, no_object=False)
    assert np.isnan(scores[0, 0])
    assert labels[0, 1:].tolist() == [i % 30 for i in range(300) if i != 7 * 30 + 3]
    assert corners.min() == 1
    with pytest.raises(ValueError, match="can be answered"):
        decoded(logits, torch.zeros(1, 40, 4), 1201, no_object=False)
