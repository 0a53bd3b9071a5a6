from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from detrx.errors import ConfigError, TrainingError
from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.losses.denoise import make_denoise
from detrx.losses.distributions import distillation_loss, edge_targets, localisation_loss
from detrx.losses.labels import label_loss
from detrx.losses.pairs import pair, pair_union
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


def plain_union(match, queries):
    """One image at a time: count the votes and give each query its favourite target."""
    found = set()
    for image in range(match.shape[1]):
        for query in range(queries):
            votes = [(match[:, image, m] == query).sum().item() for m in range(match.shape[2])]
            if max(votes, default=0):
                found.add((image * queries + query, image * match.shape[2] + votes.index(max(votes))))
    return found


def test_union_gives_a_query_to_the_target_with_most_votes():
    g = torch.Generator().manual_seed(0)
    match = torch.stack(
        [torch.stack([torch.randperm(9, generator=g)[:5] for _ in range(3)]) for _ in range(6)]
    )
    match[:, 1, 3:] = -1
    match[:, 2] = -1
    found = pair_union(match, 9)
    pairs = set(zip(found.rows[0].tolist(), found.truths[0].tolist()))
    assert pairs == plain_union(match, 9)
    assert len(set(found.rows[0].tolist())) == found.rows.shape[1]


def test_pairs_of_each_stage():
    match = torch.tensor([[[4, 1], [0, -1]], [[2, 3], [5, -1]]])
    found = pair(match, 10)
    assert found.rows.tolist() == [[4, 1, 10], [2, 3, 15]]
    assert found.truths.tolist() == [[0, 1, 2], [0, 1, 2]]
    assert found.flat(20).tolist() == [4, 1, 10, 22, 23, 35]


@pytest.mark.parametrize(("label", "gamma"), [("vfl", 2.0), ("vfl", 1.5), ("mal", 1.5)])
def test_label_loss_against_one_hot_targets(label, gamma):
    g = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(2, 7, CLASSES, generator=g)).requires_grad_()
    cells = torch.tensor([[3, 20, 41], [0, 9, 30]])
    overlaps = torch.rand(2, 3, generator=g)
    found = label_loss(logits, cells, overlaps, config=LossConfig(label=label, gamma=gamma))
    hot = torch.zeros(2, 7 * CLASSES).scatter(1, cells, 1.0).reshape(logits.shape)
    quality = torch.zeros(2, 7 * CLASSES).scatter(1, cells, overlaps).reshape(logits.shape)
    p = logits.detach().sigmoid() ** gamma
    if label == "vfl":
        weight, wanted = 0.75 * p * (1 - hot) + quality, quality
    else:
        weight, wanted = p * (1 - hot) + hot, quality**gamma
    plain = F.binary_cross_entropy_with_logits(logits, wanted, weight, reduction="none").sum((1, 2))
    torch.testing.assert_close(found, plain)
    slope = torch.tensor([1.0, -2.0])
    ours, theirs = (
        torch.autograd.grad((x * slope).sum(), logits, retain_graph=True)[0] for x in (found, plain)
    )
    torch.testing.assert_close(ours, theirs)


def test_distillation_against_torch():
    g = torch.Generator().manual_seed(0)
    students = torch.randn(2, 9, 4, 33, generator=g).requires_grad_()
    teacher, confidence = torch.randn(9, 4, 33, generator=g), torch.rand(9, generator=g)
    rows, overlaps = torch.tensor([[1, 4], [0, 8]]), torch.rand(2, 2, generator=g)
    found = distillation_loss(students, teacher, confidence, rows, overlaps, temperature=5.0)
    for layer in range(2):
        log = F.log_softmax(students[layer] / 5, -1)
        each = F.kl_div(log, (teacher / 5).softmax(-1), reduction="none").sum(-1) * 25
        matched = torch.zeros(9, dtype=torch.bool)
        matched[rows[layer]] = True
        weight = confidence.scatter(0, rows[layer], overlaps[layer])
        each = each * weight[:, None]
        roots = 2**0.5 + 7**0.5
        plain = (each[matched].mean() * 2**0.5 + each[~matched].mean() * 7**0.5) / roots
        torch.testing.assert_close(found[layer], plain)
        ours, theirs = (torch.autograd.grad(x, students, retain_graph=True)[0] for x in (found[layer], plain))
        torch.testing.assert_close(ours, theirs)


def test_edges_are_found_again_from_their_bins():
    config = LossConfig()
    references, truths = torch.rand(50, 4) * 0.3 + 0.3, torch.rand(50, 4) * 0.3 + 0.3
    left, share = edge_targets(references, truths, config=config)
    assert left.min() >= 0
    assert left.max() <= 31
    assert share.min() >= 0
    assert share.max() <= 1
    same, between = edge_targets(references, references, config=config)
    assert ((same + between) - 16).abs().max() < 1e-3  # zero is the middle bin
    edges = torch.randn(1, 50, 4, 33)
    loss = localisation_loss(edges, left[None], share[None], torch.ones(1, 50))
    a = F.cross_entropy(edges.reshape(-1, 33), left.reshape(-1), reduction="none") * (1 - share.reshape(-1))
    b = F.cross_entropy(edges.reshape(-1, 33), left.reshape(-1) + 1, reduction="none") * share.reshape(-1)
    torch.testing.assert_close(loss, (a + b).sum()[None])


@pytest.mark.parametrize(
    ("field", "value"),
    [("label", "focal"), ("bins", 3), ("label_noise", 1.5), ("denoise", -1), ("box_noise", -0.1)],
)
def test_settings_are_checked(field, value):
    with pytest.raises(ConfigError, match=field):
        LossConfig(**{field: value})
