"""Host time of one picture through the native TensorRT session beside the Python reference session, in turns.

    DETRX_TENSORRT_ROOTS=FOLDER python -m pytest benchmarks/bench_trt.py -s     # FOLDER/include/NvInfer.h

Both run the same plan by the same TensorRT of ours and a GPU driver of ours (tests/trt/fake), in the memory of this
process: what is left is what the host does, that is bind, stage, upload, enqueue, download, wait and read. The Python
session has stand-ins for tensorrt and pycuda (tests/runtime/gpu_packages.py) that do no more than copy, and enqueue by
the very function that the native session ends in; the real packages take longer, so that the ratio is an upper bound.
"run" is the session's own time. "infer" is the backend around either session, which also makes the output arrays and
the answer, in the same Python for both. At 640 x 640 both mostly copy.
"""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
sys.path.append(str(Path(__file__).parents[1] / "tests" / "trt"))
sys.path.append(str(Path(__file__).parents[1] / "tests" / "runtime"))
import building
from gpu_packages import Gpu
from side_by_side import interleave

from detrx.runtime.sidecar import Sidecar, file_sha256, sidecar_path
from detrx.runtime.tensorrt import NativeSession, TensorRtBackend
from detrx.runtime.tensorrt_python import PythonSession
from detrx.types import ModelInfo

RUNS = 100
"""Calls to one measurement."""
pytestmark = pytest.mark.needs("tensorrt-headers")


class ByTheAdapter:
    """What tensorrt's Python package does in a run, by the same library."""

    def __init__(self, session, tensors):
        self.set_tensor_address, self._session = session.bind, session
        self.tensors = {tensor.name: (tensor.dtype, tensor.shape) for tensor in tensors}

    def set_input_shape(self, name, shape):
        self._session.set_shape(name, shape)
        return True

    def execute_async_v3(self, stream):
        self._session.enqueue(stream)
        return True


def write_engine(path, pairing, side, answers):
    """A plan of ours and the description beside it."""
    sides = f"3 {side} {side}"
    integer = 3 if pairing.version[0] == 8 else 8
    lines = [
        f"fake {building.as_number(pairing.version)}",
        f"in pixels 0  4 -1 {sides}  4 1 {sides}  4 1 {sides}  4 1 {sides}",
        f"out scores 0  2 -1 {answers}",
        f"out labels {integer}  2 -1 {answers}",
        f"out boxes 0  3 -1 {answers} 4",
        "scale 2",
    ]
    path.write_text("\n".join(lines))
    info = ModelInfo("rt-n", ("disc",), (1,), (side, side))
    sidecar = Sidecar(
        info, "10.3.0", "tensorrt", file_sha256(path), "", "fp32", (1, 1, 1), compute_capability="8.7"
    )
    sidecar_path(path).write_text(sidecar.to_json())
    return sidecar


@pytest.fixture
def both(tmp_path, monkeypatch):
    """Makes a native and a Python session of one engine."""
    monkeypatch.setenv("DETRX_CUDA_DRIVER", str(building.build_driver()))
    adapters = building.build_adapters()
    pairing = building.pair(building.NAMED[-1], adapters)
    adapter = pairing.adapter

    def make(side, answers):
        path = tmp_path / "model.engine"
        sidecar = write_engine(path, pairing, side, answers)
        library = adapter.Library([str(pairing.library)])
        native = NativeSession(adapter, library, path, sidecar=sidecar)
        engine = adapter.Engine(library, adapter.cuda_device(0), path.read_bytes())
        inner = adapter.Session(engine, ["pixels"], ["scores", "labels", "boxes"])
        for name, module in Gpu(ByTheAdapter(inner, engine.tensors)).modules.items():
            monkeypatch.setitem(sys.modules, name, module)
        return SimpleNamespace(path=path, sidecar=sidecar, native=native, python=PythonSession(path, sidecar))

    return make


def often(function, *given):
    def run():
        for _ in range(RUNS):
            function(*given)

    return run


@pytest.mark.parametrize(("side", "answers"), [(32, 5), (640, 300)])
def test_one_picture(benchmark, both, side, answers):
    made = both(side, answers)
    pixels = np.random.default_rng(0).uniform(0, 1, (1, 3, side, side)).astype(np.float32)
    sessions = {"native": made.native, "Python": made.python}
    outputs = [np.empty((1, *shape[1:]), dtype) for dtype, shape in made.native.tensors.values()][1:]
    found = []
    for session in sessions.values():
        session.run((pixels,), tuple(outputs))
        found.append([array.copy() for array in outputs])
    for ours, theirs in zip(*found):
        np.testing.assert_array_equal(ours, theirs)

    backends = {name: TensorRtBackend(made.path, made.sidecar, session) for name, session in sessions.items()}
    for what, contenders in {
        "run": {name: often(session.run, (pixels,), tuple(outputs)) for name, session in sessions.items()},
        "infer": {name: often(backend.infer, pixels) for name, backend in backends.items()},
    }.items():
        benchmark.extra_info[f"{what}_ratio"] = interleave(
            contenders, rounds=15, title=f"{RUNS} x {what}, {side} x {side}", into=benchmark.extra_info
        )
    benchmark.pedantic(often(made.native.run, (pixels,), tuple(outputs)), rounds=5)
