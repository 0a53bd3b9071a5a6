"""What `make gpu` collects is there on a machine that has torch, numpy and pytest, and nothing else to import."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ABSENT = (
    "cv2 faster_coco_eval hypothesis matplotlib onnx onnxruntime onnxslim PIL psutil pycocotools rich safetensors "
    "scipy timm torchvision transformers tyro xdist yaml"
)
# Hides packages as if they were not installed.
COLLECT = f"""
import sys
from importlib.machinery import PathFinder
import pytest

class Finder(PathFinder):
    @classmethod
    def find_spec(cls, name, *more):
        return None if name.partition(".")[0] in {ABSENT.split()} else super().find_spec(name, *more)

sys.meta_path[sys.meta_path.index(PathFinder)] = Finder
sys.exit(pytest.main(sys.argv[1:]))
"""


@pytest.mark.parametrize(("folder", "least"), [("tests", 300), ("benchmarks", 60)])
def test_everything_is_collected(folder: str, least: int) -> None:
    options = ["-p", "pytest_benchmark.plugin", "-p", "no:cacheprovider", "-q", "--collect-only"]
    done = subprocess.run(
        [sys.executable, "-c", COLLECT, *options, "--only-needs", "cuda", folder],
        cwd=ROOT,
        env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1", "DETRX_REQUIRE": "cuda"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-3000:] + done.stderr[-1000:]
    assert done.stdout.count("::") >= least
