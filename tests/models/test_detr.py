"""DETR in the house: canvas, padding, heads, variants."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from detr_pairs import TINY, pictures, shake
from torch import nn

from detrx.errors import ConfigError
from detrx.models.config import DetrConfig
from detrx.models.detr import Detr
from detrx.models.detr_layers import ScaledNorm
from detrx.models.head import answers, decode_outputs
from detrx.models.zoo import DETR_MODELS, MODELS, build, config_for
from detrx.tensors import Outputs
from detrx.types import PADDING


def tiny(classes: int = 3, **changes: Any) -> Detr:
    torch.manual_seed(0)
    model = build(replace(TINY, **changes), classes=classes)
    shake(model)
    return model.eval()


def test_outputs_in_use_and_in_training() -> None:
    model = tiny()
    with torch.no_grad():
        found = model(torch.randn(2, 3, 64, 96))
        all_layers = model.train()(torch.randn(2, 3, 64, 96))
        last = tiny(auxiliary=False).train()(torch.randn(2, 3, 64, 96))
    assert found.logits.shape == (1, 2, 6, 4)
    assert found.boxes.shape == (1, 2, 6, 4)
    assert found.no_object
    assert all_layers.logits.shape[0] == 2
    assert last.logits.shape[0] == 1
    assert model.queries_for((640, 640)) == 6


def test_marked_padding_is_looked_away_from() -> None:
    """Whatever lies around a picture, the answer is that for the picture, in places of the canvas."""
    model = tiny()
    pixels, padding = pictures((64, 96), (96, 64))
    marked = pixels.masked_fill(padding[:, None], PADDING)
    wider = nn.functional.pad(marked, (0, 64, 0, 32), value=PADDING)
    with torch.no_grad():
        plain = model.locate(pixels, padding)
        found = model(marked)
        more = model(wider)
    size = (
        torch.tensor([[96, 64], [64, 96]])[:, None] / 96
    )  # width, height of each picture as share of 96 x 96
    torch.testing.assert_close(found.boxes[0, ..., :2], plain.boxes[0, ..., :2] * size)
    torch.testing.assert_close(found.boxes[0, ..., 2:], plain.boxes[0, ..., 2:] * size)
    torch.testing.assert_close(found.logits, plain.logits)
    # On a larger canvas the same boxes in pixels; features at the border see a little more emptiness.
    there, here = torch.tensor([160, 128] * 2), torch.tensor([96, 96] * 2)
    torch.testing.assert_close(more.boxes[0] * there, found.boxes[0] * here, rtol=0, atol=4)


def test_a_full_canvas_has_the_same_bits_masked_or_not() -> None:
    model, plain = tiny(), tiny(masked=False)
    pixels, _ = pictures((64, 96))
    with torch.no_grad():
        found, expected = model(pixels), plain(pixels)
        general = model.locate(pixels, torch.zeros(1, 64, 96, dtype=torch.bool))
    assert torch.equal(found.boxes, expected.boxes)
    assert torch.equal(general.boxes, expected.boxes)
    assert torch.equal(general.logits, expected.logits)


def test_a_picture_in_the_middle_of_the_canvas() -> None:
    model = tiny()
    pixels = torch.full((1, 3, 128, 128), PADDING)
    pixels[:, :, 32:96, 64:128] = pictures((64, 64))[0]
    with torch.no_grad():
        boxes = model(pixels).boxes[0, 0]
    assert (boxes[:, 0] >= 0.5).all()
    assert ((boxes[:, 1] >= 0.25) & (boxes[:, 1] <= 0.75)).all()
    assert (boxes[:, 2:] <= 0.5).all()


def test_any_canvas_and_none_too_large_for_learned_places() -> None:
    with torch.no_grad():
        assert tiny()(torch.randn(1, 3, 75, 131)).boxes.isfinite().all()
        with pytest.raises(ValueError, match="at most 50 x 50"):
            tiny(positions="learned", backbone="resnet18")(torch.randn(1, 3, 64, 51 * 32))


@pytest.mark.parametrize(
    "changes", [{"norm_first": True}, {"dilated": True}, {"no_object": False}, {"queries": 1}]
)
def test_variants_learn(changes: dict[str, Any]) -> None:
    model = tiny(**changes).train()
    found = model(torch.randn(2, 3, 64, 64))
    (found.logits.square().mean() + found.boxes.sum()).backward()
    learning = {name: p.grad for name, p in model.named_parameters()}
    assert all(grad is not None and grad.isfinite().all() for grad in learning.values())
    assert found.no_object is changes.get("no_object", True)
    assert found.logits.shape[-1] == 3 + found.no_object


def test_dc5_has_four_times_the_cells() -> None:
    pixels = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        plain, dilated = (tiny(dilated=d).backbone(pixels)[0].shape[2:] for d in (False, True))
    assert (plain, dilated) == ((2, 3), (4, 6))


@pytest.mark.parametrize("name", [n for n in DETR_MODELS if not n.startswith("detr-r") or "repvit" in n])
def test_backbones_for_the_edge(name: str) -> None:
    config = replace(DETR_MODELS[name], encoder_layers=1, decoder_layers=1)
    with torch.no_grad():
        found = build(config, classes=2).eval()(torch.randn(1, 3, 96, 64))
    assert found.boxes.shape == (1, 1, 100, 4)


def test_zoo_names() -> None:
    assert {"detr-r18", "detr-r34", "detr-r50", "detr-r50-dc5", "detr-r101", "detr-r101-dc5"} <= set(MODELS)
    assert all(config_for(name).name == name for name in MODELS)
    assert config_for("detr-r101-dc5") == DetrConfig(name="detr-r101-dc5", backbone="resnet101", dilated=True)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"heads": 5}, "multiple of heads"),
        ({"queries": 0}, "queries must be at least 1"),
        ({"dropout": 1.0}, "dropout"),
        ({"positions": "round"}, "sine or learned"),
        ({"columns": (3,)}, "below head_classes"),
        ({"head_classes": 4, "columns": (1, 1)}, "different numbers"),
    ],
)
def test_settings_that_cannot_be(change: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        DetrConfig(**change)


def test_a_head_of_other_width_than_the_classes() -> None:
    with pytest.raises(ConfigError, match="stand for 2 classes, got 3"):
        build(replace(TINY, head_classes=9, columns=(0, 8)), classes=3)


def test_denoising_is_not_for_this_family() -> None:
    with pytest.raises(ValueError, match="rt family"):
        tiny()(torch.randn(1, 3, 64, 64), object())  # type: ignore[arg-type]


def test_frozen_norms_have_no_parameters_and_fold() -> None:
    model = tiny()
    assert not [m for m in model.modules() if isinstance(m, nn.BatchNorm2d)]
    assert not any(".bn" in name for name, _ in model.named_parameters())
    pixels = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        before = model(pixels).boxes
        after = model.fuse()(pixels).boxes
    assert not [m for m in model.modules() if isinstance(m, ScaledNorm)]
    torch.testing.assert_close(after, before)
    assert [
        m
        for m in build(replace(TINY, frozen_norm=False), classes=2).modules()
        if isinstance(m, nn.BatchNorm2d)
    ]


def outputs(logits: list[list[float]], **more: Any) -> Outputs:
    table = torch.tensor(logits)[None, None]
    boxes = torch.tensor([0.5, 0.5, 0.2, 0.4]).expand(1, 1, len(logits), 4)
    return Outputs(table, boxes, **more)


def test_decoding_drops_no_object() -> None:
    found = outputs([[0.0, 2.0, 9.0], [5.0, 4.0, 0.0], [1.0, 1.0, 1.0]], no_object=True)
    scores, labels, boxes = decode_outputs(found, top=10)
    assert answers(found) == 3
    assert labels.tolist() == [[0, 0, 1]]
    softmax = torch.softmax(found.logits[0, 0], -1)
    torch.testing.assert_close(scores[0], torch.stack([softmax[1, 0], softmax[2, 0], softmax[0, 1]]))
    torch.testing.assert_close(boxes[0, 0], torch.tensor([0.4, 0.3, 0.6, 0.7]))


def test_decoding_takes_only_columns_of_classes() -> None:
    found = outputs([[9.0, 2.0, 1.0, 0.0]], no_object=True, columns=(1, 2))
    scores, labels, _ = decode_outputs(found, top=1)
    assert labels.tolist() == [[0]]
    torch.testing.assert_close(scores[0, 0], torch.softmax(found.logits[0, 0, 0], -1)[1])


def test_decoding_of_the_other_family_is_as_before() -> None:
    found = outputs([[3.0, 2.0], [1.0, -1.0]])
    scores, labels, _ = decode_outputs(found, top=4)
    assert answers(found) == 4
    assert labels.tolist() == [[0, 1, 0, 1]]
    torch.testing.assert_close(scores[0], torch.tensor([3.0, 2.0, 1.0, -1.0]).sigmoid())


def test_groups_of_queries_do_not_see_each_other() -> None:
    """Each group answers as it would alone, so that the first one learns what it is used for."""
    torch.manual_seed(0)
    config = replace(TINY, masked=False, dropout=0.0, no_object=False)
    model = build(replace(config, groups=3, encoder_head=True), classes=2).train()
    alone = build(config, classes=2).train()
    shared = {k: t for k, t in model.state_dict().items() if not k.startswith("aids.")}
    slots = model.aids.slots(model.query_embed.weight).detach().chunk(3)
    pixels = torch.randn(2, 3, 64, 96)
    found = model(pixels)
    layers = config.decoder_layers
    assert found.encoder.logits.shape == (1, 2, config.queries, 2)
    groups = [found.logits, *found.groups.logits.split(layers)]
    assert len(groups) == 3
    for own, logits in zip(slots, groups, strict=True):
        alone.load_state_dict({**shared, "query_embed.weight": own})
        torch.testing.assert_close(alone(pixels).logits, logits, atol=1e-5, rtol=1e-4)


def test_an_encoder_head_has_no_column_for_nothing() -> None:
    with pytest.raises(ConfigError, match="encoder_head needs no_object=False"):
        replace(TINY, encoder_head=True)
