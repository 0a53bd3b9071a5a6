"""What all loss operators promise alike: the native bodies answer as the references do, whatever the input."""

from __future__ import annotations

import importlib
import math
import runpy
from pathlib import Path

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from detrx.errors import MissingBackendError
from detrx.ops import native_body

SHARED = runpy.run_path(str(Path(__file__).parent / "loss_scene.py"))
scene, Scene, LOSSES = SHARED["scene"], SHARED["Scene"], SHARED["losses"]()
every = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
# One of each operator, where the kind makes no difference.
ONE = {name: LOSSES[name] for name in ("giou", "mal-1.5", "cross_entropy", "fgl", "ddf")}
one_each = pytest.mark.parametrize("loss", ONE.values(), ids=ONE)
# Those whose stages stand each for itself, in all of which every target is read.
APART = {name: loss for name, loss in ONE.items() if name != "ddf"}
apart = pytest.mark.parametrize("loss", APART.values(), ids=APART)
HALF = {torch.float32: 2e-6, torch.bfloat16: 4e-3, torch.float16: 1e-3}


def check(loss, s, *, close):
    """Sums to float32's precision, whatever was read; gradients to that of the input's type."""
    found, slope = loss.with_gradient(s)
    wanted, wanted_slope = loss.with_gradient(s, native=False)
    assert found.dtype == torch.float32
    assert slope.dtype == getattr(s, loss.of).dtype
    torch.testing.assert_close(found, wanted, rtol=2e-6, atol=2e-6)
    most = wanted_slope.abs().max().item() if wanted_slope.numel() else 0.0
    torch.testing.assert_close(
        slope.float(), wanted_slope.float(), rtol=2 * close, atol=close * max(most, 1e-3)
    )


@every
@pytest.mark.parametrize("dtype", HALF)
def test_equals_the_reference(loss, dtype):
    check(loss, scene(dtype=dtype), close=HALF[dtype])


@one_each
@pytest.mark.parametrize("queries", [0, 1, 31, 33, 100, 300, 900])
def test_any_number_of_queries(loss, queries):
    check(loss, scene(queries=queries, stages=1, images=2, share=0.1), close=2e-6)


@one_each
@pytest.mark.parametrize("stages", [0, 1, 5])
@pytest.mark.parametrize("targets", [0, 1, 7])
def test_any_number_of_targets(loss, stages, targets):
    check(loss, scene(stages=stages, targets=targets), close=2e-6)


@one_each
def test_nobody_and_everybody_owns(loss):
    for share in (0.0, 1.0):
        check(loss, scene(share=share), close=2e-6)


@one_each
def test_more_than_65535_boxes(loss):
    check(loss, scene(stages=2, images=37, queries=900, classes=2, bins=4, share=0.02), close=4e-6)


@pytest.mark.parametrize("name", ["focal-2.0", "focal-1.5", "cross_entropy"])
@pytest.mark.parametrize("classes", [2, 16, 17, 80, 91])
@pytest.mark.parametrize("dtype", HALF)
def test_any_number_of_classes(name, classes, dtype):
    check(LOSSES[name], scene(classes=classes, queries=70, dtype=dtype), close=HALF[dtype])


@pytest.mark.parametrize("name", ["focal-2.0", "cross_entropy"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_gradients_that_ask_for_large_pages(name, dtype):
    """A little more than 8 MB."""
    s = scene(dtype=dtype, stages=2, images=5, queries=900, classes=480, share=0.02)
    assert s.logits.nbytes > 8 << 20
    check(LOSSES[name], s, close=HALF[dtype])


@one_each
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_threads_change_no_bit(loss, dtype):
    s = scene(images=5, queries=300, classes=91, bins=32, dtype=dtype)
    answers = []
    for threads in (1, 2, 3, 4):
        torch.set_num_threads(threads)
        answers.append(loss.with_gradient(s))
    for sums, slope in answers[1:]:
        assert torch.equal(sums, answers[0][0])
        assert torch.equal(slope, answers[0][1])


@one_each
def test_owners_of_one_stage_stand_for_all(loss):
    s = scene()
    wanted = loss.with_gradient(Scene(**{**vars(s), "owners": s.owners[:1].expand(2, -1, -1).contiguous()}))
    for owners in (s.owners[:1], s.owners[0], s.owners[0].long(), s.owners[:1].expand(2, -1, -1)):
        found = loss.with_gradient(Scene(**{**vars(s), "owners": owners}))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted))


@one_each
def test_any_layout(loss):
    s = scene()

    def scattered(t):
        wide = torch.stack((t, torch.zeros_like(t)), -1)
        return wide.transpose(0, t.ndim - 1).contiguous().transpose(0, t.ndim - 1)[..., 0]

    def with_gaps(t):
        return torch.cat((t, t), 2 if t.ndim > 2 else 0)[:, :, : t.shape[2]] if t.ndim > 2 else t

    wanted = loss.with_gradient(s)
    for turn in (scattered, with_gaps):
        turned = {name: turn(t) if t.ndim else t for name, t in vars(s).items()}
        found = loss.with_gradient(Scene(**turned))
        assert all(torch.equal(a, b) for a, b in zip(found, wanted))


@every
def test_nan_goes_through_to_its_stage(loss):
    s = scene(stages=2 + (loss.name == "ddf_loss"))
    s.owners[2:] = -1
    stage, image, query = (s.owners >= 0).nonzero()[-1].tolist()
    assert stage == 1
    spoiled = getattr(s, loss.of)[stage, image, query]
    for place in range(spoiled.shape[-1]):
        values = getattr(s, loss.of).clone()
        values[stage, image, query, ..., place] = math.nan
        sums = loss(Scene(**{**vars(s), loss.of: values}))
        assert sums[:, 0].isfinite().all()
        assert sums[:, 1].isnan().any()


@pytest.mark.parametrize("name", ["focal-2.0", "varifocal-2.0", "mal-1.5", "cross_entropy"])
def test_nan_goes_through_from_a_query_that_owns_nothing(name):
    s = scene(classes=40)
    image, query = (s.owners[0] < 0).nonzero()[0].tolist()
    for place in (0, 17, 39):
        logits = s.logits.clone()
        logits[0, image, query, place] = math.nan
        sums = LOSSES[name](Scene(**{**vars(s), "logits": logits}))
        assert sums[0].isnan().tolist() == [True, False]


@one_each
def test_float64_is_for_the_reference(loss):
    s = scene(dtype=torch.float64)
    found, wanted = loss(s), loss(s, native=False)
    assert found.dtype == torch.float64
    assert torch.equal(found, wanted)


@one_each
def test_without_the_extension_the_reference_answers(loss, monkeypatch):
    def missing():
        raise MissingBackendError("detrx._C", "Build it.")

    monkeypatch.setattr(native_body.native, "load", missing)
    monkeypatch.setattr(native_body, "_known", {})
    s = scene()
    found, wanted = loss.with_gradient(s), loss.with_gradient(s, native=False)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted))


@apart
def test_gradient_of_one_stage_alone(loss):
    s = scene()
    leaf = getattr(s, loss.of).requires_grad_()
    slope = torch.autograd.grad(loss(s)[0, 1], leaf)[0]
    assert slope[0].eq(0).all()
    assert slope[1].ne(0).any()


@one_each
def test_second_gradients_are_refused(loss):
    s = scene()
    leaf = getattr(s, loss.of).requires_grad_()
    slope = torch.autograd.grad(loss(s).sum(), leaf, create_graph=True)[0]
    with pytest.raises(RuntimeError, match=r"once_differentiable|does not require grad"):
        torch.autograd.grad(slope.sum(), leaf)


@one_each
def test_autocast_changes_nothing(loss):
    s = scene(dtype=torch.bfloat16)
    wanted = loss.with_gradient(s)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = loss.with_gradient(s)
    assert all(torch.equal(a, b) for a, b in zip(found, wanted))


@one_each
@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning")
def test_compiles_in_one_graph(loss):
    s = scene()
    leaf = getattr(s, loss.of).requires_grad_()

    def total(prediction):
        return loss(Scene(**{**vars(s), loss.of: prediction})).sum()

    compiled = torch.compile(total, fullgraph=True, backend="aot_eager")
    wanted = torch.autograd.grad(total(leaf), leaf)[0]
    found = torch.autograd.grad(compiled(leaf), leaf)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)


class Names(TorchDispatchMode):
    """Writes down which operators are called."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        self.seen.append(str(function))
        return function(*args, **(kwargs or {}))


@one_each
def test_who_looks_on_sees_the_operator(loss):
    s = scene()
    leaf = getattr(s, loss.of).requires_grad_()
    wanted = torch.autograd.grad(loss(s).sum(), leaf)[0]
    with Names() as names:
        found = torch.autograd.grad(loss(s).sum(), leaf)[0]
    torch.testing.assert_close(found, wanted, rtol=1e-5, atol=1e-8)
    assert f"detrx.{loss.name}.default" in names.seen
    assert f"detrx.{loss.name}_backward.default" in names.seen


@pytest.mark.filterwarnings("ignore:The .grad attribute:UserWarning")
@pytest.mark.parametrize("name", ["box_loss", "focal_loss", "cross_entropy", "fgl_loss", "ddf_loss"])
def test_opcheck(name):
    s = scene()
    owners = s.owners
    arguments = {
        "box_loss": (s.boxes, s.truths, owners, s.normaliser, "ciou"),
        "focal_loss": (s.logits, s.labels, owners, s.quality, s.normaliser, "varifocal", 0.75, 2.0),
        "cross_entropy": (s.logits, s.labels, owners, 0.1),
        "ddf_loss": (s.edges, s.confidence, owners, s.quality, torch.tensor([[7.0, 92.0]]), 5.0),
        "fgl_loss": (s.edges, s.references, s.truths, owners, s.quality, None, 4.0, 0.5),
    }[name]
    arguments[0].requires_grad_()
    module = importlib.import_module(f"detrx.ops.{name}")
    torch.library.opcheck(module._op.custom, arguments)


@pytest.mark.parametrize(
    ("name", "field", "axes"),
    [
        ("giou", "owners", (1, 2)),
        ("giou", "truths", (0, 2)),
        ("mal-1.5", "owners", (1, 2)),
        ("mal-1.5", "labels", (0,)),
        ("mal-1.5", "quality", (0, 1, 2)),
        ("cross_entropy", "owners", (1, 2)),
        ("cross_entropy", "labels", (0,)),
        ("fgl", "owners", (1, 2)),
        ("fgl", "truths", (0, 2)),
        ("fgl", "references", (0, 1, 2, 3)),
        ("fgl", "quality", (0, 1, 2)),
        ("ddf", "owners", (1, 2)),
        ("ddf", "confidence", (0, 1)),
        ("ddf", "quality", (0, 1, 2)),
    ],
)
def test_a_shape_that_does_not_fit_is_refused(name, field, axes):
    s, loss = scene(stages=3), LOSSES[name]
    whole = getattr(s, field)
    for axis in axes:
        narrow = whole.narrow(axis, 0, whole.shape[axis] - 1)
        with pytest.raises(ValueError, match=rf"\[{loss.name}\] \w+ must have shape"):
            loss(Scene(**{**vars(s), field: narrow}))


@apart
def test_an_owner_past_the_targets_is_refused(loss):
    s = scene()
    for owner in (5, 1 << 30):
        for place in (0, 32):
            s.owners[1, 2, place] = owner
            leaf = getattr(s, loss.of).detach().requires_grad_()
            with pytest.raises(ValueError, match=rf"\[{loss.name}\] owners must be below 5, .* got {owner}"):
                loss(Scene(**{**vars(s), loss.of: leaf}))
            s.owners[1, 2, place] = -1
    s.owners[1, 2, 0] = -7  # none, too
    assert loss(s).isfinite().all()


@pytest.mark.parametrize("name", ["focal-2.0", "mal-1.5", "cross_entropy"])
def test_a_label_that_is_no_class_is_refused(name):
    s = scene(share=1.0)
    owned = int(s.owners[0, 1, 0])
    for label in (-1, 19 - (name == "cross_entropy"), 1 << 40):
        s.labels[1, owned] = label
        with pytest.raises(ValueError, match=rf"labels must be in \[0, 1[89]\), got {label}"):
            LOSSES[name](s)
    s.owners[s.owners == owned] = -1
    assert LOSSES[name](s).isfinite().all()  # padding may hold anything


@one_each
def test_the_way_back_may_be_taken_twice(loss):
    """Slopes that were written on the way forward are given away once."""
    s = scene(classes=40)
    leaf = getattr(s, loss.of).requires_grad_()
    sums = loss(s)
    weights = torch.linspace(0.5, 2, sums.numel()).view_as(sums)
    first = torch.autograd.grad(sums, leaf, weights, retain_graph=True)[0]
    kept = first.clone()
    first.zero_()
    again = torch.autograd.grad(sums, leaf, weights)[0]
    torch.testing.assert_close(again, kept, rtol=1e-5, atol=1e-7)
    assert kept.abs().sum() > 0
