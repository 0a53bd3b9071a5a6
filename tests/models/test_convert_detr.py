"""DETR's weights in all their layouts, there and back; and files that are none, or worse."""

from __future__ import annotations

import argparse
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from detr_pairs import TINY, pair, pictures, saved
from safetensors.torch import load_file, save_file
from torch import Tensor

from detrx.cli.main import main
from detrx.errors import CheckpointError, ConfigError, TrustError
from detrx.models.checkpoint import load_model, read_checkpoint, save_checkpoint
from detrx.models.coco_names import COCO_IDS, COCO_NAMES
from detrx.models.config import DetrConfig
from detrx.models.convert_detr import from_original, original_name, to_original, transformers_name
from detrx.models.detr import Detr
from detrx.models.layouts import convert
from detrx.models.zoo import build, config_for
from detrx.types import ModelInfo

INFO = ModelInfo("tiny", ("dog", "cat", "cow"), (1, 7, 3), (64, 96), licence="CC0")


def same(one: Detr, other: Detr) -> bool:
    ours, theirs = one.state_dict(), other.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[key], theirs[key]) for key in ours)


def model_of(classes: int = 3, **changes: Any) -> Detr:
    torch.manual_seed(0)
    return build(replace(TINY, **changes), classes=classes).eval()


def file_of(tmp_path: Path, model: Detr, info: ModelInfo = INFO) -> Path:
    path = tmp_path / "own.safetensors"
    tensors = {f"model.{key}": tensor for key, tensor in model.state_dict().items()}
    save_checkpoint(path, tensors, info=info, config=model.config)
    return path


@pytest.mark.parametrize(("name", "count"), [("detr-r50", 458), ("detr-r50-dc5", 458), ("detr-r101", 713)])
def test_names_and_shapes_are_the_published_ones(name: str, count: int) -> None:
    config = config_for(name)
    assert isinstance(config, DetrConfig)
    with torch.device("meta"):
        model = build(replace(config, head_classes=91, columns=COCO_IDS), classes=80)
    theirs = to_original(model)
    assert len(theirs) == count
    assert theirs["class_embed.weight"].shape == (92, 256)
    assert theirs["transformer.decoder.layers.5.multihead_attn.in_proj_weight"].shape == (768, 256)
    assert theirs["backbone.0.body.layer4.2.conv3.weight"].shape == (2048, 512, 1, 1)
    assert from_original(model, theirs).keys() == model.state_dict().keys()


def test_a_few_names_by_heart() -> None:
    assert (
        original_name("backbone.net.layer1.0.downsample.1.bias")
        == "backbone.0.body.layer1.0.downsample.1.bias"
    )
    assert original_name("positions.row_embed.weight") == "backbone.1.row_embed.weight"
    layer = "transformer.decoder.layers.3"
    assert transformers_name(f"{layer}.norm2.bias") == "model.decoder.layers.3.encoder_attn_layer_norm.bias"
    assert transformers_name(f"{layer}.multihead_attn.out_proj.bias") == (
        "model.decoder.layers.3.encoder_attn.o_proj.bias"
    )


def published(path: Path, model: Detr, **more: Any) -> Path:
    torch.save({"model": to_original(model), **more}, path)
    return path


def test_published_weights_of_coco(tmp_path: Path) -> None:
    model = model_of(80, heads=8, head_classes=91, columns=COCO_IDS)
    found, info = load_model(published(tmp_path / "detr-r18-12345678.pth", model))
    assert isinstance(found, Detr)
    assert same(found, model)
    assert found.config == replace(model.config, name="detr-r18")
    assert (info.names, info.category_ids) == (COCO_NAMES, COCO_IDS)
    assert (info.marked, info.sides, info.canvas) == (True, (800, 1333), (800, 1344))
    assert "Apache-2.0" in info.licence


def test_a_training_checkpoint_of_the_original(tmp_path: Path) -> None:
    model = model_of(positions="learned", norm_first=True, dilated=True)
    args = argparse.Namespace(
        nheads=4,
        dilation=True,
        dropout=0.2,
        backbone="resnet18",
        output_dir=Path("/a/b"),
        lr=1e-4,
        masks=False,
    )
    optimizer = torch.optim.AdamW(model.parameters())
    path = published(
        tmp_path / "checkpoint.pth",
        model,
        optimizer=optimizer.state_dict(),
        lr_scheduler=torch.optim.lr_scheduler.StepLR(optimizer, 200).state_dict(),
        epoch=3,
        args=args,
    )
    found, info = load_model(path)
    assert isinstance(found, Detr)
    assert same(found, model)
    assert found.config == replace(model.config, name="detr-r18-dc5", dropout=0.2)
    assert info.names == ("class 0", "class 1", "class 2")


@pytest.mark.parametrize("name", ["detr-r18-dc5-abc.pth", "MY_DC5.pth"])
def test_dc5_is_told_by_the_file_s_name(tmp_path: Path, name: str) -> None:
    found, _ = load_model(published(tmp_path / name, model_of()))
    assert found.config == replace(TINY, name="detr-r18-dc5", dilated=True, heads=8)


def test_weights_saved_from_several_gpus(tmp_path: Path) -> None:
    tensors = {f"module.{key}": tensor for key, tensor in to_original(model_of()).items()}
    torch.save({"model": tensors}, tmp_path / "x.pth")
    assert same(load_model(tmp_path / "x.pth")[0], model_of())  # type: ignore[arg-type]


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.canary}'",)


@pytest.mark.parametrize("where", ["args", "inside args", "model", "epoch"])
def test_a_malicious_training_checkpoint_never_runs(tmp_path: Path, where: str) -> None:
    canary = tmp_path / "canary"
    bad = Payload(canary)
    found: dict[str, Any] = {
        "model": to_original(model_of()),
        "args": argparse.Namespace(nheads=4),
        "epoch": 1,
    }
    if where == "inside args":
        found["args"].output_dir = bad
    elif where == "model":
        found["model"]["class_embed.bias"] = bad
    else:
        found[where] = bad
    torch.save(found, tmp_path / "checkpoint.pth")
    with pytest.raises(TrustError, match="system"):
        load_model(tmp_path / "checkpoint.pth")
    assert not canary.exists()


def test_a_namespace_with_a_hook_is_only_data(tmp_path: Path) -> None:
    """What a Namespace carries is never called, whatever it is named."""
    args = argparse.Namespace()
    vars(args).update({"__class__": "x", "__setstate__": "y", "nheads": "z"})
    path = published(tmp_path / "x.pth", model_of(), args=args)
    with pytest.raises(CheckpointError):
        load_model(path)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("query_embed.weight"), "query_embed.weight. is missing"),
        (lambda t: t.pop("bbox_embed.layers.1.bias"), "1 missing .*bbox_embed.layers.1.bias"),
        (lambda t: t.update({"more": torch.ones(1)}), "1 unknown .*more"),
        (lambda t: t.update({"class_embed.bias": torch.ones(9)}), r"another shape .*\(9,\) for \(4,\)"),
        (lambda t: t.update({"mask_head.lay1.bias": torch.ones(36)}), "must be|missing"),
        (lambda t: t.update({"backbone.0.body.layer1.7.conv1.weight": torch.ones(1)}), "must be a ResNet"),
    ],
)
def test_original_weights_that_do_not_fit(tmp_path: Path, change: Any, said: str) -> None:
    tensors = to_original(model_of())
    change(tensors)
    torch.save({"model": tensors}, tmp_path / "x.pth")
    with pytest.raises(CheckpointError, match=said):
        load_model(tmp_path / "x.pth")


# --- transformers


def answers_alike(theirs: Any, ours: Any) -> None:
    pixels, padding = pictures((64, 96), (96, 64))
    with torch.no_grad():
        expected = theirs(pixels, pixel_mask=(~padding).long())
        found = ours.locate(pixels, padding)
    torch.testing.assert_close(found.logits[0], expected.logits, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(found.boxes[0], expected.pred_boxes, rtol=1e-5, atol=1e-5)


def test_a_folder_of_transformers(tmp_path: Path) -> None:
    theirs, _ = pair()
    saved(theirs, tmp_path)
    assert any(
        ".conv_encoder." in key for key in load_file(tmp_path / "model.safetensors")
    )  # the spelling of 4
    for source in (tmp_path, tmp_path / "model.safetensors"):
        ours, info = load_model(source)
        assert info.names[4] == "thing 4"
        answers_alike(theirs, ours)


@pytest.mark.parametrize("positions", ["sine", "learned"])
def test_the_spelling_of_transformers_5_and_bin(tmp_path: Path, positions: Any) -> None:
    theirs, _ = pair(replace(TINY, positions=positions))
    saved(theirs, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(theirs.state_dict(), tmp_path / "pytorch_model.bin")
    answers_alike(theirs, load_model(tmp_path)[0])


def test_their_own_resnet(tmp_path: Path) -> None:
    from detr_pairs import shake, their_config
    from transformers import DetrForObjectDetection, ResNetConfig

    config = their_config(TINY)
    config.backbone_config = ResNetConfig(
        embedding_size=64,
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage4"],
    )
    theirs = DetrForObjectDetection(config).eval()
    shake(theirs)
    ours, _ = load_model(saved(theirs, tmp_path))
    assert ours.config.backbone == "resnet18"
    answers_alike(theirs, ours)


@pytest.mark.parametrize("generic", [True, False])
def test_coco_s_ids_are_80_classes(tmp_path: Path, generic: bool) -> None:
    theirs, _ = pair(replace(TINY, head_classes=91, columns=COCO_IDS), classes=91)
    table = dict(zip(COCO_IDS, COCO_NAMES, strict=True))
    names = {i: f"LABEL_{i}" if generic else table.get(i, "N/A") for i in range(91)}
    ours, info = load_model(saved(theirs, tmp_path, names))
    assert (info.names, info.category_ids, ours.classes) == (COCO_NAMES, COCO_IDS, 80)


def test_91_other_classes_are_91_classes(tmp_path: Path) -> None:
    theirs, _ = pair(classes=91)
    ours, info = load_model(saved(theirs, tmp_path))
    assert ours.classes == len(info.names) == 91
    assert info.names[90] == "thing 90"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"decoder_attention_heads": 2}, "must be equal"),
        ({"activation_function": "gelu"}, "must be relu"),
        ({"decoder_layers": 3}, "missing"),
        ({"encoder_layers": 1}, "unknown"),
        ({"d_model": "wide"}, "config.json|has not"),
        ({"position_embedding_type": "round"}, "sine or learned"),
    ],
)
def test_a_config_that_does_not_fit(tmp_path: Path, change: dict[str, Any], said: str) -> None:
    theirs, _ = pair()
    settings = json.loads((saved(theirs, tmp_path) / "config.json").read_text()) | change
    (tmp_path / "config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=said):
        load_model(tmp_path)


def test_sizes_of_the_preprocessor(tmp_path: Path) -> None:
    saved(pair()[0], tmp_path)
    file = tmp_path / "preprocessor_config.json"
    file.write_text(json.dumps({"size": {"shortest_edge": 480, "longest_edge": 640}}))
    assert load_model(tmp_path)[1].sides == (480, 640)
    file.write_text(json.dumps({"size": 600, "max_size": 1000}))
    assert load_model(tmp_path)[1].sides == (600, 1000)
    file.write_text(json.dumps({"size": {"height": 320, "width": 512}}))
    info = load_model(tmp_path)[1]
    assert (info.canvas, info.sides) == ((320, 512), ())


# --- there and back


@pytest.mark.parametrize("layout", ["facebook", "transformers"])
@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"dilated": True, "heads": 2},
        {"positions": "learned"},
        {"masked": False},
        {"backbone": "mobilenetv2_050"},
    ],
    ids=["plain", "dc5", "learned", "grey", "edge"],
)
def test_there_and_back_bit_for_bit(tmp_path: Path, layout: str, changes: dict[str, Any]) -> None:
    model = model_of(**changes)
    info = replace(INFO, marked=model.config.masked, sides=(100, 200) if model.config.masked else ())
    out = tmp_path / ("there.pth" if layout == "facebook" else "there")
    there = convert(file_of(tmp_path, model, info), out, to=layout)
    assert there.info == info
    back = convert(out, tmp_path / "back.safetensors", to="detrx")
    found, again = load_model(back.path)
    assert isinstance(found, Detr)
    assert same(found, model)
    assert (found.config, again) == (model.config, info)
    with torch.no_grad():
        pixels = torch.randn(1, 3, 64, 96)
        assert torch.equal(found(pixels).boxes, model(pixels).boxes)


def test_91_columns_there_and_back(tmp_path: Path) -> None:
    model = model_of(91)
    info = replace(INFO, names=tuple(f"n{i}" for i in range(91)), category_ids=tuple(range(91)))
    for to, name in (("facebook", "x.pth"), ("transformers", "x")):
        convert(file_of(tmp_path, model, info), tmp_path / name, to=to)
        found, again = load_model(tmp_path / name)
        assert (found.classes, again.names) == (91, info.names)


def test_transformers_reads_what_is_written(tmp_path: Path) -> None:
    from transformers import DetrForObjectDetection

    model = model_of(80, head_classes=91, columns=COCO_IDS, dilated=True)
    info = replace(INFO, names=COCO_NAMES, category_ids=COCO_IDS, marked=True, sides=(800, 1333))
    convert(file_of(tmp_path, model, info), tmp_path / "theirs", to="transformers")
    theirs = DetrForObjectDetection.from_pretrained(tmp_path / "theirs").eval()
    assert theirs.config.id2label[1] == "person"
    assert theirs.config.id2label[12] == "N/A"
    answers_alike(theirs, model)


def test_the_header_names_the_family_only_where_it_must(tmp_path: Path) -> None:
    path = file_of(tmp_path, model_of())
    beside = json.loads(path.with_suffix(".json").read_text())
    assert beside["kind"] == "detr"
    assert read_checkpoint(path).config == TINY
    assert "marked" not in beside["info"]


def test_a_family_that_is_not_known(tmp_path: Path) -> None:
    path = file_of(tmp_path, model_of())
    tensors: dict[str, Tensor] = load_file(path)
    with path.open("rb") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(json.loads(file.read(size))["__metadata__"]["detrx"])
    header["kind"] = "yolo"
    save_file(tensors, path, metadata={"detrx": json.dumps(header)})
    with pytest.raises(CheckpointError, match="not as detrx writes it"):
        load_model(path)


def test_dc5_by_hand(tmp_path: Path) -> None:
    source = published(tmp_path / "weights.pth", model_of(heads=8))
    done = convert(source, tmp_path / "out.safetensors", to="detrx", dc5=True)
    found, info = load_model(done.path)
    assert (info.model, found.config.name) == ("detr-r18-dc5", "detr-r18-dc5")
    assert isinstance(found, Detr)
    assert found.config.dilated


@pytest.mark.parametrize(
    ("to", "out", "said"),
    [
        ("onnx", "x.onnx", "must be one of detrx, facebook, transformers"),
        ("detrx", "x.pth", "end in .safetensors"),
        ("facebook", "x.safetensors", "end in .pth"),
        ("transformers", "own.safetensors", "folder"),
    ],
)
def test_an_output_of_another_kind(tmp_path: Path, to: str, out: str, said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        convert(file_of(tmp_path, model_of()), tmp_path / out, to=to)


@pytest.mark.parametrize(
    ("changes", "to", "said"),
    [
        ({"no_object": False}, "facebook", '"no object"'),
        ({"norm_first": True}, "transformers", "no pre-norm"),
    ],
)
def test_models_without_a_place(tmp_path: Path, changes: dict[str, Any], to: str, said: str) -> None:
    out = tmp_path / ("x.pth" if to == "facebook" else "x")
    with pytest.raises(CheckpointError, match=said):
        convert(file_of(tmp_path, model_of(**changes)), out, to=to)
    assert not out.exists()


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = file_of(tmp_path, model_of(masked=False))
    assert main(["convert", str(source), str(tmp_path / "x.pth"), "--to", "facebook"]) == 0
    out = capsys.readouterr().out
    assert "3 classes" in out
    assert "note: this model was trained with grey" in out
    assert main(["convert", str(source), str(tmp_path / "x"), "--to", "facebook"]) == 2
    assert "must end in .pth" in capsys.readouterr().err
