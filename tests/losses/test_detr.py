"""DETR's losses: every term as transformers has it, and both kernels alike."""

from __future__ import annotations

import pytest
import torch
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss
from transformers.models.detr.configuration_detr import DetrConfig

from detrx.errors import ConfigError, TrainingError
from detrx.losses.detr import DetrCriterion
from detrx.tensors import Outputs, Targets

CLASSES, QUERIES, LAYERS = 5, 12, 3
KINDS = {
    "ce": ("loss_ce", 1),
    "l1": ("loss_bbox", 5),
    "giou": ("loss_giou", 2),
    "cardinality": ("cardinality_error", 1),
}


def scene(counts, *, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (LAYERS, len(counts), QUERIES)
    logits = torch.randn(*shape, CLASSES + 1, generator=g).requires_grad_()
    boxes = (torch.rand(*shape, 4, generator=g) * 0.4 + 0.2).requires_grad_()
    truths = torch.rand(len(counts), max(counts), 4, generator=g) * 0.4 + 0.2
    labels = torch.randint(CLASSES, truths.shape[:2], generator=g)
    return Outputs(logits, boxes), Targets(truths, labels, torch.tensor(counts, dtype=torch.int32))


def theirs(outputs: Outputs, targets: Targets) -> tuple[torch.Tensor, dict[str, torch.Tensor]]:
    config = DetrConfig(auxiliary_loss=True, num_labels=CLASSES)
    lists = [
        {"class_labels": targets.labels[i, :n], "boxes": targets.boxes[i, :n]}
        for i, n in enumerate(targets.counts.tolist())
    ]
    total, terms, _ = ForObjectDetectionLoss(
        outputs.logits[-1],
        lists,
        torch.device("cpu"),
        outputs.boxes[-1],
        config,
        outputs.logits,
        outputs.boxes,
    )
    return total, terms


@pytest.mark.parametrize("counts", [[3, 0, 6], [1], [12, 4]])
def test_every_term_equals_transformers(counts):
    outputs, targets = scene(counts)
    total, terms = theirs(outputs, targets)
    found = DetrCriterion(CLASSES)(outputs, targets)
    compared = set()
    for name, value in found.terms.items():
        kind, _, place = name.partition("_")
        their, weight = KINDS[kind]
        wanted = terms[f"{their}_{place.removeprefix('aux')}" if place else their]
        if kind == "cardinality" and place:
            wanted = wanted.detach()
        torch.testing.assert_close(value, wanted.detach() * weight, rtol=1e-5, atol=1e-6)
        compared.add(name)
    assert len(compared) == 4 * LAYERS
    torch.testing.assert_close(found.total, total, rtol=1e-5, atol=1e-6)
    for leaf in (outputs.logits, outputs.boxes):
        ours, wanted = (torch.autograd.grad(x, leaf, retain_graph=True)[0] for x in (found.total, total))
        torch.testing.assert_close(ours, wanted, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("counts", [[3, 0, 6], [0, 0], [30, 2]])
def test_native_and_reference_kernels_agree(counts):
    outputs, targets = scene(counts)
    native, plain = (
        DetrCriterion(CLASSES, kernels=name)(outputs, targets) for name in ("native", "reference")
    )
    for name, value in plain.terms.items():
        torch.testing.assert_close(native.terms[name], value, rtol=1e-5, atol=1e-6)
    for leaf in (outputs.logits, outputs.boxes):
        ours, theirs = (torch.autograd.grad(x.total, leaf, retain_graph=True)[0] for x in (native, plain))
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)
    assert not native.terms["cardinality"].requires_grad
    teaching = [value for name, value in native.terms.items() if not name.startswith("cardinality")]
    torch.testing.assert_close(torch.stack(teaching).sum(), native.total.detach())


def test_faults_are_named():
    outputs, targets = scene([2, 1])
    with pytest.raises(ConfigError, match="6 classes and one for no object, got 6"):
        DetrCriterion(6)(outputs, targets)
    with torch.no_grad():
        outputs.boxes[0, 1] = float("nan")
    with pytest.raises(TrainingError, match="of aux0, image 1"):
        DetrCriterion(CLASSES)(outputs, targets)
