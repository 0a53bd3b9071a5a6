"""Letterbox, decoding and captured frames on the device.

`make gpu` runs these on a machine that has torch, numpy and pytest, and nothing else to import.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from detrx import native
from detrx.camera_picture import CHANNELS, CameraPicture
from detrx.errors import DeviceError
from detrx.models.head import decode, decode_queries
from detrx.ops.cross import cross
from detrx.preprocess import MEAN, STD, letterbox, normalisation, planes, window
from detrx.runtime.frames import Frames
from detrx.runtime.torch_engine import TorchEngine
from detrx.tensors import Outputs
from detrx.types import ModelInfo, Raw

pytestmark = pytest.mark.needs("cuda")

DEVICE = "cuda"
CANVAS = (96, 160)
INFO = ModelInfo("rt-n", ("disc", "ring", "star"), (7, 3, 9), CANVAS)
SIZES = [(180, 400), (64, 64), (1, 1), (33, 7), (180, 400), (1080, 1920), (1300, 2000)]


def some_picture(seed: int, size: tuple[int, int], layout: str = "bgr") -> CameraPicture:
    values = np.random.default_rng(seed)
    plane = values.integers(0, 256, (*size, CHANNELS[layout]), dtype=np.uint8)
    pairs = ((size[0] + 1) // 2, (size[1] + 1) // 2, 2)
    chroma = values.integers(0, 256, pairs, dtype=np.uint8) if layout == "nv12" else None
    return CameraPicture(plane, layout, chroma=chroma)


@pytest.mark.parametrize("layout", CHANNELS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16], ids=["float32", "float16"])
def test_the_letterbox_is_the_cpus(layout: str, dtype: Any) -> None:
    kernels, kinds = native.load().cuda, native.load()
    for seed, size in enumerate([(36, 58), (1, 2), (610, 340)]):
        picture = some_picture(seed, size, layout)
        wanted, box = letterbox(picture, canvas=CANVAS, out=np.empty((3, *CANVAS), dtype))
        place = window(box)
        taps = np.empty((place[2] + place[3], 3), np.int32)
        kernels.letterbox_taps(place, *size, taps)
        plane, chroma, _, _ = planes(picture)
        planes_there = [None if one is None else torch.from_numpy(one).to(DEVICE) for one in (plane, chroma)]
        out = torch.empty(3, *CANVAS, dtype=torch.from_numpy(wanted).dtype, device=DEVICE)
        given = [None if one is None else cross(one) for one in planes_there]
        kernels.letterbox(
            *given, getattr(kinds.PixelFormat, layout), kinds.Colours.bt601, place,
            normalisation(MEAN, STD).ravel().tolist(), cross(torch.from_numpy(taps).to(DEVICE)), cross(out),
            torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
        np.testing.assert_array_equal(out.cpu().numpy(), wanted)


@pytest.mark.parametrize("no_object", [False, True])
@pytest.mark.parametrize("sizes", [(1, 5, 3, 4), (2, 300, 80, 300), (1, 900, 2, 900), (3, 33, 366, 33)])
def test_decoding_is_the_graphs(sizes: tuple[int, int, int, int], no_object: bool) -> None:
    torch.manual_seed(0)
    images, queries, columns, top = sizes
    logits = torch.randn(images, queries, columns, device=DEVICE)
    boxes = torch.rand(images, queries, 4, device=DEVICE)
    kernels = native.load().cuda
    wanted = (
        decode_queries(logits, boxes, top=top, no_object=True)
        if no_object
        else decode(logits, boxes, top=top)
    )
    found = [torch.empty_like(one, memory_format=torch.contiguous_format) for one in wanted]
    work = torch.empty(kernels.decode_workspace(images, queries, no_object), dtype=torch.uint8, device=DEVICE)
    stream = torch.cuda.current_stream().cuda_stream
    kernels.decode(cross(logits), cross(boxes), no_object, *map(cross, (*found, work)), stream)
    assert torch.equal(found[1], wanted[1])
    torch.testing.assert_close(found[0], wanted[0], rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(found[2], wanted[2].clamp(0, 1))


class Model(nn.Module):
    """Convolutions, a product of matrices and what allocates on the way, as a detector has them."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, 4), nn.ReLU(), nn.Conv2d(16, 7, 3, 4))
        self.head = nn.Linear(2 * 6 * 10, 20)

    def forward(self, pixels: torch.Tensor) -> Outputs:
        found = self.stem(pixels).flatten(2)
        rows = self.head(torch.cat([found, found.square()], -1)).reshape(1, len(pixels), 20, 7)
        return Outputs(rows[..., :3].contiguous(), rows[..., 3:].sigmoid())


@pytest.fixture
def model() -> Model:
    torch.manual_seed(0)
    return Model().eval().to(DEVICE)


@torch.inference_mode()
def step_by_step(model: Model, picture: CameraPicture) -> list[np.ndarray]:
    pixels, _ = letterbox(picture, canvas=CANVAS)
    found = model(torch.from_numpy(pixels)[None].to(DEVICE))
    return [one.cpu().numpy() for one in decode(found.logits[-1], found.boxes[-1], top=30)]


def open_frames(model: Model, **settings: Any) -> Frames:
    return Frames(TorchEngine(model, CANVAS, device=DEVICE, top=30), INFO, **settings)


def run(frames: Frames, picture: CameraPicture) -> Raw | None:
    filled = frames.fill(picture)
    return filled and filled.run()


def assert_same(found: Raw, wanted: list[np.ndarray]) -> None:
    # cuDNN may round to TF32; and where two scores are as good as equal, either may come first.
    np.testing.assert_allclose(found.scores, wanted[0], rtol=1e-2, atol=1e-3)
    assert (found.labels == wanted[1]).mean() > 0.8
    assert np.isclose(found.boxes, wanted[2].clip(0, 1), atol=1e-2).all(-1).mean() > 0.8


@pytest.mark.parametrize("layout", ["bgr", "nv12"])
def test_one_capture_serves_pictures_of_every_size(model: Model, layout: str) -> None:
    frames = open_frames(model, slots=2)
    for seed, size in enumerate(SIZES):
        picture = some_picture(seed, size, layout)
        assert_same(run(frames, picture), step_by_step(model, picture))


def test_frames_ask_for_no_memory_and_keep_theirs(model: Model) -> None:
    """What the graph works in is given to nobody else."""
    frames, picture = open_frames(model), some_picture(1, (180, 400))
    wanted = run(frames, picture)
    before = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
    for _ in range(20):
        run(frames, picture)
    assert (torch.cuda.memory_allocated(), torch.cuda.memory_reserved()) == before
    rubbish = [torch.full((1 << size,), float("nan"), device=DEVICE) for size in range(8, 24)]
    found = run(frames, picture)
    for one in rubbish:
        one.fill_(float("nan"))
    np.testing.assert_array_equal(found.scores, wanted.scores)
    np.testing.assert_array_equal(run(frames, picture).boxes, wanted.boxes)


def test_threads_share_the_slots(model: Model) -> None:
    frames = open_frames(model, slots=3)
    pictures = [some_picture(seed, SIZES[seed % 5]) for seed in range(40)]
    with ThreadPoolExecutor(3) as pool:
        found = list(pool.map(lambda picture: run(frames, picture), pictures))
    for picture, raw in zip(pictures, found):
        assert_same(raw, step_by_step(model, picture))


def test_closing_while_frames_fly(model: Model) -> None:
    frames, picture = open_frames(model, slots=2), some_picture(1, (180, 400))
    with ThreadPoolExecutor(1) as pool:
        flying = pool.submit(run, frames, picture)
        waiting = frames.fill(picture)
        frames.close()
    error = flying.exception()  # where the frame had not been launched yet
    if error is None:
        assert_same(flying.result(), step_by_step(model, picture))
    else:
        assert "it was closed" in str(error)
    assert frames.fill(picture) is None
    with pytest.raises(DeviceError, match="it was closed"):
        waiting.run()


def test_an_engine_that_cannot_be_captured_says_so_and_the_device_goes_on(model: Model) -> None:
    def waits(pixels: torch.Tensor) -> Outputs:
        found = Model.forward(model, pixels)
        found.logits.sum().item()  # no graph can wait for the host
        return found

    with pytest.raises(RuntimeError, match="captur"):
        open_frames(waits)
    frames, picture = open_frames(model), some_picture(1, (180, 400))
    assert_same(run(frames, picture), step_by_step(model, picture))
