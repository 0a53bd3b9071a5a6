"""The bare rt-n graph at 320 in ONNX Runtime, two threads, beside D-FINE of transformers, and what each part costs.

Weights are random, which does not change the time. DETRX_BENCH_ONNX=best.onnx measures a file of your own as rt-n.

    python benchmarks/bench_graph.py            # the peer and each variant beside rt-n, as ratios
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from detrx.models.config import RtConfig
from detrx.models.zoo import MODELS

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from side_by_side import interleave

CANVAS = (320, 320)
THREADS = 2
SMALL: dict[str, Any] = {
    "backbone": "mobilenetv2_100",
    "levels": (8, 16),
    "queries": 100,
    "decoder_layers": 3,
}
"""What training on small data at this canvas chooses; each variant changes one thing of it."""
NARROW = dict.fromkeys(("hidden", "decoder_hidden"), 64) | dict.fromkeys(
    ("encoder_feedforward", "decoder_feedforward"), 256
)
RT_P: dict[str, Any] = {"neck": "light", "attention_levels": (32,), "decoder_layers": 2}
CHANGES: dict[str, dict[str, Any]] = {
    "mobilenetv2, 8 16, 100 queries, 3 layers": {},
    "canvas 256 320": {"canvas": (256, 320)},
    "rt-p, canvas 256 320": RT_P | {"canvas": (256, 320)},
    "rt-p, canvas 256 320, 60 queries": RT_P | {"canvas": (256, 320), "queries": 60},
    "hgnetv2_b0": {"backbone": "hgnetv2_b0"},
    "mobilenetv4_conv_small": {"backbone": "mobilenetv4_conv_small"},
    "levels 8 16 32": {"levels": (8, 16, 32)},
    "levels 16 32": {"levels": (16, 32)},
    "300 queries": {"queries": 300},
    "2 layers": {"decoder_layers": 2},
    "hidden 64": NARROW,
    "hidden 64, canvas 256 320": NARROW | {"canvas": (256, 320)},
}


def write(config: RtConfig, path: Path, *, canvas: tuple[int, int] = CANVAS) -> Path:
    import torch

    from detrx.export.onnx import write_onnx
    from detrx.models.zoo import build
    from detrx.types import ModelInfo

    torch.manual_seed(0)
    info = ModelInfo(config.name, ("a", "b", "c"), (1, 2, 3), canvas)
    return write_onnx(build(config, classes=3).eval(), info, path)


def write_peer(path: Path) -> Path:
    """D-FINE of transformers as benchmarks/peers trains it: the same backbone, three levels, 100 queries."""
    import torch
    from peers.bccd_transformers import build

    class Plain(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = build(3, None).eval()

        def forward(self, pixels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
            found = self.model(pixels)
            return found.logits, found.pred_boxes

    torch.manual_seed(0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the tracer's, about shapes that it holds for constant
        torch.onnx.export(
            Plain(),
            (torch.randn(1, 3, *CANVAS),),
            path,
            input_names=["pixels"],
            output_names=["logits", "boxes"],
            opset_version=17,
            dynamo=False,
        )
    return path


def runner(path: Path) -> Callable[[], Any]:
    """One call of the graph on a normal picture's worth of noise."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = THREADS
    session = ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    entry = session.get_inputs()[0]
    shape = [1 if isinstance(side, str) else side for side in entry.shape]
    pixels = np.random.default_rng(0).standard_normal(shape, dtype=np.float32)
    return lambda: session.run(None, {entry.name: pixels})


def rt_n(folder: Path) -> Callable[[], Any]:
    given = os.environ.get("DETRX_BENCH_ONNX")
    return runner(Path(given) if given else write(MODELS["rt-n"], folder / "rt-n.onnx"))


def variants(folder: Path) -> dict[str, Callable[[], Any]]:
    base = replace(MODELS["rt-n"], points=(), **SMALL)
    found = {}
    for number, (name, change) in enumerate(CHANGES.items()):
        shape = {key: value for key, value in change.items() if key != "canvas"}
        canvas = change.get("canvas", CANVAS)
        found[name] = runner(write(replace(base, **shape), folder / f"{number}.onnx", canvas=canvas))
    return found


def test_graph(benchmark: Any, tmp_path: Path) -> None:
    benchmark(rt_n(tmp_path))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory() as folder:
        ours = rt_n(Path(folder))
        peer = runner(write_peer(Path(folder) / "peer.onnx"))
        interleave({"transformers D-FINE": peer, "rt-n": ours}, rounds=rounds, title="bare graph")
        for name, run in variants(Path(folder)).items():
            # Each pair alone, lest one's waiting threads slow the next.
            interleave({name: run, "rt-n": ours}, rounds=rounds, title="bare graph")


if __name__ == "__main__":
    main()
