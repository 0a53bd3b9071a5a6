"""Layers and times as TensorRT 8.5, 10 and 11 write them, and files that are something else."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from detrx.errors import EngineError
from detrx.inspect.layers import EngineLayer, names_of, parse_layers, read_layers, short
from detrx.inspect.profile import Profile, read_profile, times_of

SAMPLES = Path(__file__).parent / "samples"


def layer_of(sample: str, name: str) -> EngineLayer:
    return next(
        layer for layer in read_layers(SAMPLES / f"{sample}_layers.json").layers if name in layer.name
    )


@pytest.mark.parametrize(
    ("sample", "name", "operation", "precision", "formats"),
    [
        ("trt85", "Input Tensor 0", "reformat", "", ["fp32 NCHW", "fp16 NC/2HW2"]),
        ("trt85", "/layer1/Conv", "conv", "int8", ["int8 NC/32HW32", "int8 NC/32HW32"]),
        ("trt85", "/mask/Conv", "conv", "fp16", ["fp16 NCHW", "fp16 NCHW"]),
        ("trt85", "/layer2/project", "conv", "int8", ["int8 NC/32HW32", "fp16 NCHW"]),
        ("trt85", "ForeignNode", "region", "fp16", ["fp16 NCHW", "fp16 NCHW"]),
        ("trt85", "DeformAttn", "plugin", "fp16", ["fp16 NCHW", "fp16 NCHW"]),
        ("trt85", "PWN(", "pointwise", "fp16", ["fp16 NCHW", "fp32 NCHW"]),
        ("trt10", "/conv/Conv", "conv", "fp16", ["fp16 NHWC8", "fp16 NHWC8"]),
        ("trt10", "/attn/q/MatMul", "matmul", "fp16", ["fp16 ", "fp16 "]),
        ("trt10", "_gemm_mha_v2", "attention", "fp16", ["fp16 ", "fp16 "]),
        ("trt10", "__myl_Tran", "pointwise", "fp16", ["fp16 ", "fp16 "]),
        ("trt10", "/head/MatMul", "matmul", "fp32", ["fp32 ", "fp32 "]),
        ("trt11", "/conv/Conv", "reformat", "", ["fp32 NCHW", "fp16 NHWC8"]),
        ("trt11", "/up/", "conv", "fp16", ["fp16 NHWC8", "fp16 NHWC8"]),
        ("trt11", "/TopK", "pointwise", "fp16", ["fp16 NCHW", "fp16 NCHW"]),
    ],
)
def test_what_a_layer_is(sample: str, name: str, operation: str, precision: str, formats: list[str]) -> None:
    layer = layer_of(sample, name)
    assert (layer.operation, layer.precision) == (operation, precision)
    ends = [f"{tensor.type} {tensor.layout}" for tensor in (layer.inputs[0], layer.outputs[0])]
    assert ends == formats


def test_the_two_generations_of_the_format() -> None:
    old, new = (read_layers(SAMPLES / f"{name}_layers.json") for name in ("trt10", "trt11"))
    assert (old.version, new.version) == ("8 or 10", "11")
    assert (len(old.layers), old.profiles) == (6, 1)
    assert [tensor.type for tensor in new.layers[-1].outputs] == ["fp16", "int64"]


@pytest.mark.parametrize(
    ("sample", "name", "flops"),
    [
        ("trt85", "/layer1/Conv", 2 * 64 * 160 * 160 * 64 * 9),
        ("trt85", "/layer2/depthwise", 2 * 64 * 80 * 80 * 9),
        ("trt85", "/layer2/project", 2 * 256 * 80 * 80 * 64),
        ("trt85", "ForeignNode", None),
        ("trt85", "PWN(", None),
        ("trt10", "/attn/q/MatMul", 2 * 3 * 4096 * 256 * 256),
        ("trt10", "_gemm_mha_v2", None),
        ("trt11", "/up/", 2 * 64 * 320 * 320 * 32 * 4),
    ],
)
def test_work_by_hand(sample: str, name: str, flops: int | None) -> None:
    """Products and sums, each counted; of a transposed convolution over what goes in."""
    assert layer_of(sample, name).flops == flops


def test_a_transposed_product_and_open_shapes() -> None:
    def gemm(given: list[int], made: list[int]) -> EngineLayer:
        row = {"Name": "g", "LayerType": "gemm"}
        for key, shape in (("Inputs", given), ("Outputs", made)):
            row[key] = [{"Name": "t", "Dimensions": shape, "Format/Datatype": "Half"}]  # type: ignore[assignment]
        return parse_layers(json.dumps({"Layers": [row]}), what="it").layers[0]

    assert gemm([7, 5], [7, 3]).flops == 2 * 7 * 3 * 5
    assert gemm([5, 7], [7, 3]).flops == 2 * 7 * 3 * 5
    assert gemm([5, 6], [7, 3]).flops is None
    assert gemm([-1, 5], [-1, 3]).flops is None


def test_nodes_behind_a_layer() -> None:
    assert names_of(layer_of("trt85", "Input Tensor 0")) == []
    assert names_of(layer_of("trt85", "/layer1/Conv")) == ["/layer1/Conv", "/layer1/Relu"]
    assert names_of(layer_of("trt85", "PWN(")) == ["/head/Sigmoid", "/head/Mul"]
    assert names_of(layer_of("trt85", "ForeignNode")) == ["/encoder/Reshape.../encoder/Add_2"]
    assert names_of(layer_of("trt10", "/attn/q")) == [f"/attn/{which}/MatMul" for which in "qkv"]


def test_names_for_tables() -> None:
    name = "Reformatting CopyNode for Input Tensor 0 to /stem/Conv + /stem/Relu"
    assert short(name, most=40) == "reformat: /stem/Conv + /stem/Relu"
    assert short(name, most=12) == "../stem/Relu"
    assert short("short", most=12) == "short"


@pytest.mark.parametrize("sample", ["trt85", "trt10", "trt11"])
def test_times(sample: str) -> None:
    layers = read_layers(SAMPLES / f"{sample}_layers.json").layers
    profile = read_profile(SAMPLES / f"{sample}_profile.json")
    times = times_of(layers, profile)
    assert len(times) == len(layers)
    assert all(ms > 0 for ms in times)
    assert sum(times) == pytest.approx(sum(ms for _, ms in profile.rows))
    assert profile.runs == {"trt85": 812, "trt10": 2094, "trt11": 5000}[sample]


def test_two_layers_of_one_name_and_one_without_time() -> None:
    rows = [{"Name": name, "LayerType": "NoOp"} for name in ("a", "a", "b")]
    layers = parse_layers(json.dumps({"Layers": rows}), what="it").layers
    assert times_of(layers, Profile((("a", 1.0), ("a", 2.0)), 1)) == [1.0, 2.0, 0.0]


def test_a_profile_of_another_engine() -> None:
    layers = read_layers(SAMPLES / "trt85_layers.json").layers
    with pytest.raises(
        EngineError, match=r"another engine: 0% of its time.*, and '/conv/Conv \+ /conv/Relu' is not"
    ):
        times_of(layers[1:], read_profile(SAMPLES / "trt10_profile.json"))


LAYERS = {"Layers": [{"Name": "a", "LayerType": "NoOp"}]}


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{'no': json", "no JSON"),
        ('{"Layers": [', "cut off"),
        ("[1, 2]", "found a list"),
        ('{"a": 1}', "found keys 'a'"),
        ('{"Layers": [], "Bindings": []}', "verbosity none"),
        ('{"Layers": ["conv1", "relu1"], "Bindings": ["x"]}', "--profilingVerbosity=detailed"),
        ('[{"count": 3}, {"name": "a", "averageMs": 1}]', "--profile"),
        ('[{"latencyMs": 3}]', "--exportTimes"),
        ('{"engine_sha256": "ab"}', "give the engine itself"),
        ('{"levels": [], "layers": []}', "a report of"),
        ('{"Layers": [{"LayerType": "gemm"}]}', "no known TensorRT writes: KeyError 'Name'"),
        ('{"Layers": [{"Name": "a", "LayerType": "gemm", "Inputs": ["x"]}]}', "no known TensorRT writes"),
    ],
)
def test_what_are_no_layers(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "it.json"
    path.write_text(content)
    with pytest.raises(EngineError, match=words):
        read_layers(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (json.dumps(LAYERS), "found the layers of an engine"),
        ("[]", "found something else"),
        ('[{"count": 3}]', "found something else"),
        ('[{"name": "a", "timeMs": 1}]', "found something else"),
        ('[{"name": "a", "averageMs": "fast"}]', "found something else"),
        ("[", "cut off"),
    ],
)
def test_what_are_no_times(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "it.json"
    path.write_text(content)
    with pytest.raises(EngineError, match=words):
        read_profile(path)


def test_no_file_and_no_text(tmp_path: Path) -> None:
    binary = tmp_path / "it.json"
    binary.write_bytes(b"\xff\xfe\x00plan")
    for path in (binary, tmp_path / "none.json"):
        for read in (read_layers, read_profile):
            with pytest.raises(EngineError, match="trtexec --loadEngine"):
                read(path)
