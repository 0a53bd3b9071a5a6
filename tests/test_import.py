"""`import detrx` is light, and works where nothing is installed (faults row 68)."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

HEAVY = (
    "torch",
    "cv2",
    "onnxruntime",
    "tensorrt",
    "pycuda",
    "PIL",
    "matplotlib",
    "scipy",
    "timm",
    "transformers",
)
RUNTIME_HALF = (
    "types", "errors", "native", "images", "preprocess", "detector", "draw", "bench", "doctor", "demo",
    "runtime.backend", "runtime.onnx", "runtime.torch", "live.source", "live.loop", "live.sink", "live.job",
    "cli.main", "cli.detect", "cli.webcam", "cli.bench", "cli.doctor", "cli.demo",
    "data.coco", "data.synthetic", "evaluation.coco",
)  # fmt: skip
BLOCK = f"""
import sys
for name in {HEAVY!r}:
    sys.modules[name] = None
"""


def python(code: str, **extra: str) -> str:
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, env=extra or None
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def best_of(code: str, *, runs: int = 4) -> float:
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        python(code)
        times.append(time.perf_counter() - start)
    return min(times)


def test_import_takes_under_300_milliseconds() -> None:
    assert best_of("import detrx") - best_of("pass") < 0.3


def test_the_detector_is_light_too() -> None:
    assert best_of("from detrx import Detector") - best_of("import numpy") < 0.3


@pytest.mark.parametrize(
    "what", ["detrx", "detrx.detector", "detrx.live.source", "detrx.cli.main", "detrx.demo"]
)
def test_nothing_heavy_is_loaded(what: str) -> None:
    loaded = python(f"import sys, {what}; print(*(n for n in {HEAVY!r} if n in sys.modules))")
    assert loaded.strip() == ""


def test_every_module_of_the_runtime_half_imports_without_them() -> None:
    modules = ", ".join(f"detrx.{name}" for name in RUNTIME_HALF)
    assert python(f"{BLOCK}\nimport {modules}\nprint('fine')").strip() == "fine"


@pytest.mark.parametrize(
    ("code", "says"),
    [
        ("from detrx.images import opencv; opencv()", "cv2"),
        (
            "import numpy as n; from detrx.preprocess import *; letterbox_image(n.zeros((4,4,3),'u1'), canvas=(32,32))",
            "cv2",
        ),
        ("from detrx.runtime.onnx import _onnxruntime; _onnxruntime()", "ONNX Runtime"),
        ("from detrx.runtime.torch import _torch; _torch()", "PyTorch"),
    ],
)
def test_what_is_missing_is_named_at_use(code: str, says: str) -> None:
    wrapped = f"""{BLOCK}
from detrx.errors import MissingBackendError
try:
    exec({code!r})
except MissingBackendError as error:
    print(error)
"""
    said = python(wrapped)
    assert says in said
    assert "pip install" in said


def test_it_imports_without_a_home() -> None:
    import os

    kept = {
        name: value for name, value in os.environ.items() if name not in ("HOME", "XDG_CACHE_HOME", "DISPLAY")
    }
    assert python("import detrx; print(detrx.__version__)", **kept).strip()
