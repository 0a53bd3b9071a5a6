"""Matching and losses as a training step uses them on a CUDA device: no waiting, one graph, any stream, every wrapper.

`make gpu` runs these on a machine that has torch, numpy and pytest, and nothing else to import.
"""

from __future__ import annotations

import contextlib
import os

import pytest
import torch

from detrx.errors import TrainingError
from detrx.losses.config import LossConfig
from detrx.losses.criterion import Criterion
from detrx.ops.box_loss import box_loss
from detrx.ops.cross_entropy import cross_entropy
from detrx.ops.ddf_loss import ddf_loss
from detrx.ops.fgl_loss import fgl_loss
from detrx.ops.focal_loss import focal_loss
from detrx.ops.match import match, match_counting, raise_bad
from detrx.ops.owners import agree, owners
from detrx.tensors import Outputs, Targets

pytestmark = pytest.mark.needs("cuda")

LAYERS, IMAGES, QUERIES, CLASSES, TARGETS = 3, 4, 100, 20, 12


@pytest.fixture
def truth() -> Targets:
    torch.manual_seed(0)
    counts = torch.tensor([TARGETS, 0, 5, 1], dtype=torch.int32, device="cuda")
    labels = torch.randint(0, CLASSES, (IMAGES, TARGETS), device="cuda")
    return Targets(torch.rand(IMAGES, TARGETS, 4, device="cuda") * 0.4 + 0.2, labels, counts)


@pytest.fixture
def leaves(truth: Targets) -> list[torch.Tensor]:
    """Logits, boxes, edges."""
    logits = torch.randn(LAYERS, IMAGES, QUERIES, CLASSES, device="cuda")
    boxes = torch.rand(LAYERS, IMAGES, QUERIES, 4, device="cuda") * 0.4 + 0.2
    edges = torch.randn(LAYERS, IMAGES, QUERIES, 4, 33, device="cuda")
    return [leaf.requires_grad_() for leaf in (logits, boxes, edges)]


@contextlib.contextmanager
def waiting_is_an_error():
    torch.cuda.synchronize()
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")


def step(logits, boxes, edges, truth: Targets):
    """Everything that this package launches between a model's outputs and their gradients."""
    found, bad = match_counting(logits, boxes, truth)
    own = owners(found, images=IMAGES, queries=QUERIES)
    joint = agree(own).unsqueeze(0)
    normaliser = truth.counts.sum().clamp(min=1).float()
    boxed = box_loss(boxes, truth.boxes, joint, normaliser=normaliser)
    settings = {"kind": "varifocal", "quality": boxed.iou, "normaliser": normaliser}
    terms = [boxed.l1, boxed.overlap, focal_loss(logits, truth.labels, own, **settings)]
    terms.append(cross_entropy(logits, truth.labels.clamp(max=CLASSES - 2), own))
    weights = {"reg_scale": 4.0, "up": 0.5, "normaliser": normaliser}
    terms.append(fgl_loss(edges, boxes.detach(), truth.boxes, joint, boxed.iou, **weights))
    terms.append(ddf_loss(edges, logits[-1].detach().amax(-1).sigmoid(), joint, boxed.iou))
    return torch.cat(terms).sum(), bad


def slopes(leaves, truth, run=step):
    total, bad = run(*leaves, truth)
    return [total.detach(), *torch.autograd.grad(total, leaves)], bad


def test_nothing_waits(leaves, truth):
    slopes(leaves, truth)  # the libraries load
    with waiting_is_an_error():
        found, bad = slopes(leaves, truth)
    raise_bad(bad, images=IMAGES)
    assert all(tensor.isfinite().all() for tensor in found)


def test_two_runs_give_the_same_bits(leaves, truth):
    one, other = (slopes(leaves, truth)[0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one, other))


def test_the_caller_chooses_the_stream(leaves, truth):
    wanted, _ = slopes(leaves, truth)
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        torch.cuda._sleep(10_000_000)  # on another stream the inputs would be read before they are written
        late = [(leaf.detach() * 1).requires_grad_() for leaf in leaves]
        found, _ = slopes(late, truth)
    stream.synchronize()
    assert all(torch.equal(a, b) for a, b in zip(found, wanted))


def test_a_graph_is_captured_and_replayed(leaves, truth):
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        slopes(leaves, truth)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        captured, bad = slopes(leaves, truth)
    for seed in (1, 2):
        torch.manual_seed(seed)
        with torch.no_grad():
            leaves[0].copy_(torch.randn_like(leaves[0]))
            leaves[1].copy_(torch.rand_like(leaves[1]) * 0.4 + 0.2)
        graph.replay()
        wanted, _ = slopes(leaves, truth)
        raise_bad(bad, images=IMAGES)
        assert all(torch.equal(a, b) for a, b in zip(captured, wanted))


@pytest.mark.filterwarnings("default")  # of what compiles: of no interest here
def test_it_compiles_in_one_piece(leaves, truth):
    wanted, _ = slopes(leaves, truth)

    def plain(logits, boxes, edges, places, labels, counts):
        return step(logits, boxes, edges, Targets(places, labels, counts))

    compiled = torch.compile(plain, fullgraph=True)
    total, _ = compiled(*leaves, truth.boxes, truth.labels, truth.counts)
    found = [total.detach(), *torch.autograd.grad(total, leaves)]
    for one, other in zip(found, wanted):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_autocast_leaves_the_arithmetic_in_float32(leaves, truth, dtype):
    narrow = [leaf.detach().to(dtype).requires_grad_() for leaf in leaves]
    wide = [leaf.detach().float().requires_grad_() for leaf in narrow]
    with torch.autocast("cuda", dtype):
        found, _ = slopes(narrow, truth)
    wanted, _ = slopes(wide, truth)
    assert found[0].dtype == torch.float32
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("default")  # of the wrapper and its process group
@pytest.mark.parametrize("backend", ["gloo", "nccl"])
def test_gradients_pass_through_ddp(leaves, truth, backend, tmp_path):
    distributed = torch.distributed
    if not getattr(distributed, f"is_{backend}_available")():
        pytest.skip(f"this torch is without {backend}")
    os.environ.setdefault("GLOO_SOCKET_IFNAME", "lo")
    os.environ.setdefault("NCCL_SOCKET_IFNAME", "lo")
    distributed.init_process_group(backend, init_method=f"file://{tmp_path}/meet", rank=0, world_size=1)
    try:
        head = torch.nn.Linear(4, 4).cuda()
        with torch.no_grad():
            head.weight.copy_(torch.eye(4))
            head.bias.zero_()
        wrapped = torch.nn.parallel.DistributedDataParallel(head, device_ids=[0])
        total, _ = step(leaves[0], wrapped(leaves[1]), leaves[2], truth)
        total.backward()
        assert head.weight.grad.isfinite().all()
        assert head.weight.grad.any()
    finally:
        distributed.destroy_process_group()


def test_bad_costs_are_raised_when_somebody_waits(leaves, truth):
    with torch.no_grad():
        leaves[0][1, 2, 7] = float("nan")
    slopes(leaves, truth)
    with waiting_is_an_error():
        _, bad = match_counting(leaves[0], leaves[1], truth)
        match(leaves[0], leaves[1], truth)
    with pytest.raises(TrainingError, match=r"costs must be finite, but 5 of layer 1, image 2"):
        raise_bad(bad, images=IMAGES)


def test_the_match_is_that_of_the_cpu(leaves, truth):
    there = match(leaves[0], leaves[1], truth)
    here = match(leaves[0].cpu(), leaves[1].cpu(), truth.to("cpu"))
    assert torch.equal(there.cpu(), here)


@pytest.mark.parametrize("union", [True, False])
def test_the_whole_criterion_does_not_wait(leaves, truth, union):
    criterion = Criterion(LossConfig(union=union), CLASSES)
    logits, boxes, edges = leaves

    def total():
        outputs = Outputs(logits, boxes, edges.flatten(3), boxes.detach())
        losses = criterion(outputs, truth)
        return torch.autograd.grad(losses.total, leaves, allow_unused=True)

    total()
    with waiting_is_an_error():
        found = total()
    assert all(slope.isfinite().all() for slope in found if slope is not None)
