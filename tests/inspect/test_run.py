"""Whole inspections, of samples and of an engine over stand-ins for TensorRT's packages."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from detrx.cli.main import main
from detrx.errors import ConfigError, EngineError, MissingBackendError, TrustError
from detrx.estimate.devices import DEVICES, device_called
from detrx.inspect.proof import cuda_peak
from detrx.inspect.run import Inspection, inspect
from detrx.runtime.sidecar import Sidecar, file_sha256, sidecar_path
from detrx.types import ModelInfo

SAMPLES = Path(__file__).parent / "samples"
TRACE = (
    "Time (%),Total Time (ns),Instances,Avg (ns),Name\n"
    "75.0,3000000,2,1,trt_volta_h884cudnn_256x64_ldg8_relu_exp_small_nhwc_tn_v1\n"
    "25.0,1000000,2,1,generatedNativePointwise\n"
)


def sample(name: str, device: str | None, **more) -> Inspection:
    return inspect(
        SAMPLES / f"{name}_layers.json", profile=SAMPLES / f"{name}_profile.json", device=device, **more
    )


def test_the_cores_of_a_xavier_nx_by_hand() -> None:
    """384 cores at 1100 MHz: a multiply-add of two 16-bit floats each, or of four 8-bit integers."""
    device = DEVICES["xavier-nx"]
    assert cuda_peak(device, "fp16") == pytest.approx(1.69, rel=0.01)
    assert cuda_peak(device, "int8") == pytest.approx(3.38, rel=0.01)


def test_evidence_of_a_xavier_nx() -> None:
    found = sample("trt85", "xavier-nx")
    proven = {layer.name for layer in found.layers if layer.proven}
    assert proven == {"/layer1/Conv + /layer1/Relu", "/mask/Conv"}
    assert [level.reached for level in found.levels] == [True, True, False]
    assert found.reached == 2
    assert found.next.startswith("level 3, trace: nsys profile")
    assert "1 region shows no kernel" in found.levels[1].found
    assert found.ms == pytest.approx(4.42)
    assert found.time_by_precision["fp16"] == pytest.approx((0.42 + 2.6 + 0.45 + 0.22 + 0.12) / 4.42)
    assert found.time_by_precision["int8"] == pytest.approx((0.31 + 0.09 + 0.1) / 4.42)
    assert sum(found.time_by_precision.values()) == pytest.approx(1)
    assert sum(found.time_by_operation.values()) == pytest.approx(1)
    int8 = 2 * 64 * 160**2 * 576 + 2 * 64 * 80**2 * 9 + 2 * 256 * 80**2 * 64
    fp16 = 2 * 64 * 160**2 * 27 + 2 * 256 * 80**2 * 256
    assert found.work_by_precision["int8"] == pytest.approx(int8 / (int8 + fp16))


def test_the_same_times_prove_nothing_on_a_faster_device() -> None:
    found = sample("trt85", "agx-orin")
    assert not any(layer.proven for layer in found.layers)
    assert [level.reached for level in found.levels] == [False, True, False]
    assert "wait for memory" in found.levels[0].need


def test_convolutions_of_fewer_products_prove_nothing(tmp_path: Path) -> None:
    """Winograd's needs a quarter of the products: on CUDA cores, named, or unnamed and less than four times as fast."""
    path = tmp_path / "layers.json"
    text = (SAMPLES / "trt85_layers.json").read_text()
    for tactic in ("", "sm70_xmma_winograd_tensor8x8x4", "volta_hcudnn_winograd_128x128_ldg1_ldg4"):
        named = text.replace("trt_volta_h884cudnn_256x128_ldg8_relu_exp_small_nhwc_tn_v1", tactic)
        assert named != text
        path.write_text(named)
        found = inspect(path, profile=SAMPLES / "trt85_profile.json", device="xavier-nx")
        assert {layer.name for layer in found.layers if layer.proven} == {"/layer1/Conv + /layer1/Relu"}


def test_times_that_the_device_cannot_have() -> None:
    """The T4's profile under a Xavier NX's peak."""
    assert not any("more than" in note for note in sample("trt11", "t4").notes)
    assert any("more than xavier-nx can" in note for note in sample("trt11", "xavier-nx").notes)


def test_a_trace_is_the_third_level(tmp_path: Path) -> None:
    trace = tmp_path / "kernels.csv"
    trace.write_text(TRACE)
    found = sample("trt85", "xavier-nx", kernels=trace)
    assert found.reached == 3
    assert "75% in kernels on tensor cores, 25% on CUDA cores" in found.levels[2].found
    assert "ncu --metrics" in found.next
    cuda = tmp_path / "cuda.csv"
    cuda.write_text("\n".join(line for line in TRACE.splitlines() if "h884" not in line))
    assert sample("trt85", "xavier-nx", kernels=cuda).reached == 2


def test_layers_alone() -> None:
    found = inspect(SAMPLES / "trt10_layers.json")
    assert (found.ms, found.time_by_precision, found.reached) == (None, {}, 2)
    need = found.levels[0].need
    assert "--device" in need
    assert "--profile" in need
    assert any("further optimisation profiles" in note for note in found.notes)


def test_a_layer_that_does_not_tell_its_type(tmp_path: Path) -> None:
    told = json.loads((SAMPLES / "trt85_layers.json").read_text())
    for layer in told["Layers"]:
        if layer["LayerType"] == "Myelin":
            layer["Inputs"] = layer["Outputs"] = []
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(told))
    found = inspect(path, profile=SAMPLES / "trt85_profile.json", device="xavier-nx")
    assert found.time_by_precision["not told"] == pytest.approx(2.6 / 4.42)
    assert found.time_by_precision["no arithmetic"] == pytest.approx(0.11 / 4.42)


def test_no_tensor_cores_at_all(tmp_path: Path) -> None:
    told = json.loads((SAMPLES / "trt11_layers.json").read_text())
    for layer in told["Layers"]:
        layer.pop("TacticName", None)
    path = tmp_path / "layers.json"
    path.write_text(json.dumps(told))
    found = inspect(path)
    assert found.reached == 0
    assert found.next.startswith("level 1, arithmetic: the device")
    assert "names no kernel" in found.levels[1].found


def test_fused_attention_in_fp32_proves_nothing(tmp_path: Path) -> None:
    text = (SAMPLES / "trt10_layers.json").read_text()
    path = tmp_path / "layers.json"
    path.write_text(text.replace('"Half"', '"Float"'))
    cores = {layer.name: layer.cores for layer in inspect(path).layers}
    assert cores["_gemm_mha_v2_myl0_2"] == "unknown"


def test_boards_and_cards_by_their_names() -> None:
    called = {
        "NVIDIA Jetson Xavier NX Developer Kit, L4T 35.4.1": "xavier-nx",
        "NVIDIA Jetson Orin Nano Engineering Reference Developer Kit Super": "orin-nano",
        "TensorRT 10.3.0 on Tesla T4": "t4",
        "NVIDIA GeForce RTX 4090": "rtx-4090",
    }
    for name, device in called.items():
        assert device_called(name) is DEVICES[device]
    for name in ("NVIDIA GeForce RTX 4090 Laptop GPU", "Orin", "Tesla T40"):
        assert device_called(name) is None


@pytest.fixture
def engine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An engine that TensorRT's stand-ins run; they tell the layers and times of the sample of TensorRT 8.5."""
    sys.path.insert(0, str(Path(__file__).parents[1] / "runtime"))
    try:
        from gpu_packages import Gpu, Scaled
    finally:
        sys.path.pop(0)
    gpu = Gpu(Scaled())
    gpu.layers = (SAMPLES / "trt85_layers.json").read_text()
    rows = json.loads((SAMPLES / "trt85_profile.json").read_text())[1:]
    gpu.times = [(row["name"], row["averageMs"]) for row in rows]
    for name, module in gpu.modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr("detrx.native.tensorrt_adapters", lambda: ())
    path = tmp_path / "model.engine"
    path.write_bytes(b"plan")
    info = ModelInfo("rt-n", ("disc",), (7,), (32, 64))
    plain = Sidecar(
        info, "10.3.0", "tensorrt", file_sha256(path), "", "int8", (1, 2, 4), compute_capability="8.7"
    )
    sidecar_path(path).write_text(plain.to_json())
    return path


def test_an_engine_here(engine: Path) -> None:
    found = inspect(engine, runs=3, device="xavier-nx")
    assert (found.version, found.runs, found.reached) == ("tensorrt 10.3.0", 3, 2)
    assert found.ms == pytest.approx(4.42)
    assert found.notes == (
        "not known from shapes: the work of 1 of 9 layers, as of ..de[/encoder/Reshape.../encoder/Add_2]}; "
        "--onnx tells it",
    )


TRTEXEC = """#!/bin/sh
echo "&&&& RUNNING TensorRT.trtexec [TensorRT v100300] # $*" | tee -a {log}
for word in "$@"; do
  case "$word" in
    --help) exit 0 ;;
    --exportLayerInfo=*) cp {samples}/trt85_layers.json "${{word#--exportLayerInfo=}}" ;;
    --exportProfile=*) cp {samples}/trt85_profile.json "${{word#--exportProfile=}}" ;;
  esac
done
echo "[I] Selected Device: NVIDIA GeForce RTX 4090"
{end}
"""


@pytest.fixture
def program(engine: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A stand-in for trtexec on the PATH, and no Python package of TensorRT's."""
    monkeypatch.setitem(sys.modules, "tensorrt", None)
    path = tmp_path / "bin" / "trtexec"
    path.parent.mkdir()
    path.write_text(TRTEXEC.format(log=tmp_path / "log", samples=SAMPLES, end=""))
    path.chmod(0o755)
    monkeypatch.setenv("PATH", f"{path.parent}:/usr/bin:/bin")
    return path


def test_trtexec_where_nothing_else_opens_it(program: Path, engine: Path, tmp_path: Path) -> None:
    found = inspect(engine, runs=7)
    assert (found.runs, found.device, found.reached) == (812, "rtx-4090", 2)
    assert found.ms == pytest.approx(4.42)
    told = (tmp_path / "log").read_text()
    assert f"--loadEngine={engine}" in told
    assert "--iterations=7" in told
    assert "--shapes=pixels:2x3x32x64" in told


def test_trtexec_that_fails_or_is_another(program: Path, engine: Path, tmp_path: Path) -> None:
    failing = 'echo "[E] Error Code 1: Serialization"; exit 1'
    program.write_text(TRTEXEC.format(log=tmp_path / "log", samples=SAMPLES, end=failing))
    with pytest.raises(
        EngineError, match=r"does not run .*model\.engine \(exit 1\): \[E\] Error Code 1.*type: "
    ):
        inspect(engine)
    program.write_text(program.read_text().replace("100300", "8502"))
    with pytest.raises(
        EngineError, match=r"built with tensorrt 10\.3\.0, and this machine has tensorrt 8\.5\.2"
    ):
        inspect(engine)
    program.unlink()
    with pytest.raises(MissingBackendError, match=r"pip install tensorrt==10\.3\.0.*trtexec --loadEngine"):
        inspect(engine)


def test_an_engine_with_a_profile_is_not_run(engine: Path) -> None:
    found = inspect(engine, profile=SAMPLES / "trt85_profile.json")
    assert (found.runs, found.device) == (812, None)


def test_an_engine_that_is_not_what_it_was_built_for(engine: Path, tmp_path: Path) -> None:
    text = (SAMPLES / "trt85_layers.json").read_text()
    wide = text.replace("Int8 format", "FP32 format").replace('"Int8"', '"Float"')
    path = tmp_path / "layers.json"
    path.write_text(wide)
    sys.modules["tensorrt"].gpu.layers = wide  # type: ignore[attr-defined]
    assert any(
        "built as int8, but 69% of the known work is in fp32" in note for note in inspect(engine).notes
    )


def test_mistakes_are_explained(tmp_path: Path, engine: Path) -> None:
    with pytest.raises(ConfigError, match="xavier-nx"):
        inspect(engine, device="nano")
    with pytest.raises(ConfigError, match="got 'cpu'"):
        inspect(engine, device="cpu")
    with pytest.raises(ConfigError, match="runs"):
        inspect(engine, runs=0)
    with pytest.raises(ConfigError, match=r"model\.onnx"):
        inspect(tmp_path / "model.onnx")
    with pytest.raises(ConfigError, match="no such file"):
        inspect(tmp_path / "none.engine")
    with pytest.raises(EngineError, match="another engine"):
        inspect(engine, profile=SAMPLES / "trt10_profile.json")
    sidecar_path(engine).unlink()
    with pytest.raises(TrustError):
        inspect(engine)


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    trace = tmp_path / "kernels.csv"
    trace.write_text(TRACE)
    out = tmp_path / "new" / "report.json"
    args = ["inspect", str(SAMPLES / "trt85_layers.json"), "--profile", str(SAMPLES / "trt85_profile.json")]
    assert main([*args, "--device", "xavier-nx", "--kernels", str(trace), "--out", str(out)]) == 0
    told = capsys.readouterr().out
    assert "reached: level 3 of 3" in told
    assert "IMMA 8x8x16" in told
    assert "6.09 *" in told
    assert "25% generatedNativePointwise" in told
    written = json.loads(out.read_text())
    assert written["reached"] == 3
    assert len(written["layers"]) == 9
    assert main([*args[:2], "--layers", "2"]) == 0
    told = capsys.readouterr().out
    assert "no times" in told
    assert "not looked at (needs the device: --device xavier-nx; times of layers: --profile" in told
    assert "the largest 2 layers" in told
    assert main(["inspect", str(out)]) == 2
    assert "a report of `detrx inspect`" in capsys.readouterr().err


@pytest.mark.parametrize(("name", "timed"), [("trt85", True), ("trt11", False)])
def test_the_picture(tmp_path: Path, name: str, timed: bool) -> None:
    pytest.importorskip("matplotlib")
    from detrx.inspect.picture import draw

    found = sample(name, "t4") if timed else inspect(SAMPLES / f"{name}_layers.json")
    draw(found, tmp_path / "new" / "it.png")
    draw(replace(found, layers=found.layers[:1]), tmp_path / "new" / "one.png")
    assert (tmp_path / "new" / "it.png").read_bytes()[:4] == b"\x89PNG"
