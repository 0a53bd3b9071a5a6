"""Ours against transformers with the same weights, to 1e-5: what differs is the order of its attention's sums.

Equality to the bit holds against the original code, which is not at hand here; docs/decisions/0019 tells of it.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from detr_pairs import TINY, pair, pictures, their_config
from torch import Tensor, nn

from detrx.models.config import DetrConfig
from detrx.models.detr_layers import Attention, ScaledNorm

VARIANTS = {
    "plain": TINY,
    "dc5": replace(TINY, dilated=True),
    "learned": replace(TINY, positions="learned"),
}


def near(ours: Tensor, theirs: Tensor) -> None:
    torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", VARIANTS)
@pytest.mark.parametrize(
    "sizes",
    [[(96, 128)], [(90, 75), (64, 128)], [(128, 40), (70, 121), (33, 90)]],
    ids=["one", "two", "three"],
)
def test_boxes_and_logits(name: str, sizes: list[tuple[int, int]]) -> None:
    theirs, ours = pair(VARIANTS[name])
    pixels, padding = pictures(*sizes)
    with torch.no_grad():
        expected = theirs(pixels, pixel_mask=(~padding).long())
        found = ours.locate(pixels, padding if padding.any() else None)
    assert found.logits.shape[0] == 1
    near(found.logits[0], expected.logits)
    near(found.boxes[0], expected.pred_boxes)
    # Weights under which the answers do not differ would show little.
    assert found.boxes.std(2).amax() > 1e-3


def test_bottlenecks() -> None:
    theirs, ours = pair(replace(TINY, backbone="resnet50", encoder_layers=1, dilated=True))
    pixels, padding = pictures((64, 40), (50, 64))
    with torch.no_grad():
        near(ours.locate(pixels, padding).boxes[0], theirs(pixels, pixel_mask=(~padding).long()).pred_boxes)


def test_every_layer_in_training() -> None:
    """The first of two layers answers as the only one of a model that has the same weights up to there."""
    theirs, ours = pair(replace(TINY, dropout=0.0))
    shorter = type(theirs)(their_config(replace(TINY, decoder_layers=1)))
    shorter.load_state_dict({key: t for key, t in theirs.state_dict().items() if key in shorter.state_dict()})
    pixels, padding = pictures((64, 96), (96, 64))
    with torch.no_grad():
        first, last = (m.eval()(pixels, pixel_mask=(~padding).long()) for m in (shorter, theirs))
        found = ours.train().locate(pixels, padding)
    for layer, expected in enumerate((first, last)):
        near(found.logits[layer], expected.logits)
        near(found.boxes[layer], expected.pred_boxes)


@pytest.mark.parametrize("masked", [False, True])
def test_attention_is_that_of_torch_to_the_bit(masked: bool) -> None:
    torch.manual_seed(0)
    theirs, ours = nn.MultiheadAttention(32, 4), Attention(32, heads=4, dropout=0.0)
    ours.load_state_dict(theirs.state_dict())
    query, key, value = torch.randn(7, 2, 32), torch.randn(11, 2, 32), torch.randn(11, 2, 32)
    padding = torch.zeros(2, 11, dtype=torch.bool)
    padding[1, 8:] = masked
    hidden = (
        padding.float().masked_fill(padding, float("-inf")).repeat_interleave(4, 0)[:, None]
        if masked
        else None
    )
    with torch.no_grad():
        expected = theirs(query, key, value, key_padding_mask=padding if masked else None)[0]
        assert torch.equal(ours(query, key, value, hidden), expected)


def test_norms_have_the_original_s_rounding() -> None:
    torch.manual_seed(0)
    norm = nn.BatchNorm2d(6).eval()
    for tensor in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        tensor.uniform_(0.2, 2)
    x = torch.randn(2, 6, 5, 4)
    scale = norm.weight * (norm.running_var + 1e-5).rsqrt()
    shift = norm.bias - norm.running_mean * scale
    ours = ScaledNorm(norm)
    with torch.no_grad():
        assert torch.equal(ours(x), x * scale.reshape(1, -1, 1, 1) + shift.reshape(1, -1, 1, 1))
        torch.testing.assert_close(ours.plain()(x), ours(x))
    assert not list(ours.parameters())


def test_gradients_are_theirs() -> None:
    theirs, ours = pair(replace(TINY, dropout=0.0))
    pixels, padding = pictures((64, 96), (96, 64))
    expected = theirs(pixels, pixel_mask=(~padding).long())
    (expected.logits.square().sum() + expected.pred_boxes.square().sum()).backward()
    found = ours.locate(pixels, padding)
    (found.logits[-1].square().sum() + found.boxes[-1].square().sum()).backward()
    for own, other in (
        (ours.class_embed.weight, theirs.class_labels_classifier.weight),
        (ours.query_embed.weight, theirs.model.query_position_embeddings.weight),
        (ours.input_proj.weight, theirs.model.input_projection.weight),
        (ours.backbone.net.layer3[0].conv1.weight, theirs.model.backbone.model.layer3[0].conv1.weight),
    ):
        torch.testing.assert_close(own.grad, other.grad, rtol=1e-3, atol=1e-4 * float(other.grad.abs().max()))


def test_the_head_without_unused_columns() -> None:
    config: DetrConfig = replace(TINY, head_classes=7, columns=(1, 2, 5))
    theirs, ours = pair(config, classes=7)
    pixels, _ = pictures((64, 64))
    with torch.no_grad():
        found, expected = ours(pixels), theirs(pixels)
    near(found.logits[0], expected.logits)  # all 8 columns; decoding takes three
    assert found.columns == (1, 2, 5)
