"""Letterbox and decode for CUDA, run by the emulator: the CPU's answers to the bit, and those of the graph's decode."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch

from detrx.camera_picture import CHANNELS, CameraPicture
from detrx.models.head import decode, decode_queries
from detrx.preprocess import MEAN, STD, letterbox

NORMAL = [1 / (255 * s) for s in STD] + [-m / s for m, s in zip(MEAN, STD)]


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def capsule(array: Any) -> Any:
    tensor = array if isinstance(array, torch.Tensor) else torch.from_numpy(array)
    return torch.utils.dlpack.to_dlpack(tensor)


def normal() -> list[float]:
    values = np.array(NORMAL, np.float32)
    return [*values.tolist(), *(np.float32(114) * values[:3] + values[3:]).tolist()]


def window(size: tuple[int, int], canvas: tuple[int, int]) -> tuple[int, int, int, int]:
    _, box = letterbox(noise(*size, 3), canvas=canvas)
    return (*box.pad, *(round(length * scale) for length, scale in zip(box.image, box.scale)))


def taps(emulator: ModuleType, place: tuple[int, int, int, int], size: tuple[int, int]) -> np.ndarray:
    table = np.empty((place[2] + place[3], 3), np.int32)
    emulator.letterbox_taps(place, *size, table)
    return table


@pytest.mark.parametrize("layout", CHANNELS)
@pytest.mark.parametrize("size", [(36, 58), (1, 2), (61, 34)])
@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.uint8])
def test_the_canvas_is_the_cpus(emulator: ModuleType, layout: str, size: tuple[int, int], dtype: Any) -> None:
    canvas, (height, width) = (32, 140), size
    chroma = noise((height + 1) // 2, (width + 1) // 2, 2, seed=1) if layout == "nv12" else None
    pitched = noise(height, width + 7, CHANNELS[layout])[:, :width]
    wanted, _ = letterbox(
        CameraPicture(pitched, layout, chroma=chroma), canvas=canvas, out=np.empty((3, *canvas), dtype)
    )
    found, place = np.empty((3, *canvas), dtype), window(size, canvas)
    values = normal()[:6] + [114.0] * 3 if dtype == np.uint8 else normal()
    kinds = emulator.PixelFormat, emulator.Colours
    emulator.letterbox(
        capsule(pitched), None if chroma is None else capsule(chroma), getattr(kinds[0], layout), kinds[1].bt601,
        place, values, capsule(taps(emulator, place, size)), capsule(found), 0,
    )  # fmt: skip
    np.testing.assert_array_equal(found, wanted)


@pytest.mark.parametrize("layout", ["grey", "rgba", "bgra", "nv12"])
def test_textures_are_read_as_memory_is(emulator: ModuleType, layout: str) -> None:
    size, canvas = (37, 58), (32, 140)
    chroma = noise(19, 29, 2, seed=1) if layout == "nv12" else None
    shot = CameraPicture(noise(*size, CHANNELS[layout]), layout, chroma=chroma)
    found, place = np.empty((3, *canvas), np.float32), window(size, canvas)
    emulator.letterbox_of_textures(
        shot.plane, chroma, getattr(emulator.PixelFormat, layout), emulator.Colours.bt601,
        place, normal(), taps(emulator, place, size), found,
    )  # fmt: skip
    np.testing.assert_array_equal(found, letterbox(shot, canvas=canvas)[0])


def test_what_does_not_fit_is_refused(emulator: ModuleType) -> None:
    plane, out = noise(8, 8, 3), np.empty((3, 8, 8), np.float32)
    table = taps(emulator, (0, 0, 8, 8), (8, 8))

    def call(plane: np.ndarray, place: tuple[int, ...], table: np.ndarray, chroma: Any = None) -> None:
        kinds = emulator.PixelFormat.rgb, emulator.Colours.bt601
        emulator.letterbox(capsule(plane), chroma, *kinds, place, normal(), capsule(table), capsule(out), 0)

    for plane_, place, table_, says in (
        (plane[:, ::2], (0, 0, 8, 8), table, "adjacent"),
        (plane, (1, 0, 8, 8), table, "within the canvas"),
        (plane, (0, 0, 8, 8), table[:9], "taps must have shape"),
        (noise(8, 8, 4), (0, 0, 8, 8), table, r"\(H, W, 3\)"),
    ):
        with pytest.raises(emulator.ArgumentError, match=says):
            call(plane_, place, table_)
    with pytest.raises(emulator.ArgumentError, match="chroma"):
        call(plane, (0, 0, 8, 8), table, capsule(noise(4, 4, 2)))


def room(emulator: ModuleType, images: int, queries: int, no_object: bool) -> torch.Tensor:
    return torch.empty(emulator.decode_workspace(images, queries, no_object), dtype=torch.uint8)


def decoded(
    emulator: ModuleType, logits: torch.Tensor, boxes: torch.Tensor, top: int, no_object: bool
) -> Any:
    shape = (len(logits), top)
    found = [torch.empty(shape), torch.empty(shape, dtype=torch.int64), torch.empty(*shape, 4)]
    work = room(emulator, *logits.shape[:2], no_object)
    emulator.decode(
        capsule(logits), capsule(boxes), no_object, *(capsule(one) for one in found), capsule(work), 0
    )
    return found


@pytest.mark.parametrize("no_object", [False, True])
@pytest.mark.parametrize("shape", [(2, 300, 7), (1, 1, 2), (3, 33, 92), (1, 700, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=str)
def test_the_best_are_those_of_the_graph(
    emulator: ModuleType, shape: tuple[int, int, int], dtype: torch.dtype, no_object: bool
) -> None:
    generator = torch.Generator().manual_seed(sum(shape))
    # All logits differ, also in 16 bits, so that there is one answer.
    logits = torch.randperm(shape[1] * shape[2], generator=generator).expand(shape[0], -1).float() / 256 - 4
    logits = logits.reshape(shape).to(dtype)
    boxes = torch.rand((*shape[:2], 4), generator=generator).to(dtype)
    candidates = shape[1] if no_object else shape[1] * shape[2]
    for top in {1, min(100, candidates), candidates if candidates <= 2048 else 300}:
        scores, labels, corners = decoded(emulator, logits, boxes, top, no_object)
        wide = logits.float(), boxes.float()
        wanted = decode_queries(*wide, top=top, no_object=True) if no_object else decode(*wide, top=top)
        torch.testing.assert_close(scores, wanted[0], rtol=1e-5, atol=1e-6)
        if dtype == torch.float32:
            torch.testing.assert_close(labels, wanted[1])
            torch.testing.assert_close(corners, wanted[2], rtol=0, atol=1e-6)


def test_among_equals_the_first_comes_first_and_nan_is_seen(emulator: ModuleType) -> None:
    logits = torch.zeros(1, 40, 30)
    logits[0, 7, 3] = float("nan")
    logits[0, 9, 4] = -0.0
    logits[0, 20, 5] = 2
    boxes = torch.tensor([0.5, 0.5, 3.0, 0.1]).expand(1, 40, 4).contiguous()
    scores, labels, corners = decoded(emulator, logits, boxes, 300, False)
    assert torch.isnan(scores[0, 0])
    assert labels[0, :2].tolist() == [3, 5]
    assert labels[0, 2:].tolist() == [i % 30 for i in range(300) if i != 7 * 30 + 3][:298]
    assert corners.min() == 0
    assert corners.max() == 1
    narrow = torch.empty(1, 300, dtype=torch.int32)
    work = room(emulator, 1, 40, False)
    emulator.decode(
        capsule(logits),
        capsule(boxes),
        False,
        capsule(scores),
        capsule(narrow),
        capsule(corners),
        capsule(work),
        0,
    )
    assert narrow.tolist() == labels.tolist()
    with pytest.raises(emulator.ArgumentError, match="so many"):
        decoded(emulator, logits, boxes, 1201, False)
