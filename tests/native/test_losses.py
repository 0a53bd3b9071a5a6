"""The bodies of the losses on plain arrays, so that the sanitizers see every read and write, without torch."""

from __future__ import annotations

import importlib

import numpy as np
import pytest

from detrx import native

SHAPES = [(1, 1, 1), (2, 3, 33), (1, 2, 300), (3, 1, 64), (2, 2, 0), (0, 2, 5), (2, 0, 5)]
CLASSES = [1, 2, 15, 16, 17, 91]


@pytest.fixture(params=["float32", "float16"])
def dtype(request):
    return request.param


def owners(shape, targets, *, share, seed=0):
    g = np.random.default_rng(seed)
    drawn = g.integers(max(targets, 1), size=shape, dtype=np.int32)
    return np.where((g.random(shape) < share) & (targets > 0), drawn, -1).astype(np.int32)


def boxes(*lead, seed=0):
    return (np.random.default_rng(seed).random((*lead, 4)) * 0.4 + 0.1).astype(np.float32)


def guarded(shape, dtype):
    """An array in the middle of another, and a check that nothing around it is written."""
    size = int(np.prod(shape))
    room = np.full(size + 128, 7, dtype)

    def check():
        assert (room[:64] == 7).all()
        assert (room[64 + size :] == 7).all()

    return room[64 : 64 + size].reshape(shape), check


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("share", [0.0, 0.2, 1.0])
@pytest.mark.parametrize("kind", ["iou", "giou", "diou", "ciou"])
def test_boxes(shape, share, kind, dtype):
    module, (stages, images, _) = native.load(), shape
    predicted, truths = boxes(*shape).astype(dtype), boxes(images, 4, seed=1)
    owner = owners(shape, 4, share=share)
    l1, away = np.empty(stages, np.float32), np.empty(stages, np.float32)
    iou, iou_whole = guarded(shape, np.float32)
    grad, grad_whole = guarded((*shape, 4), dtype)
    which = getattr(module.Overlap, kind)
    module.box_loss(predicted, truths, owner, which, 2.0, l1, away, iou, 2)
    ones = np.ones(stages, np.float32)
    module.box_loss_backward(ones, ones, predicted, truths, owner, which, 2.0, grad, 2)
    iou_whole(), grad_whole()
    assert np.isfinite(away).all()
    wanted = truths[np.arange(images)[:, None], owner]
    distance = np.abs(predicted.astype(np.float32) - wanted).sum(-1) * (owner >= 0)
    np.testing.assert_allclose(l1, distance.sum((1, 2)) / 2, rtol=1e-5)
    assert (grad[owner < 0] == 0).all()
    assert np.isfinite(grad.astype(np.float32)).all()
    assert ((iou >= 0) & (iou <= 1) & ((owner >= 0) | (iou == 0))).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", CLASSES)
@pytest.mark.parametrize(("kind", "gamma"), [("focal", 2.0), ("varifocal", 1.5), ("mal", 2.0)])
def test_sigmoid_classes(shape, classes, kind, gamma, dtype):
    module, (stages, images, _) = native.load(), shape
    g = np.random.default_rng(0)
    logits = g.normal(-1, 2, (*shape, classes)).astype(dtype)
    labels, owner = g.integers(classes, size=(images, 3)), owners(shape, 3, share=0.3)
    quality = g.random(shape, np.float32)
    sums = np.empty(stages, np.float32)
    grad, whole = guarded(logits.shape, dtype)
    rest = (labels, owner, quality, getattr(module.FocalKind, kind), 0.25, gamma, 2.0)
    module.focal_loss(logits, *rest, sums, None, 2)
    module.focal_loss_backward(np.ones(stages, np.float32), logits, *rest, grad, 2)
    whole()
    if dtype == "float32":
        again, slopes, slopes_whole = np.empty_like(sums), *guarded(logits.shape, dtype)
        module.focal_loss(logits, *rest, again, slopes, 2)
        np.testing.assert_allclose(again, sums, rtol=1e-6)
        module.scale_slopes(np.full(stages, 3, np.float32), slopes, 2)
        slopes_whole()
        np.testing.assert_allclose(slopes, 3 * grad, rtol=1e-6)
    x = logits.astype(np.float64)
    p, softplus = 1 / (1 + np.exp(-x)), np.logaddexp(0, x)
    hot = labels[np.arange(images)[:, None], owner][..., None] == np.arange(classes)
    hot &= (owner >= 0)[..., None]
    if kind == "focal":
        loss = np.where(hot, 0.25 * (1 - p) ** gamma * (softplus - x), 0.75 * p**gamma * softplus)
    else:
        score = quality[..., None].astype(np.float64)
        score, weight, alpha = (score**gamma, 1.0, 1.0) if kind == "mal" else (score, score, 0.25)
        loss = np.where(hot, weight * (softplus - x * score), alpha * p**gamma * softplus)
    np.testing.assert_allclose(sums, loss.sum((1, 2, 3)) / 2, rtol=2e-6, atol=1e-6)
    assert np.isfinite(grad.astype(np.float32)).all()


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("classes", CLASSES)
def test_softmax_classes(shape, classes, dtype):
    module, (stages, images, _) = native.load(), shape
    g = np.random.default_rng(0)
    logits = g.normal(0, 3, (*shape, classes + 1)).astype(dtype)
    labels, owner = g.integers(classes, size=(images, 3)), owners(shape, 3, share=0.3)
    means, weights = np.empty(stages, np.float32), np.empty(stages, np.float32)
    log_sums, sums_whole = guarded(shape, np.float32)
    grad, whole = guarded(logits.shape, dtype)
    module.cross_entropy(logits, labels, owner, 0.1, means, log_sums, weights, None, 2)
    ones = np.ones(stages, np.float32)
    module.cross_entropy_backward(ones, logits, labels, owner, 0.1, log_sums, weights, grad, 2)
    sums_whole(), whole()
    if dtype == "float32":
        again, slopes, slopes_whole = np.empty_like(means), *guarded(logits.shape, dtype)
        module.cross_entropy(logits, labels, owner, 0.1, again, log_sums, weights, slopes, 2)
        sums_whole(), slopes_whole()
        np.testing.assert_allclose(again, means, rtol=1e-6)
        np.testing.assert_allclose(slopes, grad, rtol=1e-5, atol=1e-7)
    logs = logits.astype(np.float64) - np.logaddexp.reduce(logits.astype(np.float64), -1, keepdims=True)
    wanted = np.where(owner >= 0, labels[np.arange(images)[:, None], owner], classes)
    loss = -np.take_along_axis(logs, wanted[..., None], -1)[..., 0]
    weight = np.where(owner >= 0, 1.0, 0.1)
    total = np.maximum(weight.sum((1, 2)), 1e-12)
    np.testing.assert_allclose(means, (loss * weight).sum((1, 2)) / total, rtol=2e-6, atol=1e-6)
    np.testing.assert_allclose(grad.astype(np.float64).sum(-1), 0, atol=1e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", [5, 17, 33])
def test_edges(shape, values, dtype):
    module, (stages, images, _) = native.load(), shape
    edges = np.random.default_rng(0).normal(0, 1, (*shape, 4, values)).astype(dtype)
    rest = boxes(*shape), boxes(images, 3, seed=1), owners(shape, 3, share=0.3), np.ones(shape, np.float32)
    sums = np.empty(stages, np.float32)
    grad, whole = guarded(edges.shape, dtype)
    module.fgl_loss(edges, *rest, 4.0, 0.5, 2.0, sums, 2)
    module.fgl_loss_backward(np.ones(stages, np.float32), edges, *rest, 4.0, 0.5, 2.0, grad, 2)
    whole()
    assert ((sums > 0) == (rest[2] >= 0).any((1, 2))).all()
    assert (grad[rest[2] < 0] == 0).all()
    np.testing.assert_allclose(grad.astype(np.float64).sum(-1), 0, atol=5e-3)


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("values", [1, 5, 17, 33])
def test_layers_that_teach(shape, values, dtype):
    module, (stages, images, queries) = native.load(), shape
    students = max(stages - 1, 0)
    edges = np.random.default_rng(0).normal(0, 1, (*shape, 4, values)).astype(dtype)
    weights = np.ones((images, queries), np.float32), owners(shape, 3, share=0.3), np.ones(shape, np.float32)
    weights = *weights, np.ones((students, 2), np.float32)
    sums = np.empty(students, np.float32)
    log_sums, sums_whole = guarded((*shape, 4), np.float32)
    grad, whole = guarded(edges.shape, dtype)
    module.ddf_loss(edges, *weights, 5.0, sums, log_sums, 2)
    ones = np.ones(students, np.float32)
    module.ddf_loss_backward(ones, edges, *weights, 5.0, log_sums, grad, 2)
    sums_whole(), whole()
    logs = edges.astype(np.float64) / 5
    logs -= np.logaddexp.reduce(logs, -1, keepdims=True)
    np.testing.assert_allclose(log_sums, (edges.astype(np.float64) / 5 - logs)[..., 0], rtol=1e-5, atol=1e-5)
    assert (sums >= -1e-3).all()  # of roundings, where the bins are one
    assert (grad[students:] == 0).all()
    np.testing.assert_allclose(grad.astype(np.float64).sum(-1), 0, atol=5e-3)


def test_nothing_at_all_may_lie_nowhere():
    """Torch's empty tensors have no address; numpy's have one."""
    torch = pytest.importorskip("torch")
    from detrx.ops.loss_operator import LossOperator

    operators = [
        operator
        for name in ("box_loss", "focal_loss", "cross_entropy", "fgl_loss", "ddf_loss")
        for operator in vars(importlib.import_module(f"detrx.ops.{name}")).values()
        if isinstance(operator, LossOperator)
    ]
    assert len(operators) == 5
    settings = {"box_loss": ("giou",), "focal_loss": ("focal", 0.25, 2.0), "cross_entropy": (0.1,)}
    settings |= {"fgl_loss": (4.0, 0.5), "ddf_loss": (5.0,)}
    for shape in ((2, 0, 5), (2, 3, 0), (0, 3, 5), (0, 0, 0)):
        sides = {4: torch.empty(*shape, 4), 9: torch.empty(*shape, 4, 9), 7: torch.empty(*shape, 7)}
        owner, iou = torch.empty(shape, dtype=torch.int32), torch.empty(shape)
        truths, labels = torch.empty(shape[1], 2, 4), torch.empty(shape[1], 2, dtype=torch.int64)
        given = {
            "box_loss": (sides[4], truths, owner, None),
            "focal_loss": (sides[7], labels, owner, None, None),
            "cross_entropy": (sides[7], labels, owner),
            "fgl_loss": (sides[9], sides[4], truths, owner, iou, None),
            "ddf_loss": (sides[9], torch.empty(shape[1:]), owner, iou, torch.zeros(max(shape[0] - 1, 0), 2)),
        }
        assert sides[9].data_ptr() == 0
        for operator in operators:
            tensors = given[operator.name]
            leaf = tensors[0].requires_grad_()
            found = operator(leaf, *tensors[1:], *settings[operator.name])
            sums = found if isinstance(found, torch.Tensor) else found[0]
            assert torch.autograd.grad(sums.sum(), leaf)[0].shape == leaf.shape


def test_strides_may_be_anything():
    module = native.load()
    logits = np.random.default_rng(0).normal(0, 1, (17, 40, 3, 2)).astype(np.float32)
    owner, labels = owners((2, 3, 40), 3, share=0.3), np.zeros((3, 3), np.int64)
    turned = np.ascontiguousarray(logits.transpose(3, 1, 2, 0)).transpose(0, 2, 1, 3)
    assert not turned.flags.c_contiguous
    answers = []
    for layout in (turned, np.ascontiguousarray(turned), turned[:, ::-1, ::-1][:, ::-1, ::-1]):
        sums = np.empty(2, np.float32)
        module.focal_loss(layout, labels, owner, None, module.FocalKind.focal, 0.25, 2.0, 1.0, sums, None, 1)
        log_sums, weights = np.empty((2, 3, 40), np.float32), np.empty(2, np.float32)
        means = np.empty(2, np.float32)
        module.cross_entropy(layout, labels, owner, 0.1, means, log_sums, weights, None, 1)
        answers.append((sums, means, log_sums))
    for answer in answers[1:]:
        # Rows that lie apart are added up in another order.
        assert all(np.allclose(a, b, rtol=1e-6, atol=0) for a, b in zip(answer, answers[0]))


def test_what_does_not_fit_is_refused():
    module = native.load()
    shape = (2, 3, 5)
    owner, sums, iou = owners(shape, 4, share=0.5), np.empty(2, np.float32), np.empty(shape, np.float32)
    giou, truths = module.Overlap.giou, boxes(3, 4)
    with pytest.raises(
        module.ArgumentError, match=r"boxes must have shape \(2, 3, 5, 4\), got \(2, 3, 5, 5\)"
    ):
        module.box_loss(np.zeros((*shape, 5), np.float32), truths, owner, giou, 1.0, sums, sums, iou, 1)
    with pytest.raises(module.ArgumentError, match=r"iou must have shape \(2, 3, 5\), got \(2, 3, 4\)"):
        module.box_loss(boxes(*shape), truths, owner, giou, 1.0, sums, sums, iou[:, :, :4], 1)
    with pytest.raises(module.ArgumentError, match=r"truths must be contiguous"):
        module.box_loss(boxes(*shape), truths[:, ::-1], owner, giou, 1.0, sums, sums, iou, 1)
    with pytest.raises(module.ArgumentError, match=r"queries of owners must be adjacent"):
        module.box_loss(boxes(*shape), truths, owner[..., ::-1], giou, 1.0, sums, sums, iou, 1)
    with pytest.raises(module.ArgumentError, match="threads must be >= 1, got 0"):
        module.box_loss(boxes(*shape), truths, owner, giou, 1.0, sums, sums, iou, 0)
    grad = np.empty((*shape, 4), np.float16)
    with pytest.raises(module.ArgumentError, match="grad_boxes must be of the type and device of boxes"):
        module.box_loss_backward(sums, sums, boxes(*shape), truths, owner, giou, 1.0, grad, 1)
    kind, labels = module.FocalKind.mal, np.zeros((3, 4), np.int64)
    with pytest.raises(module.ArgumentError, match="varifocal and mal must have quality"):
        module.focal_loss(
            np.zeros((*shape, 3), np.float32), labels, owner, None, kind, 1.0, 2.0, 1.0, sums, None, 1
        )
    low, room = np.zeros((*shape, 3), np.float16), np.zeros((*shape, 3), np.float32)
    with pytest.raises(module.ArgumentError, match="logits must be float32 where slopes"):
        module.focal_loss(low, labels, owner, iou, kind, 1.0, 2.0, 1.0, sums, room, 1)
    turned = room.transpose(0, 1, 3, 2).copy().transpose(0, 1, 3, 2)
    with pytest.raises(module.ArgumentError, match="slopes must be contiguous"):
        module.focal_loss(room, labels, owner, iou, kind, 1.0, 2.0, 1.0, sums, turned, 1)
    apart = np.zeros((*shape, 6), np.float32)[..., ::2]
    with pytest.raises(module.ArgumentError, match="classes of logits must be adjacent"):
        module.focal_loss(apart, labels, owner, iou, kind, 1.0, 2.0, 1.0, sums, None, 1)
    with pytest.raises(module.ArgumentError, match="items must be float32, float16 or bfloat16, got float64"):
        module.focal_loss(np.zeros((*shape, 3)), labels, owner, iou, kind, 1.0, 2.0, 1.0, sums, None, 1)


def test_a_wild_index_is_refused_on_every_thread():
    module = native.load()
    owner = owners((2, 8, 300), 4, share=0.1)
    logits, labels = np.zeros((2, 8, 300, 7), np.float32), np.zeros((8, 4), np.int64)
    sums, focal = np.empty(2, np.float32), module.FocalKind.focal
    for place in (0, 63, 64, 299):
        wild = owner.copy()
        wild[1, 5, place] = 2**31 - 1
        for threads in (1, 3):
            with pytest.raises(module.ArgumentError, match=r"owners must be below 4, .*got 2147483647"):
                module.focal_loss(logits, labels, wild, None, focal, 0.25, 2.0, 1.0, sums, None, threads)
    labels[:] = 7
    with pytest.raises(module.ArgumentError, match=r"labels must be in \[0, 7\), got 7"):
        module.focal_loss(logits, labels, owner, None, focal, 0.25, 2.0, 1.0, sums, None, 3)
