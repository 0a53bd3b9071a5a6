from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from detrx.errors import ConfigError
from detrx.models.config import RtConfig
from detrx.models.encoder import HybridEncoder
from detrx.models.layers import ConvNorm, RepVgg
from detrx.models.rt import RtDetr
from detrx.models.zoo import MODELS, build, config_for
from detrx.tensors import DenoiseQueries

TINY = RtConfig(
    name="tiny",
    backbone="mobilenetv2_035",
    hidden=16,
    heads=2,
    neck_depth=1,
    encoder_feedforward=16,
    decoder_hidden=16,
    decoder_layers=2,
    decoder_feedforward=16,
    queries=30,
)
TINY_V2 = replace(TINY, head="rtdetrv2", neck="csp")
TINY_LIGHT = replace(TINY, neck="light", attention_levels=(32,))
# Millions of parameters at 80 classes: but for rt-p D-FINE's and RT-DETRv2's own numbers, frozen norms counted in.
SIZES = {
    "rt-p": 1.7,
    "rt-n": 3.8,
    "rt-s": 10.3,
    "rt-m": 19.6,
    "rt-l": 31.3,
    "rt-x": 62.7,
    "rtdetrv2-r18": 20.2,
    "rtdetrv2-r34": 31.4,
    "rtdetrv2-r50": 42.9,
    "rtdetrv2-r101": 76.7,
}


@pytest.mark.parametrize("name", SIZES)
def test_sizes_are_the_published_ones(name: str) -> None:
    with torch.device("meta"):
        model = build(config_for(name), classes=80)
    assert sum(p.numel() for p in model.parameters()) / 1e6 == pytest.approx(SIZES[name], abs=0.06)


@pytest.mark.parametrize("config", [TINY, TINY_V2, TINY_LIGHT], ids=["dfine", "rtdetrv2", "light"])
@pytest.mark.parametrize("levels", [(8,), (32,), (8, 16), (16, 32), (8, 16, 32), (4, 8, 16)])
def test_any_levels_on_any_canvas(config: RtConfig, levels: tuple[int, ...]) -> None:
    model = build(replace(config, levels=levels), classes=3).eval()
    for canvas in ((32, 64), (96, 32)):
        with torch.no_grad():
            out = model(torch.randn(2, 3, *canvas))
        queries = model.queries_for(canvas)
        assert out.logits.shape == (1, 2, queries, 3)
        assert bool((out.boxes.isfinite() & (out.boxes > -1) & (out.boxes < 2)).all())


def test_variants_by_replace() -> None:
    config = replace(
        MODELS["rt-n"],
        backbone="mobilenetv2_100",
        backbone_padding="same",
        levels=(8, 16),
        queries=50,
        hidden=64,
    )
    with torch.no_grad():
        out = build(config, classes=3).eval()(torch.randn(1, 3, 64, 64))
    assert out.boxes.shape == (1, 1, 50, 4)


def test_attention_to_a_pooled_map_reaches_every_cell() -> None:
    maps = [torch.randn(1, count, 64 // stride, 96 // stride) for count, stride in ((24, 8), (40, 16))]
    encoder = HybridEncoder([24, 40], replace(TINY_LIGHT, levels=(8, 16))).eval()
    assert [attention.pool for attention in encoder.encoder] == [2]
    maps[1].requires_grad_()
    encoder(maps)[1][0, :, 0, 0].sum().backward()
    assert maps[1].grad is not None
    assert bool((maps[1].grad.abs().sum(1) > 0).all())


def test_a_canvas_off_the_grid_is_refused() -> None:
    with pytest.raises(ValueError, match="multiples of 32"):
        build(TINY, classes=3)(torch.randn(1, 3, 64, 65))


def denoise(queries: int, *, count: int = 6) -> DenoiseQueries:
    mask = torch.zeros(count + queries, count + queries, dtype=torch.bool)
    mask[count:, :count] = True
    return DenoiseQueries(
        torch.tensor([[0, 1, 3, 2, 3, 3]] * 2), torch.randn(2, count, 4), mask, torch.full((2, count), -1), 1
    )


@pytest.mark.parametrize("config", [TINY, TINY_V2], ids=["dfine", "rtdetrv2"])
def test_denoising_does_not_touch_the_other_queries(config: RtConfig) -> None:
    model = build(config, classes=3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eval()
    x = torch.randn(2, 3, 64, 64)
    plain, noised = model(x), model(x, denoise(30))
    torch.testing.assert_close(plain.logits, noised.logits)
    torch.testing.assert_close(plain.boxes, noised.boxes)
    assert noised.denoise is not None
    assert noised.denoise.logits.shape == (2, 2, 6, 3)
    assert (noised.first is None) == (noised.denoise.first is None) == (config.head == "rtdetrv2")


def test_a_mask_of_another_size_is_refused() -> None:
    with pytest.raises(ConfigError, match="queries_for"):
        build(TINY, classes=3)(torch.randn(2, 3, 64, 64), denoise(29))


@pytest.mark.parametrize("config", [TINY, TINY_V2], ids=["dfine", "rtdetrv2"])
def test_every_parameter_learns(config: RtConfig) -> None:
    torch.manual_seed(0)
    model = build(config, classes=3)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter) * 0.02)  # some begin at zero and block the way
    out = model(torch.randn(2, 3, 64, 64), denoise(30))
    parts = [out, out.encoder, out.denoise, out.first, out.denoise.first if out.denoise else None]
    total = sum((p.logits.square().mean() + p.boxes.square().mean()) for p in parts if p is not None)
    total.backward()
    silent = [n for n, p in model.named_parameters() if p.grad is None]
    assert not silent
    assert model.decoder.denoising_class_embed.weight.grad[3].abs().sum() == 0


def test_only_the_answering_layer_runs_in_eval_mode() -> None:
    model = build(replace(TINY_V2, decoder_layers=4, eval_layer=1), classes=3).eval()
    calls = []
    for i, layer in enumerate(model.decoder.decoder.layers):
        layer.register_forward_hook(lambda m, a, o, i=i: calls.append(i))
    with torch.no_grad():
        model(torch.randn(1, 3, 32, 32))
    assert calls == [0, 1]


@pytest.mark.parametrize("config", [TINY, TINY_V2, TINY_LIGHT], ids=["dfine", "rtdetrv2", "light"])
def test_fused_answers_alike_with_fewer_parts(config: RtConfig) -> None:
    torch.manual_seed(0)
    model = build(config, classes=3)
    x = torch.randn(2, 3, 64, 64)
    for _ in range(2):
        model(x)  # moves the statistics off their start
    model.eval()
    fused = copy.deepcopy(model).fuse()
    with torch.no_grad():
        one, two = model(x), fused(x)
    torch.testing.assert_close(one.logits, two.logits, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(one.boxes, two.boxes, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(m, nn.BatchNorm2d) for m in fused.encoder.modules())
    assert all(m.conv2 is None for m in fused.modules() if isinstance(m, RepVgg))
    assert len(fused.state_dict()) < len(model.state_dict())
    assert any(isinstance(m, ConvNorm) for m in fused.modules())


def test_what_inference_remembered_serves_training() -> None:
    model = build(TINY, classes=3).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.inference_mode():
        model(x)
    out = model.train()(x)
    out.boxes.sum().backward()
    assert not any("anchor" in key or "position" in key for key in model.state_dict())
    copy.deepcopy(model)


def test_bfloat16_autocast_stays_near() -> None:
    torch.manual_seed(0)
    model: RtDetr = build(TINY, classes=3)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = model(torch.randn(2, 3, 64, 64), denoise(30))
    assert out.logits.dtype == out.boxes.dtype == torch.float32
    (out.logits.sum() + out.boxes.sum()).backward()
    assert all(p.grad is None or bool(p.grad.isfinite().all()) for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_anchors_keep_their_place_in_half_precision(dtype: torch.dtype) -> None:
    model: RtDetr = build(TINY, classes=3)
    shapes = [(64 // stride, 64 // stride) for stride in TINY.levels]
    exact, _ = model.decoder.anchors(shapes, torch.zeros(1))
    anchors, _ = model.decoder.anchors(shapes, torch.zeros(1, dtype=dtype))
    assert torch.equal(anchors, exact)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"levels": (8, 32)}, "double"),
        ({"levels": ()}, "levels"),
        ({"levels": (16, 8)}, "levels"),
        ({"hidden": 30}, "hidden"),
        ({"head": "yolo"}, "head"),
        ({"neck": "pan"}, "neck"),
        ({"queries": 0}, "queries"),
        ({"bins": 7}, "bins"),
        ({"eval_layer": 2}, "eval_layer"),
        ({"points": (4,)}, "points"),
        ({"attention_levels": (64,)}, "attention_levels"),
    ],
)
def test_settings_out_of_range(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        replace(TINY, **change)


def test_names_of_the_zoo() -> None:
    assert list(MODELS)[:6] == ["rt-p", "rt-n", "rt-s", "rt-m", "rt-l", "rt-x"]
    with pytest.raises(ConfigError, match="rt-n"):
        config_for("rt-q")
    with pytest.raises(ConfigError, match="classes"):
        build(TINY, classes=0)
