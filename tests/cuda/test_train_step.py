"""A whole training step on a CUDA device. What it imports beside torch need not be there (`make gpu`)."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from detrx.tensors import Batch, Targets


@pytest.fixture
def trainer(monkeypatch: pytest.MonkeyPatch):
    """Of a very small model."""
    for name in ("safetensors", "timm", "tyro"):
        pytest.importorskip(name)
    from detrx.models import zoo
    from detrx.train.config import TrainConfig
    from detrx.train.loop import Trainer
    from detrx.train.setup import loss_for, make_model, model_config, seed_everything

    sizes = {"hidden": 32, "heads": 4, "decoder_hidden": 32, "queries": 12, "decoder_layers": 2}
    tiny = replace(zoo.MODELS["rt-n"], name="tiny", backbone="mobilenetv3_small_050", neck_depth=1, **sizes)
    monkeypatch.setitem(zoo.MODELS, "tiny", tiny)
    settings = {"canvas": (64, 64), "levels": tiny.levels, "queries": 12, "epochs": 2, "batch": 2, "lr": 4e-4}
    config = TrainConfig(data="none", model="tiny", amp="off", **settings)
    seed_everything(0)
    shape = model_config(config)
    model, _ = make_model(config, shape, classes=2)
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return Trainer(model, config, loss=loss_for(config.loss, shape), classes=2, queries=12, device=device)


def some_batch() -> Batch:
    generator = torch.Generator().manual_seed(1)
    boxes = 0.3 + 0.3 * torch.rand(2, 2, 4, generator=generator)
    counts = torch.tensor([2, 1], dtype=torch.int32)
    boxes[1, 1] = 0
    return Batch(
        torch.randn(2, 3, 64, 64, generator=generator), Targets(boxes, torch.zeros(2, 2).long(), counts)
    )


@pytest.mark.needs("cuda")
def test_a_step_waits_for_nothing(trainer) -> None:
    spoilt = some_batch()
    spoilt.pixels[0] = float("nan")
    trainer.step(some_batch(), 0.3)  # allocates, and makes what is made once
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    torch.cuda.set_sync_debug_mode("error")
    try:
        skipped, kept = trainer.step(spoilt, 0.3), trainer.step(some_batch(), 0.3)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert [bool(step.kept) for step in (skipped, kept)] == [False, True]
    with pytest.warns(UserWarning, match="image 0 of the batch"):
        assert trainer.read_health().skipped == 1
    after = list(trainer.model.parameters())
    assert any(not torch.equal(one, other) for one, other in zip(before, after))
    assert all(tensor.isfinite().all() for tensor in (*after, *trainer.model.buffers()))
