"""Fine-tuning keeps what it knows: heads are re-made row by row, and nothing is lost without a word."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
from detr_pairs import TINY
from tiny_rt import TINY_RT

from detrx.errors import CheckpointError
from detrx.models.transplant import Transplant, transplant
from detrx.models.zoo import build

SMALL = replace(TINY, encoder_layers=1, decoder_layers=1, backbone="mobilenetv3_small_050")
RT = replace(TINY_RT, decoder_layers=1)


def models(
    names: str, other_names: str, config: Any = SMALL, other: Any = SMALL
) -> tuple[Any, Any, Transplant]:
    ours, theirs = names.split(), other_names.split()
    torch.manual_seed(0)
    model, learnt = build(config, classes=len(ours)), build(other, classes=len(theirs))
    for tensor in learnt.state_dict().values():
        if tensor.is_floating_point():
            tensor.add_(100)
    return model, learnt, transplant(model, learnt, names=ours, other_names=theirs)


def test_the_same_classes_take_everything() -> None:
    model, learnt, report = models("a b", "a b")
    assert all(torch.equal(t, learnt.state_dict()[key]) for key, t in model.state_dict().items())
    assert (report.partly, report.fresh, report.unused, report.table()) == ((), (), (), "")
    assert report.summary("x.pth") == f"{len(model.state_dict())} tensors from x.pth, 0 start afresh"


def test_classes_in_another_order_bring_their_rows() -> None:
    model, learnt, report = models("b a", "a b")
    assert torch.equal(model.class_embed.weight, learnt.class_embed.weight[[1, 0, 2]])
    assert not report.partly


def test_new_classes_start_afresh_beside_known_ones() -> None:
    model, learnt, report = models("new b other", "a b")
    head = model.class_embed.weight
    assert torch.equal(head[[1, 3]], learnt.class_embed.weight[[1, 2]])  # b and "no object"
    assert head[[0, 2]].abs().max() < 10
    assert torch.equal(model.class_embed.bias[3], learnt.class_embed.bias[2])
    assert dict(report.partly)["class_embed.weight"].startswith("2 of 4 rows; the others are of classes")
    assert "in part   class_embed.bias" in report.table()
    assert torch.equal(model.query_embed.weight, learnt.query_embed.weight)


def test_what_is_no_object_is_known_whatever_the_classes() -> None:
    model, learnt, report = models("new other", "a b")
    assert torch.equal(model.class_embed.weight[2], learnt.class_embed.weight[2])
    assert model.class_embed.weight[:2].abs().max() < 10
    assert [why.split(";")[0] for _, why in report.partly] == ["1 of 3 rows"] * 2


def test_coco_s_columns_are_found_by_name() -> None:
    other = replace(SMALL, head_classes=5, columns=(1, 4))
    model, learnt, _ = models("dog cat", "cat dog", other=other)
    assert torch.equal(model.class_embed.weight, learnt.class_embed.weight[[4, 1, 5]])


def test_a_head_of_another_kind_starts_afresh() -> None:
    model, _, report = models("a b", "a b", config=replace(SMALL, no_object=False))
    assert model.class_embed.weight.shape[0] == 2
    assert model.class_embed.weight.abs().max() < 10
    assert {name for name, _ in report.fresh} == {"class_embed.weight", "class_embed.bias"}
    assert all('one has "no object" and the other has not' in why for _, why in report.fresh)


@pytest.mark.parametrize("queries", [3, 9])
def test_other_numbers_of_queries(queries: int) -> None:
    model, learnt, report = models("a", "a", config=replace(SMALL, queries=queries))
    kept = min(queries, 6)
    assert torch.equal(model.query_embed.weight[:kept], learnt.query_embed.weight[:kept])
    assert bool(report.partly) == (queries > 6)


def test_numbered_classes_are_taken_for_the_same() -> None:
    torch.manual_seed(0)
    model, learnt = build(SMALL, classes=2), build(SMALL, classes=2)
    transplant(model, learnt, names=("dog", "cat"), other_names=("class 0", "class 1"))
    assert torch.equal(model.class_embed.weight, learnt.class_embed.weight)


def test_every_tensor_that_was_not_taken_is_named() -> None:
    config = replace(SMALL, encoder_layers=2, feedforward=32)
    model, learnt, report = models("a", "a", config=config, other=replace(SMALL, norm_first=True))
    told = {name for name, _ in (*report.partly, *report.fresh)} | set(report.taken)
    assert told == set(model.state_dict())
    reasons = dict(report.fresh)
    assert reasons["transformer.encoder.layers.1.norm1.bias"] == "the weights have no such part"
    assert (
        reasons["transformer.encoder.layers.0.linear1.weight"]
        == "shape (32, 32) here, (48, 32) in the weights"
    )
    assert dict(report.unused)["transformer.encoder.norm.weight"] == "this model has no such part"
    assert set(report.taken) <= set(learnt.state_dict())
    assert len(report.table().splitlines()) == len(report.fresh) + len(report.unused)


def test_the_rt_family_is_served_alike() -> None:
    model, learnt, report = models("new b", "a b c", config=RT, other=RT)
    ours, theirs = model.decoder, learnt.decoder
    assert torch.equal(ours.enc_score_head.weight[1], theirs.enc_score_head.weight[1])
    assert torch.equal(ours.denoising_class_embed.weight[[1, 2]], theirs.denoising_class_embed.weight[[1, 3]])
    assert ours.denoising_class_embed.weight[0].abs().max() < 10
    assert not report.fresh
    assert {name.split(".")[1] for name, _ in report.partly} == {
        "enc_score_head",
        "dec_score_head",
        "denoising_class_embed",
    }


def test_strange_classes_leave_heads_fresh() -> None:
    _, _, report = models("x y", "a b c", config=RT, other=RT)
    assert all(why == "the weights know none of the classes" for _, why in report.fresh)
    assert len(report.fresh) >= 5


def test_another_family_is_refused() -> None:
    with pytest.raises(CheckpointError, match="of a model like this one"):
        models("a", "a", config=RT, other=SMALL)
