from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from detrx.errors import CheckpointError, TrustError
from detrx.models.checkpoint import Checkpoint, load_model, read_checkpoint, save_checkpoint
from detrx.models.config import RtConfig
from detrx.models.zoo import build
from detrx.types import ModelInfo

CONFIG = RtConfig(
    name="tiny",
    backbone="mobilenetv2_035",
    levels=(16,),
    hidden=16,
    heads=2,
    neck_depth=1,
    encoder_feedforward=16,
    decoder_hidden=16,
    decoder_layers=1,
    decoder_feedforward=16,
    queries=4,
)
INFO = ModelInfo(model="tiny", names=("dog", "cat"), category_ids=(1, 7), canvas=(64, 96), licence="CC0")


@pytest.fixture(scope="module")
def tensors() -> dict[str, Tensor]:
    torch.manual_seed(0)
    return {f"model.{key}": value for key, value in build(CONFIG, classes=2).state_dict().items()}


@pytest.fixture
def saved(tmp_path: Path, tensors: dict[str, Tensor]) -> Path:
    path = tmp_path / "best.safetensors"
    save_checkpoint(path, tensors, info=INFO, config=CONFIG, extra={"epoch": 3})
    return path


def test_everything_comes_back(saved: Path, tensors: dict[str, Tensor]) -> None:
    found = read_checkpoint(saved)
    assert (found.info, found.config, found.extra) == (INFO, CONFIG, {"epoch": 3})
    assert found.tensors.keys() == tensors.keys()
    assert all(torch.equal(found.tensors[key], tensors[key]) for key in tensors)
    assert isinstance(found, Checkpoint)
    assert found.part("model.decoder.").keys() == {
        key.removeprefix("model.decoder.") for key in tensors if key.startswith("model.decoder.")
    }


def test_people_find_a_json_beside_and_no_leftovers(saved: Path) -> None:
    assert sorted(p.name for p in saved.parent.iterdir()) == ["best.json", "best.safetensors"]
    beside = json.loads(saved.with_suffix(".json").read_text())
    assert beside["info"]["names"] == ["dog", "cat"]
    assert beside["config"]["backbone"] == "mobilenetv2_035"


def test_odd_tensors_survive(tmp_path: Path) -> None:
    odd = {
        "a": torch.tensor(3),
        "b": torch.tensor([True, False]),
        "c": torch.randn(4, 6).t(),
        "d": torch.empty(0, 2),
        "e": torch.randn(3).to(torch.bfloat16),
    }
    odd["shared"] = odd["c"]
    save_checkpoint(tmp_path / "x.safetensors", odd, info=INFO, config=CONFIG)
    back = read_checkpoint(tmp_path / "x.safetensors").tensors
    assert all(torch.equal(back[key], odd[key]) and back[key].dtype == odd[key].dtype for key in odd)


def test_a_failed_write_keeps_the_old_file(saved: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = saved.read_bytes()

    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("detrx.models.checkpoint.save_file", full)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint(saved, {"a": torch.ones(1)}, info=INFO, config=CONFIG)
    assert saved.read_bytes() == before
    assert len(list(saved.parent.iterdir())) == 2


def test_the_ending_is_part_of_the_promise(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="safetensors"):
        save_checkpoint(tmp_path / "x.pt", {}, info=INFO, config=CONFIG)


def test_a_loaded_model_answers_as_the_saved_one(saved: Path, tensors: dict[str, Tensor]) -> None:
    model, info = load_model(saved)
    own = build(CONFIG, classes=2).eval()
    own.load_state_dict({key.removeprefix("model."): value for key, value in tensors.items()})
    x = torch.randn(1, 3, 64, 96)
    with torch.no_grad():
        assert torch.equal(model(x).logits, own(x).logits)
    assert info == INFO
    assert not model.training


# --- row 47: damaged and misfitting files


def test_a_training_state_opens_as_its_average(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    path = tmp_path / "last.safetensors"
    average = {key.replace("model.", "ema.", 1): value + 1 for key, value in tensors.items()}
    save_checkpoint(path, tensors | average, info=INFO, config=CONFIG)
    model, _ = load_model(path)
    assert all(torch.equal(value, average[f"ema.{key}"]) for key, value in model.state_dict().items())


def test_truncated(saved: Path) -> None:
    data = saved.read_bytes()
    for size in (len(data) - 100, len(data) // 2, 2000, 100, 5):
        saved.write_bytes(data[:size])
        with pytest.raises(CheckpointError):
            read_checkpoint(saved)


@pytest.mark.parametrize(
    "content", [b"", b"\0" * 64, b"GIF89a" + b"x" * 64, b"\x10" + b"\0" * 7 + b"not json at all!"]
)
def test_empty_or_of_another_kind(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(CheckpointError):
        load_model(path)


def test_missing(tmp_path: Path) -> None:
    for name in ("x.safetensors", "x.pth", "folder"):
        with pytest.raises(CheckpointError, match="folder" if name == "folder" else "cannot be opened"):
            load_model(tmp_path / name)


@pytest.mark.parametrize("back", [3, 1000, 20000])
def test_a_flipped_bit_is_seen(saved: Path, back: int) -> None:
    data = bytearray(saved.read_bytes())
    data[-back] ^= 4
    saved.write_bytes(data)
    with pytest.raises(CheckpointError, match="damaged"):
        read_checkpoint(saved)


def rewrite(path: Path, change: Any) -> None:
    header = json.loads(metadata(path)["detrx"])
    change(header)
    save_file(load_file(path), path, metadata={"detrx": json.dumps(header)})


def metadata(path: Path) -> dict[str, str]:
    with path.open("rb") as file:
        (size,) = struct.unpack("<Q", file.read(8))
        return dict(json.loads(file.read(size))["__metadata__"])


@pytest.mark.parametrize("version", [2, 99, 0, "1", None])
def test_another_format_version(saved: Path, version: Any) -> None:
    rewrite(saved, lambda header: header.update(format_version=version))
    with pytest.raises(CheckpointError, match="format_version"):
        load_model(saved)


@pytest.mark.parametrize(
    "change",
    [
        lambda h: h.pop("config"),
        lambda h: h.pop("info"),
        lambda h: h["config"].update(colour="red"),
        lambda h: h["config"].update(levels=[7]),
        lambda h: h["info"].pop("names"),
        lambda h: h["info"].update(canvas=[33, 33]),
        lambda h: h.update(config=3),
    ],
)
def test_a_header_that_detrx_did_not_write(saved: Path, change: Any) -> None:
    rewrite(saved, change)
    with pytest.raises(CheckpointError):
        load_model(saved)


def save(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_checkpoint(path, tensors, info=INFO, config=CONFIG)
    return path


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.pop("model.decoder.enc_score_head.weight"), "1 tensors missing .*enc_score_head.weight"),
        (lambda t: t.update({"model.decoder.more": torch.ones(1)}), "1 unknown .*decoder.more"),
        (lambda t: t.update({"model.decoder.enc_score_head.bias": torch.ones(3)}), r"another shape .*\(3,\)"),
        (lambda t: t.update({"model.decoder.enc_score_head.bias": torch.ones(2).double()}), "float64 for"),
    ],
)
def test_tensors_that_do_not_fit(tmp_path: Path, tensors: dict[str, Tensor], change: Any, said: str) -> None:
    changed = dict(tensors)
    change(changed)
    with pytest.raises(CheckpointError, match=said):
        load_model(save(tmp_path / "x.safetensors", changed))


def test_other_classes_than_the_weights_have(tmp_path: Path, tensors: dict[str, Tensor]) -> None:
    info = replace(INFO, names=("a", "b", "c"), category_ids=(1, 2, 3))
    save_checkpoint(tmp_path / "x.safetensors", tensors, info=info, config=CONFIG)
    with pytest.raises(CheckpointError, match="another shape"):
        load_model(tmp_path / "x.safetensors")


def test_safetensors_of_somebody_else(tmp_path: Path) -> None:
    save_file({"a": torch.ones(2)}, tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="without its header"):
        read_checkpoint(tmp_path / "x.safetensors")
    with pytest.raises(CheckpointError, match="RT-DETR"):
        load_model(tmp_path / "x.safetensors")


# --- row 48: files that want to run code


class Payload:
    def __init__(self, canary: Path) -> None:
        self.canary = canary

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.canary}'",)


def malicious(canary: Path, *, zipped: bool) -> bytes:
    body = pickle.dumps({"model": Payload(canary)}, protocol=2)
    if not zipped:
        return body
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", body)
        archive.writestr("archive/version", "3\n")
        archive.writestr("archive/byteorder", "little")
    return buffer.getvalue()


@pytest.mark.parametrize("zipped", [True, False])
@pytest.mark.parametrize("ending", [".pth", ".pt", ".bin", ".safetensors"])
def test_a_malicious_pickle_never_runs(tmp_path: Path, zipped: bool, ending: str) -> None:
    canary, path = tmp_path / "canary", tmp_path / f"x{ending}"
    path.write_bytes(malicious(canary, zipped=zipped))
    with pytest.raises(TrustError) as caught:
        load_model(path)
    assert not canary.exists()
    if ending != ".safetensors" and zipped:
        assert "system" in str(caught.value)


def test_a_whole_model_object_is_refused_by_name(tmp_path: Path) -> None:
    torch.save(torch.nn.Linear(2, 2), tmp_path / "x.pth")
    with pytest.raises(TrustError, match="Linear"):
        load_model(tmp_path / "x.pth")


def test_a_header_of_a_terabyte(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(struct.pack("<Q", 2**40) + b"{" + b" " * 100)
    with pytest.raises(TrustError, match=str(2**40)):
        load_model(path)


def test_a_damaged_zip(tmp_path: Path) -> None:
    torch.save({"model": {"a": torch.ones(100)}}, tmp_path / "x.pth")
    data = (tmp_path / "x.pth").read_bytes()
    for cut in (len(data) - 20, len(data) // 2, 10):
        (tmp_path / "x.pth").write_bytes(data[:cut])
        with pytest.raises(CheckpointError):
            load_model(tmp_path / "x.pth")
