"""D-FINE's distillation: against torch's own divergence, and who takes a gradient."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from detrx.ops.ddf_loss import ddf_loss
from detrx.ops.loss_reference import ddf_loss_reference

both = pytest.mark.parametrize("body", [ddf_loss, ddf_loss_reference])


@both
def test_equals_torchs_divergence(body):
    g = torch.Generator().manual_seed(0)
    edges = torch.randn(3, 3, 3, 4, 33, generator=g).requires_grad_()
    confidence, iou = torch.rand(3, 3, generator=g), torch.rand(3, 3, 3, generator=g)
    owners = torch.full((3, 9), -1, dtype=torch.int32)
    owners[0, [1, 4]] = owners[1, [0, 8]] = torch.tensor([2, 0], dtype=torch.int32)
    found = body(edges, confidence, owners.reshape(3, 3, 3), iou, temperature=5.0)
    assert found.shape == (2,)
    for layer in range(2):
        log = F.log_softmax(edges[layer].flatten(0, 1) / 5, -1)
        wanted = (edges[-1].detach() / 5).softmax(-1).flatten(0, 1)
        each = F.kl_div(log, wanted, reduction="none").sum(-1) * 25
        matched = owners[layer] >= 0
        each = each * torch.where(matched, iou[layer].flatten(), confidence.flatten())[:, None]
        roots = 2**0.5 + 7**0.5
        plain = (each[matched].mean() * 2**0.5 + each[~matched].mean() * 7**0.5) / roots
        torch.testing.assert_close(found[layer], plain)
        ours, theirs = (torch.autograd.grad(x, edges, retain_graph=True)[0] for x in (found[layer], plain))
        torch.testing.assert_close(ours, theirs)
        assert ours[-1].eq(0).all()


@both
@pytest.mark.parametrize("owner", [-1, 0])
def test_where_all_or_none_are_matched(body, owner):
    g = torch.Generator().manual_seed(0)
    edges, weight = torch.randn(2, 2, 3, 4, 33, generator=g), torch.rand(2, 3, generator=g)
    found = body(edges, weight, torch.full((2, 3), owner), weight.expand(2, 2, 3), temperature=2.0)
    each = F.kl_div((edges[0] / 2).log_softmax(-1), (edges[1] / 2).softmax(-1), reduction="none").sum(-1) * 4
    torch.testing.assert_close(found[0], (each.mean(-1) * weight).mean())


@both
@pytest.mark.parametrize("layers", [0, 1])
def test_nobody_learns_where_no_layer_is_before_the_last(body, layers):
    edges = torch.randn(layers, 2, 3, 4, 33).requires_grad_()
    found = body(edges, torch.ones(2, 3), torch.zeros(2, 3), torch.ones(layers, 2, 3))
    assert found.shape == (0,)
    assert torch.autograd.grad(found.sum(), edges)[0].eq(0).all()


@pytest.mark.parametrize("layers", [2, 3])
def test_halves_of_a_batch_add_up_to_it(layers):
    g = torch.Generator().manual_seed(0)
    edges, weight = torch.randn(layers, 4, 9, 4, 17, generator=g), torch.rand(layers, 4, 9, generator=g)
    for owners in (
        torch.arange(36).reshape(4, 9) % 5 - 3,
        torch.arange(36 * layers).reshape(layers, 4, 9) % 7 - 4,
    ):
        whole = ddf_loss(edges, weight[0], owners, weight)
        matched = (owners >= 0).sum((-2, -1)).reshape(-1)[: layers - 1]
        for body in (ddf_loss, ddf_loss_reference):
            halves = (
                body(
                    edges[:, part], weight[0, part], owners[..., part, :], weight[:, part],
                    matched=matched, queries=torch.tensor(36),
                )
                for part in (slice(0, 1), slice(1, 4))
            )  # fmt: skip
            torch.testing.assert_close(sum(halves), whole)


@pytest.mark.parametrize("values", [1, 2, 15, 16, 17, 33, 65])
@pytest.mark.parametrize("scale", [0.01, 1.0, 60.0])
def test_any_number_and_size_of_bins_equals_the_reference(values, scale):
    g = torch.Generator().manual_seed(0)
    edges = (torch.randn(3, 2, 30, 4, values, generator=g) * scale).requires_grad_()
    owners = torch.arange(30).repeat(2, 1) % 7 - 3
    given = edges, torch.rand(2, 30, generator=g), owners, torch.rand(3, 2, 30, generator=g)
    found, wanted = (body(*given, temperature=4.0) for body in (ddf_loss, ddf_loss_reference))
    # The divergence is the small difference of numbers as large as the logits.
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=2e-7 * max(scale, 1))
    slopes = [torch.autograd.grad(sums.sum(), edges)[0] for sums in (found, wanted)]
    torch.testing.assert_close(*slopes, rtol=1e-4, atol=1e-7)


@pytest.mark.parametrize("temperature", [0.0, -1.0, float("nan")])
def test_a_temperature_that_is_none_is_refused(temperature):
    with pytest.raises(ValueError, match=r"\[ddf_loss\] temperature must be above 0, got"):
        ddf_loss(
            torch.zeros(2, 1, 1, 4, 5), torch.zeros(1, 1), torch.zeros(1, 1), torch.zeros(2, 1, 1),
            temperature=temperature,
        )  # fmt: skip
