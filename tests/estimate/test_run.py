"""Latencies from hand-made work, and the models whose work is known."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path

import pytest

from detrx.cli.main import main
from detrx.errors import ConfigError, ExportError
from detrx.estimate.devices import DEVICES
from detrx.estimate.graph import Layer, Work
from detrx.estimate.picture import in_letters
from detrx.estimate.roofline import EXPECTED, latency
from detrx.estimate.run import FAMILIES, estimate

NX = DEVICES["xavier-nx"]
CONV = Layer("conv", ("Conv",), "conv", 2_000_000_000, 0, 100_000, 1_000_000, 0)
NORM = Layer("norm", ("LayerNormalization",), "other", 0, 7_000_000, 0, 2_000_000, 800)
WORK = Work((CONV, NORM), 100_000, 1_500_000)


def test_a_layer_waits_for_the_slower_of_arithmetic_and_memory() -> None:
    found = latency(WORK, NX, precision="fp16")
    conv, norm = found.layers
    assert (conv.bound, norm.bound) == ("arithmetic", "memory")
    assert conv.ideal_ms == pytest.approx(2e9 / 6.76e12 * 1e3)
    assert norm.ideal_ms == pytest.approx((4e6 + 800) / 59.7e9 * 1e3)
    assert norm.expected_ms == pytest.approx(norm.ideal_ms / EXPECTED.bandwidth + NX.launch_us / 1e3)
    assert found.ideal_ms < found.good_ms < found.expected_ms
    assert found.memory_share == pytest.approx(norm.ideal_ms / found.ideal_ms)
    assert (found.weights_mb, found.activations_mb) == pytest.approx((0.2, 3.0))


def test_8_bits_in_convolutions_leave_the_rest_alone() -> None:
    half, mixed, whole = (latency(WORK, NX, precision=name) for name in ("fp16", "int8-conv", "int8"))
    assert mixed.layers[0].ideal_ms == pytest.approx(half.layers[0].ideal_ms * 6.76 / 13.5)
    assert mixed.layers[1].ideal_ms == half.layers[1].ideal_ms
    assert whole.layers[1].mb == pytest.approx((half.layers[1].mb + 0.0008) / 2)
    assert mixed.weights_mb == pytest.approx(0.1)


def test_fp32_runs_on_cuda_cores() -> None:
    assert latency(WORK, NX, precision="fp32").layers[0].ideal_ms == pytest.approx(2e9 / 0.845e12 * 1e3)


def test_devices_are_whole() -> None:
    assert set(DEVICES) >= {"xavier-nx", "orin-nano", "orin-nx", "agx-orin", "t4", "h200", "rtx-4090", "cpu"}
    for name, device in DEVICES.items():
        assert name == device.name
        assert device.fp32 < device.fp16 < device.int8 or name == "cpu"
        assert device.tensor_cores == (name != "cpu")
        assert device.source


def known(name: str, folder: Path) -> str:
    """An export of ours at 80 classes that ``without_weights`` went over, unpacked."""
    path = folder / f"{name}.onnx"
    path.write_bytes(gzip.decompress((Path(__file__).parent / "graphs" / f"{name}.onnx.gz").read_bytes()))
    return str(path)


@pytest.mark.parametrize(
    ("name", "gflop", "millions", "ideal"),
    [
        ("rtdetrv2-r18", 60.0, 20.2, 10.7),
        ("detr-r18", 30.0, 28.6, 5.9),
        ("detr-r50", 58.0, 41.3, 11.8),
    ],
)
def test_known_models(name: str, gflop: float, millions: float, ideal: float, tmp_path: Path) -> None:
    """Counts by hand, RT-DETR's as its paper has it (arXiv 2304.08069), and milliseconds on a Xavier NX by hand."""
    pytest.importorskip("onnx")
    found = estimate(known(name, tmp_path), precisions=("fp16",))
    assert found.gflop == pytest.approx(gflop, rel=0.04)
    assert found.parameters_m == pytest.approx(millions, rel=0.03)
    assert found.latencies[0].ideal_ms == pytest.approx(ideal, rel=0.15)
    assert not found.unknown


@pytest.mark.parametrize(
    ("name", "apart", "fused"),
    [("detr-r18", (239, 10.8), (189, 9.6)), ("detr-r50", (533, 20.7), (483, None))],
)
def test_attention_whose_scores_stay_on_the_chip(
    name: str, apart: tuple, fused: tuple, tmp_path: Path
) -> None:
    """Mega bytes in fp16 and good milliseconds on a Xavier NX by hand; the work stays the same."""
    pytest.importorskip("onnx")
    path = known(name, tmp_path)
    found = [estimate(path, precisions=("fp16",), fused_attention=kept) for kept in (False, True)]
    for one, (traffic, good) in zip(found, (apart, fused)):
        assert one.latencies[0].traffic_mb == pytest.approx(traffic, rel=0.015)
        assert good is None or one.latencies[0].good_ms == pytest.approx(good, rel=0.015)
    assert found[0].gflop == found[1].gflop
    assert (
        found[0].kernels - found[1].kernels == 2 * 17
    )  # the first layer's self-attention has constants alone


def test_only_attention_is_fused(tmp_path: Path) -> None:
    """A softmax behind a linear layer stays a kernel: what follows is no attention."""
    onnx = pytest.importorskip("onnx")
    info, node = onnx.helper.make_tensor_value_info, onnx.helper.make_node
    weight = onnx.TensorProto(name="w", dims=(8, 8), data_type=onnx.TensorProto.FLOAT)
    graph = onnx.helper.make_graph(
        [
            node("MatMul", ["x", "w"], ["logits"]),
            node("Softmax", ["logits"], ["weights"]),
            node("MatMul", ["weights", "x"], ["y"]),
        ],
        "linear",
        [info("x", onnx.TensorProto.FLOAT, [1, 8, 8])],
        [info("y", onnx.TensorProto.FLOAT, [1, 8, 8])],
        [weight],
    )
    path = tmp_path / "linear.onnx"
    onnx.save(onnx.helper.make_model(graph), str(path))
    assert [estimate(str(path), fused_attention=kept).kernels for kept in (False, True)] == [3, 3]


def test_a_published_timing(tmp_path: Path) -> None:
    """RT-DETR-R18 takes 4.6 ms on a T4 with TensorRT in fp16: 217 pictures a second, says its paper."""
    pytest.importorskip("onnx")
    found = estimate(known("rtdetrv2-r18", tmp_path), device="t4", precisions=("fp16",)).latencies[0]
    assert found.ideal_ms < 1000 / 217
    assert found.expected_ms == pytest.approx(1000 / 217, rel=0.2)


def test_a_name_is_built_and_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("torch", "onnx", "timm"):
        pytest.importorskip(package)
    from detrx.models import zoo

    tiny = replace(
        zoo.RT_MODELS["rt-n"],
        name="tiny",
        backbone="mobilenetv3_small_050",
        hidden=32,
        heads=4,
        decoder_hidden=32,
        encoder_feedforward=32,
        decoder_feedforward=32,
        neck_depth=1,
        queries=12,
        decoder_layers=1,
    )
    monkeypatch.setitem(zoo.MODELS, "tiny", tiny)
    found = estimate("tiny", canvas=(64, 96), precisions=("fp16",))
    assert found.canvas == (64, 96)
    assert 0 < found.gflop < 0.2
    assert 0.2 < found.parameters_m < 2
    assert not found.unknown


@pytest.fixture
def small(tmp_path: Path) -> Path:
    onnx = pytest.importorskip("onnx")
    info = onnx.helper.make_tensor_value_info
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("Relu", ["pixels"], ["y"])],
        "small",
        [info("pixels", onnx.TensorProto.FLOAT, ["batch", 3, 32, 64])],
        [info("y", onnx.TensorProto.FLOAT, ["batch", 3, 32, 64])],
    )
    path = tmp_path / "small.onnx"
    onnx.save(onnx.helper.make_model(graph), str(path))
    return path


def test_the_command(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "new" / "estimate.json"
    args = ["estimate", str(small), "--device", "t4", "--precision", "fp16", "int8", "--batch", "2"]
    assert main([*args, "--layers", "3", "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "T4 data sheet" in told
    assert "30%" in told
    written = json.loads(out.read_text())
    assert [row["precision"] for row in written["latencies"]] == ["fp16", "int8"]
    assert (written["batch"], written["canvas"], written["kernels"]) == (2, [32, 64], 1)
    assert written["gflop"] == pytest.approx(2 * 3 * 32 * 64 / 1e9)


def test_several_models_in_one_table(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    out = tmp_path / "both.json"
    detr = known("detr-r18", tmp_path)
    args = ["estimate", str(small), detr, "--precision", "fp16", "--fused-attention", "--out", str(out)]
    assert main(args) == 0
    told = capsys.readouterr().out
    assert "small 32x64" in told
    assert "detr-r18 480x640" in told
    assert "5.2/16.9" in told
    assert "scores stay on the chip" in told
    assert [row["kernels"] for row in json.loads(out.read_text())] == [1, 173]
    assert main([*args, "--layers", "2"]) == 2
    assert main([*args, "--picture", str(tmp_path / "it.png")]) == 2


def test_sizes_of_a_family_are_models() -> None:
    pytest.importorskip("torch")
    from detrx.models.zoo import MODELS

    assert set(FAMILIES["rt"] + FAMILIES["detr"]) <= set(MODELS)


def test_the_roofline_in_letters(tmp_path: Path) -> None:
    """The convolution lies at 2e9 / 2.2 MB operations a byte, the norm at 7 for 4 bytes: left and right of the knee."""
    row = latency(WORK, NX, precision="fp16")
    lines = in_letters(row, NX).splitlines()
    found = {
        letter: (y, x)
        for y, line in enumerate(lines[1:21])
        for x, letter in enumerate(line)
        if letter in "co"
    }
    assert found["c"][0] < found["o"][0]
    assert found["c"][1] > found["o"][1]
    roof = next(line for line in lines if "---" in line)
    assert roof.index("-") > found["o"][1]
    assert "roof 6.76" in lines[0]
    empty = replace(row, layers=())
    assert "roof 6.76" in in_letters(empty, NX)


def test_pictures(small: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    png, text = tmp_path / "new" / "roof.png", tmp_path / "new" / "roof.txt"
    for path in (png, text):
        assert main(["estimate", known("detr-r18", tmp_path), "--picture", str(path)]) == 0
    assert png.read_bytes()[:4] == b"\x89PNG"
    assert "m" in text.read_text().partition("\n")[2]
    assert main(["estimate", str(small), "--precision", "fp16", "--picture", str(png)]) == 0
    assert main(["estimate", str(small), "--picture", "roof.jpg"]) == 2
    assert ".png" in capsys.readouterr().err


def test_mistakes_are_explained(small: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="xavier-nx"):
        estimate(str(small), device="nano")
    with pytest.raises(ConfigError, match="int8-conv"):
        estimate(str(small), precisions=("int4",))
    with pytest.raises(ConfigError, match="fp32 alone"):
        estimate(str(small), device="cpu", precisions=("fp16",))
    with pytest.raises(ConfigError, match="batch"):
        estimate(str(small), batch=0)
    with pytest.raises(ConfigError, match="no file"):
        estimate(str(tmp_path / "none.onnx"))
    with pytest.raises(ConfigError, match="rt-n"):
        estimate("rt-nn")
    bad = tmp_path / "bad.onnx"
    bad.write_bytes(b"not a graph")
    with pytest.raises(ExportError, match="no ONNX graph"):
        estimate(str(bad))


def test_a_processor_has_one_precision(small: Path) -> None:
    assert [row.precision for row in estimate(str(small), device="cpu").latencies] == ["fp32"]
    assert len(estimate(str(small)).latencies) == 4


def test_more_batch_is_more_work_for_the_same_weights() -> None:
    layer = replace(CONV, matrix=2 * CONV.matrix)
    one, two = (latency(Work((each,), 100_000, 1), NX, precision="int8") for each in (CONV, layer))
    assert two.ideal_ms == pytest.approx(2 * one.ideal_ms)
    assert two.weights_mb == one.weights_mb
