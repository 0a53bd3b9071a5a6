"""Picture files: every kind reads to RGB, every broken one is a DataError (faults 1 to 9)."""

from __future__ import annotations

import io
import os
import struct
import zlib
from pathlib import Path

import numpy as np
import pytest

from detrx.errors import DataError
from detrx.images import image_size, read_header, read_image

cv2 = pytest.importorskip("cv2")
Image = pytest.importorskip("PIL.Image")
ImageOps = pytest.importorskip("PIL.ImageOps")


def smooth(height: int = 60, width: int = 90) -> np.ndarray:
    """A picture that survives JPEG: soft colours, no symmetry."""
    rng = np.random.default_rng(0)
    noise = rng.integers(0, 256, (height, width, 3), dtype=np.uint8)
    return cv2.normalize(cv2.GaussianBlur(noise, (0, 0), 5), None, 0, 255, cv2.NORM_MINMAX)


def jpeg(image: np.ndarray, **options: object) -> bytes:
    out = io.BytesIO()
    Image.fromarray(image).save(out, "JPEG", quality=90, **options)
    return out.getvalue()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("share", [0.25, 0.5, 0.9, 0.999])
@pytest.mark.parametrize("progressive", [False, True])
def test_truncated_jpeg_is_refused(tmp_path, share, progressive):
    data = jpeg(smooth(200, 300), progressive=progressive)
    path = write(tmp_path / "cut.jpg", data[: int(len(data) * share)])
    with pytest.raises(DataError, match="cut off"):
        read_image(path)
    with pytest.raises(DataError, match="cut off"):
        image_size(path)


def test_truncated_jpeg_with_a_thumbnail_in_its_head_is_refused(tmp_path):
    exif = b"Exif\0\0" + b"II*\0\x08\0\0\0\0\0\0\0\0\0" + jpeg(smooth(16, 16))
    data = jpeg(smooth(200, 300), exif=exif)
    assert read_image(write(tmp_path / "whole.jpg", data)).shape == (200, 300, 3)
    with pytest.raises(DataError, match="cut off"):
        read_image(write(tmp_path / "cut.jpg", data[: len(data) // 2]))


def test_jpeg_with_bytes_after_its_end_still_reads(tmp_path):
    path = write(tmp_path / "a.jpg", jpeg(smooth()) + b"\0" * 100)
    assert image_size(path) == (60, 90)
    assert read_image(path).shape == (60, 90, 3)


def test_jpeg_whose_data_end_early_is_refused(tmp_path):
    data = jpeg(smooth(200, 300))
    with pytest.raises(DataError, match=r"corrupt|decode"):
        read_image(write(tmp_path / "a.jpg", data[: len(data) // 2].rstrip(b"\xff") + b"\xff\xd9"))


def test_jpeg_that_is_truly_grey_reads(tmp_path):
    grey = np.full((64, 64, 3), 128, np.uint8)
    assert (read_image(write(tmp_path / "a.jpg", jpeg(grey))) == 128).all()


def test_flipped_bits_are_refused_or_decoded_to_the_right_size(tmp_path):
    data = jpeg(smooth(200, 300))
    rng = np.random.default_rng(1)
    refused = 0
    for attempt in range(40):
        broken = np.frombuffer(data, np.uint8).copy()
        at = rng.integers(200, len(data), 60)
        broken[at] ^= (1 << rng.integers(0, 8, 60)).astype(np.uint8)
        try:
            assert read_image(write(tmp_path / f"{attempt}.jpg", broken.tobytes())).shape == (200, 300, 3)
        except DataError:
            refused += 1
    assert refused > 10


@pytest.mark.parametrize("suffix", [".png", ".webp"])
def test_truncated_png_and_webp_are_refused(tmp_path, suffix):
    whole = tmp_path / ("a" + suffix)
    Image.fromarray(smooth(200, 300)).save(whole)
    data = whole.read_bytes()
    for share in (0.25, 0.5, 0.9, 0.999):
        cut = write(tmp_path / ("cut" + suffix), data[: int(len(data) * share)])
        with pytest.raises(DataError):
            read_image(cut)
        with pytest.raises(DataError):
            image_size(cut)


@pytest.mark.parametrize(
    "data",
    [b"", b"\n<!DOCTYPE html><html></html>", b"<html>", b"hello", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"],
)
def test_what_is_no_picture_is_refused(tmp_path, data):
    path = write(tmp_path / "a.jpg", data)
    for read in (read_image, image_size):
        with pytest.raises(DataError, match=r"a\.jpg"):
            read(path)


def test_a_wrong_suffix_does_not_matter(tmp_path):
    path = tmp_path / "really-a-png.jpg"
    Image.fromarray(smooth()).save(path, "PNG")
    np.testing.assert_array_equal(read_image(path), smooth())
    assert read_header(path).kind == "png"


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


@pytest.mark.parametrize("side", [20_000, 65_500])
def test_a_picture_bomb_is_refused_before_its_pixels_are_decoded(tmp_path, side, monkeypatch):
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0))
    rows = zlib.compress(bytes(1 << 20))
    bomb = b"\x89PNG\r\n\x1a\n" + header + png_chunk(b"IDAT", rows) + png_chunk(b"IEND", b"")
    monkeypatch.setattr(cv2, "imdecode", lambda *_: pytest.fail("decoded"))
    with pytest.raises(DataError, match="max_pixels"):
        read_image(write(tmp_path / "bomb.png", bomb))
    small = write(tmp_path / "a.png", cv2.imencode(".png", smooth())[1].tobytes())
    with pytest.raises(DataError, match="max_pixels=100"):
        read_image(small, max_pixels=100)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
def test_exif_orientation_is_applied(tmp_path, orientation, suffix):
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / ("a" + suffix)
    Image.fromarray(smooth()).save(path, exif=exif, **({"lossless": True} if suffix == ".webp" else {}))
    with Image.open(path) as picture:
        expected = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    found = read_image(path)
    assert found.flags.c_contiguous
    assert image_size(path) == found.shape[:2] == expected.shape[:2]
    np.testing.assert_allclose(found.astype(int), expected, atol=2)


@pytest.mark.parametrize("mode", ["L", "P", "1"])
@pytest.mark.parametrize("suffix", [".png", ".bmp", ".tif", ".gif"])
def test_grey_palette_and_one_bit(tmp_path, mode, suffix):
    picture = Image.fromarray(smooth()).convert(mode)
    picture.save(tmp_path / ("a" + suffix))
    np.testing.assert_array_equal(read_image(tmp_path / ("a" + suffix)), np.asarray(picture.convert("RGB")))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp"])
def test_alpha_is_laid_on_black(tmp_path, mode, suffix):
    if (mode, suffix) == ("LA", ".webp"):
        pytest.skip("WebP has no grey with alpha")
    colours = smooth() if mode == "RGBA" else smooth()[..., :1]
    alpha = np.arange(90, dtype=np.uint8)[None].repeat(60, 0)[..., None] * 2
    options = {"lossless": True, "exact": True} if suffix == ".webp" else {}
    Image.fromarray(np.concatenate((colours, alpha), 2)).save(tmp_path / ("a" + suffix), **options)
    expected = np.broadcast_to(colours * (alpha / 255.0), (60, 90, 3))
    np.testing.assert_allclose(read_image(tmp_path / ("a" + suffix)), expected, atol=1)


def test_sixteen_bits_are_scaled(tmp_path):
    grey = np.linspace(0, 65535, 60 * 90).reshape(60, 90).astype(np.uint16)
    cv2.imwrite(str(tmp_path / "a.png"), grey)
    np.testing.assert_array_equal(
        read_image(tmp_path / "a.png")[..., 1], np.round(grey / 257).astype(np.uint8)
    )
    colour = np.dstack((grey, grey // 2, grey // 3))
    cv2.imwrite(str(tmp_path / "b.png"), colour[..., ::-1])
    np.testing.assert_allclose(read_image(tmp_path / "b.png"), colour / 257, atol=1)


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_cmyk(tmp_path, suffix):
    Image.fromarray(smooth()).convert("CMYK").save(tmp_path / ("a" + suffix))
    found = read_image(tmp_path / ("a" + suffix)).astype(int)
    assert np.abs(found - smooth()).mean() < 3


@pytest.mark.parametrize("suffix", [".gif", ".webp"])
def test_the_first_frame_of_an_animation(tmp_path, suffix):
    first = Image.fromarray(smooth()).convert("P")
    frames = [Image.new("P", (90, 60), 3)]
    options = {"lossless": True} if suffix == ".webp" else {}
    first.save(tmp_path / ("a" + suffix), save_all=True, append_images=frames, **options)
    found = read_image(tmp_path / ("a" + suffix))
    np.testing.assert_allclose(found.astype(int), np.asarray(first.convert("RGB")), atol=1)


@pytest.mark.parametrize("size", [(1, 1), (1, 5000), (5000, 1)])
def test_thin_pictures(tmp_path, size):
    image = np.full((*size, 3), 200, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), image)
    assert read_image(tmp_path / "a.png").shape == image.shape
    assert image_size(tmp_path / "a.png") == size


def test_an_8k_picture(tmp_path):
    cv2.imwrite(str(tmp_path / "a.jpg"), np.zeros((4320, 7680, 3), np.uint8))
    assert image_size(tmp_path / "a.jpg") == (4320, 7680)
    assert read_image(tmp_path / "a.jpg").shape == (4320, 7680, 3)


def test_what_is_no_regular_file_is_refused_without_waiting(tmp_path):
    (tmp_path / "folder.jpg").mkdir()
    os.mkfifo(tmp_path / "fifo.jpg")
    (tmp_path / "loop.jpg").symlink_to(tmp_path / "loop.jpg")
    for name in ("folder.jpg", "fifo.jpg", "loop.jpg", "missing.jpg", "nul\0.jpg"):
        for read in (read_image, image_size):
            with pytest.raises(DataError):
                read(tmp_path / name)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_permission_is_refused(tmp_path):
    path = write(tmp_path / "a.jpg", jpeg(smooth()))
    path.chmod(0)
    with pytest.raises(DataError, match="permission"):
        read_image(path)


@pytest.mark.parametrize("name", ["ü 写真.png", "two words.png", "new\nline.png", "x" * 251 + ".png"])
def test_odd_names(tmp_path, name):
    path = write(tmp_path / name, cv2.imencode(".png", smooth()[..., ::-1])[1].tobytes())
    np.testing.assert_array_equal(read_image(path), smooth())


def test_any_bytes_give_a_picture_or_a_data_error(tmp_path):
    """The header parser meets every kind with its bytes cut and changed."""
    rng = np.random.default_rng(2)
    for suffix in ("jpeg", "png", "bmp", "webp", "gif", "tiff"):
        out = io.BytesIO()
        Image.fromarray(smooth(20, 30)).save(out, suffix)
        data = np.frombuffer(out.getvalue(), np.uint8)
        for attempt in range(60):
            broken = data[: rng.integers(1, len(data) + 1)].copy() if attempt % 2 else data.copy()
            at = rng.integers(0, min(64, len(broken)), 3)
            broken[at] = rng.integers(0, 256, 3)
            path = write(tmp_path / f"a.{suffix}", broken.tobytes())
            try:
                assert read_image(path, max_pixels=10_000).ndim == 3
            except DataError:
                continue
