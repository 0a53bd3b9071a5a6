from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from torch._subclasses.fake_tensor import DataDependentOutputException, FakeTensorMode

from detrx.errors import ConfigError, TrainingError
from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.losses.denoise import make_denoise
from detrx.losses.stages import Costs
from detrx.ops.match import match_counting
from detrx.tensors import Outputs, Targets

CLASSES, QUERIES = 6, 20


def make_targets(counts, *, seed=0):
    g = torch.Generator().manual_seed(seed)
    shape = (len(counts), max(counts))
    boxes = torch.rand(*shape, 4, generator=g) * 0.3 + 0.2
    return Targets(boxes, torch.randint(CLASSES, shape, generator=g), torch.tensor(counts, dtype=torch.int32))


def make_outputs(batch, *, layers=3, queries=QUERIES, noise=0, seed=1, dtype=torch.float32):
    g = torch.Generator().manual_seed(seed)

    def one(layers, queries, *, edges):
        logits = torch.randn(layers, batch, queries, CLASSES, generator=g).to(dtype).requires_grad_()
        boxes = (torch.rand(layers, batch, queries, 4, generator=g) * 0.3 + 0.2).to(dtype).requires_grad_()
        if not edges:
            return Outputs(logits, boxes)
        spread = torch.randn(layers, batch, queries, 4 * 33, generator=g).to(dtype).requires_grad_()
        return Outputs(logits, boxes, spread, boxes[:1].detach().expand(layers, -1, -1, -1))

    main = one(layers, queries, edges=True)
    first, encoder = (one(1, queries, edges=False) for _ in range(2))
    denoised = None
    if noise:
        denoised = replace(one(layers, noise, edges=True), first=one(1, noise, edges=False))
    return replace(main, first=first, encoder=encoder, denoise=denoised)


@pytest.mark.parametrize("label", ["vfl", "mal"])
@pytest.mark.parametrize("counts", [[3, 0, 5], [1], [30, 2], [20, 20]])
def test_every_place_takes_its_losses(counts, label):
    config = LossConfig(label=label)
    targets = make_targets(counts)
    generator = torch.Generator().manual_seed(0)
    denoise = make_denoise(targets, classes=CLASSES, queries=QUERIES, config=config, generator=generator)
    outputs = make_outputs(len(counts), noise=denoise.labels.shape[1])
    losses = Criterion(config, CLASSES)(outputs, targets, denoise)
    places = {name.partition("_")[2] for name in losses.terms}
    noisy = {f"denoise{i}" for i in range(3)} | {"denoise_first"}
    assert places == {"", "aux0", "aux1", "first", "encoder"} | noisy
    torch.testing.assert_close(sum(losses.terms.values()), losses.total.detach())
    losses.total.backward()
    for place in (outputs, outputs.first, outputs.encoder, outputs.denoise, outputs.denoise.first):
        assert place.boxes.grad.abs().sum() > 0
        assert place.logits.grad.isfinite().all()


@pytest.mark.parametrize("padded", [0, 4])
def test_a_batch_without_objects_still_teaches(padded):
    targets = Targets(
        torch.zeros(2, padded, 4),
        torch.zeros(2, padded, dtype=torch.int64),
        torch.zeros(2, dtype=torch.int32),
    )
    outputs = make_outputs(2)
    losses = Criterion(LossConfig(), CLASSES)(outputs, targets)
    losses.total.backward()
    assert losses.total.isfinite()
    assert outputs.logits.grad.abs().sum() > 0
    assert outputs.boxes.grad.eq(0).all()


def leaves(outputs):
    """Everything that takes a gradient."""
    places = [outputs, outputs.first, outputs.encoder, outputs.denoise]
    places.append(outputs.denoise.first if outputs.denoise else None)
    every = (x for o in places if o is not None for x in (o.logits, o.boxes, o.distributions))
    return [x for x in every if x is not None]


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    ("counts", "padded"), [([3, 0, 5], 5), ([30, 2], 30), ([0, 0], 2), ([0], 0), ([20, 1], 25)]
)
@pytest.mark.parametrize("label", ["vfl", "mal"])
def test_native_and_reference_kernels_agree(label, counts, padded, dtype):
    config = LossConfig(label=label)
    wide = make_targets([*counts, padded])
    targets = Targets(wide.boxes[:-1], wide.labels[:-1], wide.counts[:-1])
    generator = torch.Generator().manual_seed(0)
    denoise = make_denoise(targets, classes=CLASSES, queries=QUERIES, config=config, generator=generator)
    outputs = make_outputs(len(counts), noise=0 if denoise is None else denoise.labels.shape[1], dtype=dtype)
    native = Criterion(config, CLASSES)(outputs, targets, denoise)
    plain = Criterion(replace(config, kernels="reference"), CLASSES)(outputs, targets, denoise)
    assert native.terms.keys() == plain.terms.keys()
    for name, value in plain.terms.items():
        torch.testing.assert_close(
            native.terms[name], value, rtol=1e-5, atol=1e-6, msg=lambda m, n=name: f"{n}: {m}"
        )
    ours, theirs = (torch.autograd.grad(x.total, leaves(outputs), allow_unused=True) for x in (native, plain))
    # The gradient is computed in float32 and then rounded to the type of the network's output.
    step = torch.finfo(dtype).eps
    for a, b in zip(ours, theirs, strict=True):
        assert (a is None) == (b is None)
        if a is not None:
            torch.testing.assert_close(a, b, rtol=max(step, 1e-4), atol=1e-6)


def fake_step(device, name, *, noise=4):
    """A criterion's losses of tensors that have shapes and a device, and no numbers; reading one raises."""
    config = LossConfig(kernels=name)
    targets = make_targets([3, 0, 5])
    denoise = make_denoise(
        targets,
        classes=CLASSES,
        queries=QUERIES,
        config=replace(config, denoise=noise),
        generator=torch.Generator(),
    )
    outputs = make_outputs(3, noise=denoise.labels.shape[1])
    criterion = Criterion(config, CLASSES)
    criterion.kernels = replace(criterion.kernels, match=match_counting)  # its reference works on the host
    with FakeTensorMode():

        def fake(data):
            if data is None:
                return None
            found = {}
            for item in fields(data):
                value = getattr(data, item.name)
                if isinstance(value, torch.Tensor):
                    kind = {"dtype": value.dtype, "requires_grad": value.requires_grad}
                    value = torch.empty(value.shape, device=device, **kind)
                found[item.name] = fake(value) if isinstance(value, Outputs) else value
            return replace(data, **found)

        outputs = fake(outputs)
        losses = criterion(outputs, fake(targets), fake(denoise))
        if device == "cpu":  # the way back needs a device that is there
            losses.total.backward()
        return losses, outputs


@pytest.mark.parametrize("name", ["native", "reference"])
def test_nothing_waits_for_the_device(name, monkeypatch):
    """Fake tensors refuse whatever needs a number on the host: item(), nonzero(), a mask as an index."""
    monkeypatch.setattr(Costs, "check", lambda _: None)  # the CPU's own
    losses, _ = fake_step("cuda", name)
    assert losses.total.device.type == losses.costs.bad.device.type == "cuda"
    with pytest.raises(DataDependentOutputException):
        losses.total.item()
    _, outputs = fake_step("cpu", name)
    assert outputs.boxes.grad.shape == outputs.boxes.shape


def test_order_of_the_pictures_does_not_matter():
    outputs, targets = make_outputs(2), make_targets([4, 2])
    turned = Targets(targets.boxes.flip(0), targets.labels.flip(0), targets.counts.flip(0))

    def flip(o):
        return Outputs(
            *(None if x is None else x.flip(1) for x in (o.logits, o.boxes, o.distributions, o.references))
        )

    swapped = replace(flip(outputs), first=flip(outputs.first), encoder=flip(outputs.encoder))
    criterion = Criterion(LossConfig(), CLASSES)
    torch.testing.assert_close(criterion(outputs, targets).total, criterion(swapped, turned).total)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_widened(dtype):
    targets = make_targets([3, 4])
    low = make_outputs(2, dtype=dtype)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = Criterion(LossConfig(), CLASSES)(low, targets)
    wide = make_outputs(2, dtype=dtype)

    def widen(o):
        return Outputs(
            *(None if x is None else x.float() for x in (o.logits, o.boxes, o.distributions, o.references))
        )

    wide = replace(widen(wide), first=widen(wide.first), encoder=widen(wide.encoder))
    assert found.total.dtype == torch.float32
    torch.testing.assert_close(found.total, Criterion(LossConfig(), CLASSES)(wide, targets).total)


@pytest.mark.parametrize(
    ("place", "name"), [("", "the last layer"), ("first", "first"), ("encoder", "encoder")]
)
def test_a_sick_layer_is_named(place, name):
    outputs = make_outputs(3)
    with torch.no_grad():
        (getattr(outputs, place) if place else outputs).boxes[-1, 2] = float("nan")
    with pytest.raises(TrainingError, match=rf"of {name}, image 2"):
        Criterion(LossConfig(), CLASSES)(outputs, make_targets([1, 2, 3]))


def test_outputs_of_another_model_are_refused():
    with pytest.raises(ConfigError, match="must have 7 classes, got 6"):
        Criterion(LossConfig(), 7)(make_outputs(1), make_targets([1]))
    with pytest.raises(ConfigError, match=r"4 \* \(bins \+ 1\) = 68"):
        Criterion(LossConfig(bins=16), CLASSES)(make_outputs(1), make_targets([1]))


def test_the_power_is_the_published_one_of_the_loss():
    assert (LossConfig().power, LossConfig(label="vfl").power, LossConfig(gamma=3.0).power) == (1.5, 2.0, 3.0)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("label", "focal"),
        ("kernels", "fast"),
        ("bins", 3),
        ("label_noise", 1.5),
        ("denoise", -1),
        ("box_noise", -0.1),
    ],
)
def test_settings_are_checked(field, value):
    with pytest.raises(ConfigError, match=field):
        LossConfig(**{field: value})
