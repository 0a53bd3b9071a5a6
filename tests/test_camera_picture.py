"""The layouts of cameras: what they mean is OpenCV's answer, and the letterbox reads them as they lie."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from detrx import native
from detrx.camera_picture import CHANNELS, CameraPicture
from detrx.preprocess import letterbox, letterbox_image

cv2 = pytest.importorskip("cv2")

COLOURS = ("bt601", "bt601_full", "bt709", "bt709_full")


def noise(*shape: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def picture(layout: str, height: int = 36, width: int = 58, **more: Any) -> CameraPicture:
    chroma = noise((height + 1) // 2, (width + 1) // 2, 2, seed=1) if layout == "nv12" else None
    return CameraPicture(noise(height, width, CHANNELS[layout]), layout, chroma=chroma, **more)


@pytest.mark.parametrize(
    ("layout", "code"),
    [
        ("bgr", "BGR2RGB"),
        ("rgba", "RGBA2RGB"),
        ("bgra", "BGRA2RGB"),
        ("grey", "GRAY2RGB"),
        ("yuyv", "YUV2RGB_YUYV"),
        ("nv12", "YUV2RGB_NV12"),
    ],
)
def test_colours_are_opencvs(layout: str, code: str) -> None:
    shot = picture(layout)
    packed = shot.plane
    if shot.chroma is not None:
        packed = np.concatenate([packed[..., 0], shot.chroma.reshape(-1, packed.shape[1])])
    wanted = cv2.cvtColor(packed, getattr(cv2, f"COLOR_{code}"))
    np.testing.assert_array_equal(shot.to_rgb(), wanted)


@pytest.mark.parametrize("colours", COLOURS)
def test_the_standards_by_their_definition(colours: str) -> None:
    """Against floats: within a level; BT.601 of limited range has OpenCV's rounded weights."""
    red, blue = (0.299, 0.114) if "601" in colours else (0.2126, 0.0722)
    levels = noise(40, 60, 3).astype(np.float64) / 255
    y = levels @ (red, 1 - red - blue, blue)
    u, v = (levels[..., 2] - y) / (2 - 2 * blue), (levels[..., 0] - y) / (2 - 2 * red)
    full = colours.endswith("full")
    luma = np.rint(y * 255 if full else y * 219 + 16)
    pairs = np.rint(np.stack([u, v], -1) * (255 if full else 224) + 128)[::2, ::2]
    flat = levels.repeat(2, 0)[:40].repeat(2, 1)[:, :60]
    shot = CameraPicture(
        luma.astype(np.uint8)[..., None], "nv12", colours, pairs.clip(0, 255).astype(np.uint8)
    )
    greys = CameraPicture(shot.plane, "nv12", colours, np.full_like(shot.chroma, 128)).to_rgb()
    wanted = (luma - (0 if full else 16)) * (1 if full else 255 / 219)
    assert np.abs(greys - wanted[..., None].clip(0, 255)).max() <= 1
    first = shot.to_rgb()[::2, ::2]
    assert np.abs(first - levels[::2, ::2] * 255).max() <= 4  # whole levels of y, u and v
    assert flat.shape == shot.to_rgb().shape


@pytest.mark.parametrize("layout", CHANNELS)
@pytest.mark.parametrize("size", [(36, 58), (35, 57), (2, 2), (200, 300), (7, 2000)])
@pytest.mark.parametrize("colours", COLOURS[::3])
def test_the_letterbox_reads_every_layout_as_it_lies(
    layout: str, size: tuple[int, int], colours: str
) -> None:
    if layout == "yuyv":
        size = (size[0], size[1] // 2 * 2)
    shot = picture(layout, *size, colours=colours)
    found, box = letterbox(shot, canvas=(64, 96))
    wanted, there = letterbox(shot.to_rgb(), canvas=(64, 96))
    np.testing.assert_array_equal(found, wanted)
    assert box == there


@pytest.mark.parametrize("layout", CHANNELS)
def test_rows_may_be_pitched_and_anything_turned(layout: str) -> None:
    shot = picture(layout, 34, 58)
    room = np.full((34, 80, CHANNELS[layout]), 255, np.uint8)
    room[:, :58] = shot.plane
    chroma = None
    if shot.chroma is not None:
        wide = np.zeros((17, 40, 2), np.uint8)
        wide[:, :29] = shot.chroma
        chroma = wide[:, :29]
    pitched = CameraPicture(room[:, :58], layout, chroma=chroma)
    np.testing.assert_array_equal(letterbox(pitched, canvas=(64, 96))[0], letterbox(shot, canvas=(64, 96))[0])
    if layout in ("nv12", "yuyv"):
        return
    for view in (room[::-1, 57::-1], room[::3, 1::2], room.transpose(1, 0, 2)):
        turned = CameraPicture(view, layout)
        wanted = CameraPicture(np.ascontiguousarray(view), layout)
        np.testing.assert_array_equal(
            letterbox(turned, canvas=(64, 96))[0], letterbox(wanted, canvas=(64, 96))[0]
        )


def test_nothing_behind_the_last_pixel_is_read() -> None:
    """A picture at the end of its memory, beside a page that may not be read."""
    import ctypes
    import mmap

    page = mmap.PAGESIZE
    memory = mmap.mmap(-1, 2 * page)
    address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    protect = ctypes.CDLL(None, use_errno=True).mprotect
    protect.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int)
    assert protect(address + page, page, 0) == 0
    try:
        for layout, width in (("rgb", 11), ("bgra", 3), ("rgb", 1), ("grey", 13)):
            size = 2 * width * CHANNELS[layout]
            flat = np.frombuffer(memory, np.uint8, size, page - size)
            shot = CameraPicture(flat.reshape(2, width, CHANNELS[layout]), layout)
            assert np.isfinite(letterbox(shot, canvas=(64, 96))[0]).all()
    finally:
        protect(address + page, page, mmap.PROT_READ | mmap.PROT_WRITE)


@pytest.mark.parametrize(
    ("plane", "layout", "more", "says"),
    [
        (noise(4, 4, 3), "hsv", {}, "layout must be one of"),
        (noise(4, 4, 3), "rgb", {"colours": "bt2020"}, "colours one of"),
        (noise(4, 4, 4), "rgb", {}, r"shape \(None, None, 3\)"),
        (noise(4, 5, 2), "yuyv", {}, "no picture of yuyv"),
        (noise(0, 5, 3), "rgb", {}, "no picture of rgb"),
        (noise(4, 4, 1), "nv12", {}, "plane of chroma"),
        (noise(4, 4, 1), "nv12", {"chroma": noise(2, 3, 2)}, r"chroma must have shape \(2, 2, 2\)"),
        (noise(4, 4, 3), "rgb", {"chroma": noise(2, 2, 2)}, "no other layout"),
    ],
)
def test_what_does_not_fit_is_refused(
    plane: np.ndarray, layout: str, more: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        CameraPicture(plane, layout, **more)
    with pytest.raises(TypeError, match="uint8 array"):
        CameraPicture(plane.astype(np.float32), layout if layout in CHANNELS else "rgb")


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (33, 31), (64, 96), (480, 640), (1300, 2100), (7, 900)])
@pytest.mark.parametrize("canvas", [(64, 96), (61, 97), (320, 320)])
def test_native_and_opencv_give_the_same_bits(
    size: tuple[int, int], canvas: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    if native.find("letterbox") is None:
        pytest.skip("the extension is not built")
    image = noise(*size, 3)
    outs = [np.full((3, *canvas), 7, dtype) for dtype in (np.float32, np.float16, np.uint8)]
    for out in outs:
        letterbox(image, canvas=canvas, out=out, threads=3)
    levels, _ = letterbox_image(image, canvas=canvas)
    np.testing.assert_array_equal(outs[2], levels.transpose(2, 0, 1))
    monkeypatch.setattr(native, "find", lambda name: None)
    for out in outs:
        wanted, _ = letterbox(image, canvas=canvas, out=np.zeros_like(out))
        np.testing.assert_array_equal(out, wanted)


def test_sizes_by_chance(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(3)
    for seed in range(120):
        size, canvas = rng.integers(1, 300, 2), tuple(rng.integers(1, 200, 2).tolist())
        image = noise(*size, 3, seed=seed)
        found, _ = letterbox(image, canvas=canvas, out=np.empty((3, *canvas), np.uint8))
        np.testing.assert_array_equal(found, letterbox_image(image, canvas=canvas)[0].transpose(2, 0, 1))
