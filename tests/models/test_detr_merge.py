"""The merge of masks beside transformers', where both define the same."""

from __future__ import annotations

import warnings
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F

from detrx.runtime.panoptic import merge
from detrx.types import Letterbox

# Here, since the import takes long, and leaves files open for the collector to close.
with warnings.catch_warnings():
    warnings.simplefilter("ignore", ResourceWarning)
    from transformers import DetrImageProcessor

LABELS = (0, 0, 1, 2)
SIZE = (12, 16)
"""Of the masks and of the picture: between cells theirs blends sigmoids and ours, as the original does, logits."""


def test_transformers_divides_the_pixels_alike() -> None:
    """Where all are equally sure, nothing is small and stuff has one query a kind, both say the same of every pixel."""
    coarse = torch.randn(1, 4, 5, 5, generator=torch.Generator().manual_seed(3))
    masks = 5 * F.interpolate(coarse, size=SIZE, mode="bilinear")
    logits = torch.full((1, 4, 4), -9.0)
    logits[0, range(4), LABELS] = 9.0
    theirs = DetrImageProcessor().post_process_panoptic_segmentation(
        SimpleNamespace(logits=logits, pred_masks=masks),
        threshold=0.85,
        mask_threshold=1e-6,
        overlap_mask_area_threshold=0.0,
        label_ids_to_fuse={1, 2},
        target_sizes=[SIZE],
    )[0]
    found = merge(
        np.full(4, 0.99, np.float32),
        np.array(LABELS),
        masks[0].numpy(),
        Letterbox((1.0, 1.0), (0, 0), SIZE, SIZE),
        things=(True, False, False),
        category_ids=(7, 120, 130),
    )
    assert len(found) == len(theirs["segments_info"]) == 4
    assert [one.label for one in found.segments] == [one["label_id"] for one in theirs["segments_info"]]
    assert (found.segments_map == theirs["segmentation"].numpy()).all()
