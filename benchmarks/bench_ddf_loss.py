"""D-FINE's distillation of six layers, forward and backward, against plain torch and transformers' local losses."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from detrx.ops.box_loss import box_loss
from detrx.ops.ddf_loss import ddf_loss
from detrx.ops.fgl_loss import fgl_loss
from detrx.ops.loss_reference import ddf_loss_reference

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from loss_problem import make_problem
from side_by_side import interleave


@pytest.mark.parametrize("images", [8, 16])
def test_ddf_loss(benchmark, images):
    p = make_problem(images, 300, "coco")
    g = torch.Generator().manual_seed(0)
    edges = torch.randn(*p.owners.shape, 4, 33, generator=g).requires_grad_()
    scores, iou = p.logits(91), torch.rand(p.owners.shape, generator=g)

    def run(body):
        confidence = scores[-1].amax(-1).sigmoid()
        return torch.autograd.grad(body(edges, confidence, p.owners, iou, temperature=5.0).sum(), edges)[0]

    torch.testing.assert_close(run(ddf_loss), run(ddf_loss_reference), rtol=1e-4, atol=1e-7)
    contenders = {"detrx": lambda: run(ddf_loss), "plain torch": lambda: run(ddf_loss_reference)}
    interleave(contenders, rounds=15, title=f"ddf_loss B={images} Q=300")
    benchmark(lambda: run(ddf_loss))


@pytest.mark.parametrize("images", [8, 16])
def test_fgl_and_ddf_loss(benchmark, images):
    """transformers takes both in one function, layer by layer."""
    peer = pytest.importorskip("transformers.loss.loss_d_fine")
    from transformers import DFineConfig

    loss = peer.DFineLoss(DFineConfig())
    p = make_problem(images, 300, "coco")
    g = torch.Generator().manual_seed(0)
    edges = torch.randn(*p.owners.shape, 4, 33, generator=g).requires_grad_()
    scores = p.logits(91)
    count = float(p.normaliser)
    targets = [{"boxes": boxes} for boxes in p.each_truth]

    def ours():
        iou = box_loss(p.boxes, p.truths, p.owners).iou
        settings = {"reg_scale": 4.0, "up": 0.5, "normaliser": p.normaliser}
        fgl = fgl_loss(edges, p.boxes, p.truths, p.owners, iou, **settings)
        ddf = ddf_loss(edges, scores[-1].amax(-1).sigmoid(), p.owners, iou, temperature=5.0)
        return torch.autograd.grad(torch.cat((fgl, ddf)).sum(), edges)[0]

    def theirs():
        total = 0.0
        for layer, pairs in enumerate(p.pairs):
            outputs = {
                "pred_corners": edges[layer].flatten(2),
                "teacher_corners": edges[-1].flatten(2),
                "teacher_logits": scores[-1],
                "ref_points": p.boxes[layer],
                "pred_boxes": p.boxes[layer],
            }
            total = total + sum(loss.loss_local(outputs, targets, pairs, count).values())
        return torch.autograd.grad(total, edges)[0]

    torch.testing.assert_close(ours(), theirs(), rtol=1e-3, atol=1e-6)
    interleave({"detrx": ours, "transformers": theirs}, rounds=9, title=f"fgl and ddf B={images} Q=300")
    benchmark(ours)
