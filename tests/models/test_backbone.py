from __future__ import annotations

from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import nn

from detrx.errors import CheckpointError, ConfigError
from detrx.models.backbone import Backbone, freeze_norm, load_backbone_weights


@pytest.mark.parametrize(
    ("name", "levels"),
    [
        ("hgnetv2_b0", (8, 16, 32)),
        ("hgnetv2_b1", (16,)),
        ("resnet18d", (4, 8)),
        ("resnet50d", (32,)),
        ("mobilenetv2_100", (8, 16)),
        ("mobilenetv4_conv_small", (8, 16, 32)),
        ("repvit_m0_9", (16, 32)),
    ],
)
def test_maps_of_the_wanted_strides(name: str, levels: tuple[int, ...]) -> None:
    backbone = Backbone(name, levels=levels).eval()
    with torch.no_grad():
        maps = backbone(torch.randn(1, 3, 64, 96))
    assert [tuple(m.shape) for m in maps] == [
        (1, c, 64 // s, 96 // s) for c, s in zip(backbone.channels, levels)
    ]
    assert backbone.strides == list(levels)


@pytest.mark.parametrize("name", ["hgnetv2_b0", "resnet18d", "mobilenetv2_100"])
def test_nothing_is_computed_past_the_deepest(name: str) -> None:
    def size(levels: tuple[int, ...]) -> int:
        return sum(p.numel() for p in Backbone(name, levels=levels).parameters())

    assert size((8,)) < size((8, 16)) < size((8, 16, 32))


def test_maps_are_those_of_timm() -> None:
    torch.manual_seed(0)
    whole = timm.create_model("mobilenetv2_100", features_only=True).eval()
    backbone = Backbone("mobilenetv2_100", levels=(8, 16)).eval()
    backbone.load(whole.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        for own, other in zip(backbone(x), whole(x)[2:4]):
            assert torch.equal(own, other)


def test_same_padding_is_timms_at_run_time() -> None:
    torch.manual_seed(0)
    whole = timm.create_model("mobilenetv2_100", features_only=True, pad_type="same").eval()
    backbone = Backbone("mobilenetv2_100", levels=(8, 16, 32), padding="same").eval()
    backbone.load(whole.state_dict())
    x = torch.randn(1, 3, 96, 64)
    with torch.no_grad():
        for own, other in zip(backbone(x), whole(x)[2:]):
            torch.testing.assert_close(own, other)
    plain = Backbone("mobilenetv2_100", levels=(32,)).eval()
    plain.load(whole.state_dict())
    with torch.no_grad():
        assert not torch.allclose(plain(x)[0], whole(x)[-1], atol=1e-3)


@pytest.mark.parametrize("name", ["hgnetv2_b0", "resnet18d", "mobilenetv2_100"])
@pytest.mark.parametrize("ending", [".pth", ".safetensors"])
def test_weights_of_a_whole_classifier(tmp_path: Path, name: str, ending: str) -> None:
    tensors = timm.create_model(name, num_classes=3).state_dict()
    path = tmp_path / f"x{ending}"
    save_file(tensors, path) if ending == ".safetensors" else torch.save(tensors, path)
    backbone = Backbone(name, levels=(8, 16))
    report = load_backbone_weights(backbone, path)
    assert len(report.taken) == len(backbone.net.state_dict())
    assert any("classifier" in k or "fc" in k or "head" in k for k in report.untaken)
    assert set(report.taken) | set(report.untaken) == set(tensors)
    first = next(iter(tensors))
    assert torch.equal(backbone.net.state_dict()[first], tensors[first])


def test_weights_of_another_network(tmp_path: Path) -> None:
    torch.save(timm.create_model("resnet18d", num_classes=3).state_dict(), tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match="tensors missing"):
        load_backbone_weights(Backbone("resnet34d", levels=(8, 32)), tmp_path / "x.pth")
    backbone = Backbone("resnet18d", levels=(8,))
    cut = {key: tensor[:1] for key, tensor in backbone.net.state_dict().items() if tensor.ndim}
    with pytest.raises(CheckpointError, match="another shape"):
        backbone.load(cut)


@pytest.mark.needs("data")
def test_the_shared_mobilenet(shared_data: Path) -> None:
    path = shared_data / "weights" / "mobilenetv2_100_imagenet_from_coral.pth"
    backbone = Backbone("mobilenetv2_100", levels=(8, 16, 32), padding="same")
    report = load_backbone_weights(backbone, path)
    assert all(key.startswith(("conv_head", "bn2", "classifier")) for key in report.untaken)
    assert len(report.taken) > 200


def test_the_projected_shortcut_begins_as_the_identity() -> None:
    plain = Backbone("resnet18d", levels=(8,)).eval()
    projected = Backbone("resnet18d", levels=(8,), projection=True).eval()
    projected.load(plain.net.state_dict())
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(plain(x)[0], projected(x)[0], rtol=1e-3, atol=1e-3)
    with pytest.raises(ConfigError, match="resnet18d"):
        Backbone("resnet50d", levels=(8,), projection=True)


@pytest.mark.parametrize("name", ["hgnetv2_b0", "mobilenetv2_100"])
def test_frozen_norms_keep_names_and_answers(name: str) -> None:
    backbone = Backbone(name, levels=(8,)).eval()
    x = torch.randn(2, 3, 64, 64)
    before, names = backbone(x)[0].detach(), list(backbone.state_dict())
    assert freeze_norm(backbone) > 0
    assert list(backbone.state_dict()) == names
    backbone.train()
    torch.testing.assert_close(backbone(x)[0], before)
    torch.testing.assert_close(backbone(x)[0], before)  # and the statistics did not move
    assert not any(isinstance(m, nn.BatchNorm2d) for m in backbone.modules())
    assert all(p.ndim != 1 or "lab" in n or "bias" in n for n, p in backbone.named_parameters())


@pytest.mark.parametrize("name", ["hgnetv2_b0", "resnet18d", "mobilenetv2_100"])
def test_freezing_goes_from_the_stem_on(name: str) -> None:
    counts = []
    for stages in range(4):
        backbone = Backbone(name, levels=(8, 16, 32))
        backbone.freeze(stages)
        frozen = [not p.requires_grad for p in backbone.parameters()]
        counts.append(sum(frozen))
        assert frozen == sorted(frozen, reverse=True)
    assert 0 < counts[0] < counts[1] < counts[2] < counts[3] < len(frozen)
    with pytest.raises(ConfigError, match="stages"):
        Backbone(name, levels=(8,)).freeze(99)


def test_names_that_do_not_exist() -> None:
    with pytest.raises(ConfigError, match="timm knows"):
        Backbone("resnet19", levels=(8,))
    with pytest.raises(ConfigError, match="stride"):
        Backbone("hgnetv2_b0", levels=(64,))
    with pytest.raises(ConfigError, match="padding"):
        Backbone("hgnetv2_b0", levels=(8,), padding="same")
