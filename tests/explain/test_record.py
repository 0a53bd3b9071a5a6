"""What is recorded is what the model computes, and recording changes nothing of it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from small_models import make_detr, make_rt
from torch import Tensor, nn

from detrx.explain.record import attention_rows, listen, sampled
from detrx.models.detr_layers import Attention
from detrx.ops.reference import deform_attn


def run(model: nn.Module, pixels: Tensor) -> Any:
    with torch.inference_mode():
        return model(pixels)


@pytest.mark.parametrize("make", [make_detr, make_rt])
def test_outputs_have_the_same_bits_with_and_without(make: Any) -> None:
    model, pixels = make(), torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    before = run(model, pixels)
    with listen({name: part for name, part in model.named_modules() if "attn" in name}) as heard:
        during = run(model, pixels)
    after = run(model, pixels)
    assert len(heard) >= 4
    for other in (during, after):
        assert torch.equal(before.logits, other.logits)
        assert torch.equal(before.boxes, other.boxes)
    assert not any(part._forward_pre_hooks for part in model.modules())


def test_hooks_go_when_the_model_fails() -> None:
    model = make_detr()
    with pytest.raises(RuntimeError), listen({"transformer": model.transformer}):
        model(torch.zeros(1, 5, 64, 64))
    assert not model.transformer._forward_pre_hooks


def plain(part: Attention, given: dict[str, Any]) -> Tensor:
    """(heads, Q, S) softmax of queries times keys, from torch's own module with the same weights."""
    width = part.out_proj.weight.shape[0]
    theirs = nn.MultiheadAttention(width, part.heads).eval()
    theirs.load_state_dict(part.state_dict())
    hidden = given.get("hidden")
    padding = None if hidden is None else hidden[:1, 0].isinf()
    with torch.inference_mode():
        _, weights = theirs(
            given["query"], given["key"], given["value"],
            key_padding_mask=padding, need_weights=True, average_attn_weights=False,
        )  # fmt: skip
    return weights[0]


@pytest.mark.parametrize("padded", [False, True])
def test_attention_is_softmax_of_queries_and_keys(padded: bool) -> None:
    model = make_detr()
    pixels = torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    padding = torch.zeros(1, 96, 128, dtype=torch.bool)
    padding[:, 64:] = padded
    parts = {
        "encoder": model.transformer.encoder.layers[-1].self_attn,
        "decoder": model.transformer.decoder.layers[-1].multihead_attn,
    }
    with torch.inference_mode(), listen(parts) as heard:
        model.locate(pixels, padding)
        rows = torch.tensor([4, 0, 2])
        for name, part in parts.items():
            found = attention_rows(part, heard[name], rows)
            assert found.shape == (3, 4, 12)
            torch.testing.assert_close(
                found, plain(part, heard[name])[:, rows].transpose(0, 1), atol=1e-6, rtol=1e-5
            )
            torch.testing.assert_close(found.sum(-1), torch.ones(3, 4))
            assert bool((found[..., 8:] == 0).all()) == padded


@pytest.mark.parametrize("head", ["dfine", "rtdetrv2"])
def test_sampled_points_times_weights_are_the_answer(head: str) -> None:
    model = make_rt(head)
    part = model.decoder.decoder.layers[-1].cross_attn
    answers = []
    handle = part.register_forward_hook(lambda module, args, answer: answers.append(answer))
    rows = torch.tensor([3, 11, 0])
    with torch.inference_mode(), listen({"last": part}) as heard:
        model(torch.randn(1, 3, 96, 128, generator=torch.Generator().manual_seed(0)))
        given = heard["last"]
        locations, weights = sampled(part, given, rows)
        read = deform_attn(given["values"], given["shapes"], locations[None], weights[None], part.points)
        expected = read if part.output_proj is None else part.output_proj(read)
    handle.remove()
    assert locations.shape == (3, 8, sum(part.points), 2)
    torch.testing.assert_close(weights.sum(-1), torch.ones(3, 8))
    torch.testing.assert_close(answers[0][:, rows], expected, atol=1e-5, rtol=1e-4)
