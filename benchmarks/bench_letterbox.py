"""A camera's picture to normalised pixels: ours beside OpenCV with NumPy, torchvision, and PIL with NumPy."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from detrx.preprocess import MEAN, PAD_VALUE, STD, letterbox, plan

sys.path.append(str(Path(__file__).parent))  # pytest imports each file on its own
from side_by_side import interleave

THREADS = int(os.environ.get("OMP_NUM_THREADS", "2"))
CASES = {"1080p to 640": ((1080, 1920), (640, 640)), "480p to 320": ((480, 640), (320, 320))}


def place(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int, int, int]:
    """Top, left, height and width of the picture on the canvas."""
    box = plan(size, canvas=canvas)
    return (*box.pad, *(round(length * scale) for length, scale in zip(size, box.scale)))


def normalised(canvas: np.ndarray) -> np.ndarray:
    pixels = (canvas.astype(np.float32) / 255 - np.array(MEAN, np.float32)) / np.array(STD, np.float32)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1))


def opencv(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    top, left, height, width = place(image.shape[:2], canvas)
    inner = cv2.resize(image, (width, height), interpolation=cv2.INTER_LINEAR)
    below, right = canvas[0] - height - top, canvas[1] - width - left
    border = (cv2.BORDER_CONSTANT, None, (PAD_VALUE,) * 3)
    return normalised(cv2.copyMakeBorder(inner, top, below, left, right, *border))


def pil(image: np.ndarray, canvas: tuple[int, int]) -> np.ndarray:
    from PIL import Image

    top, left, height, width = place(image.shape[:2], canvas)
    laid = Image.new("RGB", canvas[::-1], (PAD_VALUE,) * 3)
    laid.paste(Image.fromarray(image).resize((width, height), Image.Resampling.BILINEAR), (left, top))
    return normalised(np.asarray(laid))


def torchvision(image: np.ndarray, canvas: tuple[int, int]) -> Any:
    import torch
    from torchvision.transforms.v2 import functional

    torch.set_num_threads(THREADS)
    top, left, height, width = place(image.shape[:2], canvas)
    pixels = torch.from_numpy(image).permute(2, 0, 1)
    pixels = functional.resize(pixels, [height, width], antialias=True)
    border = [left, top, canvas[1] - width - left, canvas[0] - height - top]
    pixels = functional.to_dtype(functional.pad(pixels, border, fill=PAD_VALUE), torch.float32, scale=True)
    return functional.normalize(pixels, MEAN, STD)


@pytest.mark.parametrize("case", CASES)
def test_letterbox(benchmark: Any, case: str) -> None:
    size, canvas = CASES[case]
    image = np.random.default_rng(0).integers(0, 256, (*size, 3), dtype=np.uint8)
    out = np.empty((3, *canvas), np.float32)
    cv2.setNumThreads(THREADS)

    def ours() -> None:
        letterbox(image, canvas=canvas, out=out, threads=THREADS)

    peers: dict[str, Callable[[], Any]] = {
        "OpenCV": lambda: opencv(image, canvas),
        "PIL": lambda: pil(image, canvas),
    }
    if importlib.util.find_spec("torchvision"):
        peers["torchvision"] = lambda: torchvision(image, canvas)
    ours()
    np.testing.assert_allclose(out, peers["OpenCV"](), atol=2e-6)
    for name, peer in peers.items():
        contenders = {"ours": ours, name: peer}
        interleave(contenders, rounds=40, title=f"{case} beside {name}", into=benchmark.extra_info)
    benchmark.pedantic(ours, rounds=20, warmup_rounds=2)
