"""From a picture to the model's pixels: one geometry for training, running and exporting."""

from __future__ import annotations

import os
from typing import Any, List, Optional, Sequence, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx import native
from detrx.camera_picture import CameraPicture
from detrx.errors import MissingBackendError, pip_install
from detrx.resample import shrink
from detrx.types import PADDING, Letterbox, ModelInfo

MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)
PAD_VALUE = 114
"""Grey of the empty canvas, 0 to 255, before normalisation."""

Picture = Union[NDArray[np.uint8], CameraPicture]
"""(H, W, 3) uint8 RGB of any strides, or what a camera gave."""


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingBackendError("OpenCV (cv2)", f"Type: {pip_install('cpu')}") from error
    return cv2


def check_image(image: Any, *, where: str = "letterbox") -> NDArray[np.uint8]:
    """Refuse what is no (H, W, 3) uint8 array; what is one is answered as it is.

    Raises:
        TypeError: not an array, or its type is not uint8.
        ValueError: the shape is not (H, W, 3), or a side is empty.
    """
    if not isinstance(image, np.ndarray):
        raise TypeError(f"[{where}] an image must be a (H, W, 3) uint8 array, got {type(image).__name__}")
    if image.dtype != np.uint8:
        raise TypeError(
            f"[{where}] an image must be uint8 in 0 to 255, got {image.dtype}; "
            f"for floats in [0, 1] pass `(image * 255).round().astype(np.uint8)`"
        )
    if image.ndim != 3 or image.shape[2] != 3:
        raise ValueError(
            f"[{where}] an image must have shape (H, W, 3) RGB, got {image.shape}; "
            f"a batch is given as a list, grey as `np.dstack([grey] * 3)`"
        )
    if 0 in image.shape:
        raise ValueError(f"[{where}] an image must hold at least one pixel, got shape {image.shape}")
    return image


def check_picture(image: Any) -> Picture:
    """The same for what may also be a CameraPicture."""
    return image if isinstance(image, CameraPicture) else check_image(image)


def size_of(image: Picture) -> Tuple[int, int]:
    """(height, width) in pixels."""
    return image.size if isinstance(image, CameraPicture) else (image.shape[0], image.shape[1])


def plan(image: Tuple[int, int], *, canvas: Tuple[int, int], centred: bool = True) -> Letterbox:
    """Where an image of (height, width) goes on a canvas: aspect kept, rounded to whole pixels.

    Args:
        image: (height, width) in pixels.
        canvas: (height, width) in pixels.
        centred: in the middle; else at the top left.

    Raises:
        ValueError: a side is not positive.
    """
    if min(image) < 1 or min(canvas) < 1:
        raise ValueError(f"[letterbox] sides must be positive, got image {image} and canvas {canvas}")
    scale = min(canvas[0] / image[0], canvas[1] / image[1])
    inner = [min(side, max(1, round(length * scale))) for side, length in zip(canvas, image)]
    return Letterbox(
        scale=(inner[0] / image[0], inner[1] / image[1]),
        pad=((canvas[0] - inner[0]) // 2, (canvas[1] - inner[1]) // 2) if centred else (0, 0),
        canvas=(int(canvas[0]), int(canvas[1])),
        image=(int(image[0]), int(image[1])),
    )


def scaled_size(image: Tuple[int, int], *, sides: Tuple[int, ...]) -> Tuple[int, int]:
    """(height, width) of an image scaled so that its shorter side is ``sides[0]``, the longer at most ``sides[1]``.

    Rounded as DETR's own transforms round: the shorter side to a whole pixel, the longer one then cut.
    """
    shortest, longest = sides
    low, high = min(image), max(image)
    if high / low * shortest > longest:
        shortest = max(1, round(longest * low / high))
    if low == shortest:
        return image
    if image[1] < image[0]:
        return int(shortest * image[0] / image[1]), shortest
    return shortest, int(shortest * image[1] / image[0])


def lay(
    images: Sequence[Picture],
    info: ModelInfo,
    *,
    free: bool = False,
    out: Optional[NDArray[np.float32]] = None,
    threads: Optional[int] = None,
) -> Tuple[NDArray[np.float32], List[Letterbox]]:
    """A batch of images as a model wants its pixels, and the ways back.

    Args:
        images: (H, W, 3) uint8 RGB each, or CameraPictures; never written to.
        info: the model's canvas, normalisation and padding.
        free: where the model knows ``sides``, scale by them; the canvas is that of the largest picture.
        out: (B or more, 3, h, w) float32 to write to, where the canvas is fixed.
        threads: at most so many work on a large canvas; None: all cores, at most 4.

    Returns:
        (B, 3, h, w) float32, B as many as images, or ``out`` whole; and one Letterbox an image.

    Raises:
        TypeError, ValueError: as :func:`check_image` says.
    """
    images = [check_picture(image) for image in images]
    sizes = [size_of(image) for image in images]
    if free and info.sides:
        boxes = _plan_free(sizes, info.sides)
    else:
        boxes = [plan(size, canvas=info.canvas, centred=not info.marked) for size in sizes]
    if out is None:
        out = np.empty((len(images), 3, *boxes[0].canvas), np.float32)
    for image, box, pixels in zip(images, boxes, out):
        _fill(image, box, pixels, mean=info.mean, std=info.std, marked=info.marked, threads=threads)
    return out, boxes


def _plan_free(images: Sequence[Tuple[int, int]], sides: Tuple[int, ...]) -> List[Letterbox]:
    sizes = [scaled_size(image, sides=sides) for image in images]
    canvas = (max(size[0] for size in sizes), max(size[1] for size in sizes))
    return [
        Letterbox((size[0] / image[0], size[1] / image[1]), (0, 0), canvas, image)
        for size, image in zip(sizes, images)
    ]


def window(box: Letterbox) -> Tuple[int, int, int, int]:
    """What the image covers of the canvas: its first row and column, and how many of each."""
    height, width = (round(length * scale) for length, scale in zip(box.image, box.scale))
    return (*box.pad, height, width)


def _window(box: Letterbox) -> Tuple[slice, slice]:
    top, left, height, width = window(box)
    return slice(top, top + height), slice(left, left + width)


def planes(image: Picture) -> Tuple[NDArray[np.uint8], Optional[NDArray[np.uint8]], str, str]:
    """A picture as the native code takes one: plane, chroma or None, the names of layout and colours."""
    if isinstance(image, CameraPicture):
        return image.plane, image.chroma, image.layout, image.colours
    return image, None, "rgb", "bt601"


def _resize(image: NDArray[np.uint8], rows: slice, columns: slice) -> NDArray[np.uint8]:
    size = (columns.stop - columns.start, rows.stop - rows.start)
    image = np.ascontiguousarray(image)
    if (image.shape[1], image.shape[0]) == size:
        return image
    cv2 = _cv2()
    resized: NDArray[np.uint8] = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR)
    return resized


def letterbox_image(
    image: NDArray[np.uint8], *, canvas: Tuple[int, int]
) -> Tuple[NDArray[np.uint8], Letterbox]:
    """Lay an image on a grey canvas, bilinear, aspect kept, centred.

    Args:
        image: (H, W, 3) uint8, never written to.
        canvas: (height, width) in pixels.

    Returns:
        (h, w, 3) uint8 of its own memory, and the way back.

    Raises:
        TypeError, ValueError: as :func:`check_image` says.
    """
    image = check_image(image)
    box = plan(image.shape[:2], canvas=canvas)
    rows, columns = _window(box)
    out = np.full((*box.canvas, 3), PAD_VALUE, np.uint8)
    out[rows, columns] = _resize(image, rows, columns)
    return out, box


def letterbox(
    image: Picture,
    *,
    canvas: Tuple[int, int],
    mean: Sequence[float] = MEAN,
    std: Sequence[float] = STD,
    out: Optional[NDArray[Any]] = None,
    threads: Optional[int] = None,
) -> Tuple[NDArray[Any], Letterbox]:
    """The same as :func:`letterbox_image`, then (image / 255 - mean) / std, channels first.

    Where the extension is built, it reads the picture as it lies and writes every pixel of the canvas once. NumPy and
    OpenCV take its place elsewhere, with the same answer to the bit.

    Args:
        image: (H, W, 3) uint8 RGB, or a CameraPicture; never written to.
        canvas: (height, width) in pixels.
        mean: per channel, in [0, 1].
        std: per channel, in (0, 1].
        out: (3, h, w) float32, float16 or uint8 to write to, a float32 made where it is None. uint8 takes the levels
            as they are, without mean and std.
        threads: as :func:`lay` says.

    Returns:
        (3, h, w), and the way back.

    Raises:
        TypeError, ValueError: as :func:`check_image` says, or ``out`` does not fit.
    """
    image = check_picture(image)
    box = plan(size_of(image), canvas=canvas)
    if out is None:
        out = np.empty((3, *box.canvas), np.float32)
    elif out.shape != (3, *box.canvas) or out.dtype not in (np.float32, np.float16, np.uint8):
        raise ValueError(
            f"[letterbox] out must be float32 {(3, *box.canvas)}, or float16 or uint8, got {out.dtype} {out.shape}"
        )
    _fill(image, box, out, mean=mean, std=std, threads=threads)
    return out, box


def _fill(
    image: Picture,
    box: Letterbox,
    out: NDArray[Any],
    *,
    mean: Sequence[float],
    std: Sequence[float],
    marked: bool = False,
    threads: Optional[int] = None,
) -> None:
    """Write one image, normalised, into (3, h, w), on grey or on PADDING."""
    rows, columns = _window(box)
    size = (rows.stop - rows.start, columns.stop - columns.start)
    if marked and size[0] < box.image[0] and size[1] < box.image[1]:
        image = shrink(_to_rgb(image), size=size)
    normal = normalisation(mean, std, marked=marked, levels=out.dtype == np.uint8)
    written = native.find("letterbox")
    if written is None or out.strides[2] != out.itemsize:
        _fill_plain(_resize(_to_rgb(image), rows, columns), out, rows, columns, normal)
        return
    kinds, place = native.load(), (rows.start, columns.start, *size)
    plane, chroma, layout, colours = planes(image)
    layout, colours = getattr(kinds.PixelFormat, layout), getattr(kinds.Colours, colours)
    written(plane, chroma, layout, colours, place, normal, out, threads or _threads())


def _to_rgb(image: Picture) -> NDArray[np.uint8]:
    return image.to_rgb() if isinstance(image, CameraPicture) else image


def _threads() -> int:
    return min(4, os.cpu_count() or 1)


def normalisation(
    mean: Sequence[float], std: Sequence[float], *, marked: bool = False, levels: bool = False
) -> NDArray[np.float32]:
    """(3, 3): what levels of each channel are multiplied with, what is added, and what empty canvas holds."""
    scale = np.array([1, 1, 1] if levels else [1 / (255 * s) for s in std], np.float32)
    shift = np.array([0, 0, 0] if levels else [-m / s for m, s in zip(mean, std)], np.float32)
    empty = np.full(3, PADDING, np.float32) if marked else np.float32(PAD_VALUE) * scale + shift
    return np.stack([scale, shift, empty])


def _fill_plain(
    inner: NDArray[np.uint8],
    out: NDArray[Any],
    rows: slice,
    columns: slice,
    normal: NDArray[np.float32],
) -> None:
    """The same by OpenCV and NumPy, from the resized picture."""
    work = out if out.dtype == np.float32 else np.empty(out.shape, np.float32)
    for plane, level, scale, shift, empty in zip(work, _cv2().split(inner), *normal):
        _fill_border(plane, rows, columns, empty)
        window = plane[rows, columns]
        np.copyto(window, level)
        window *= scale
        window += shift
    if work is not out:
        out[...] = work


def _fill_border(plane: NDArray[np.float32], rows: slice, columns: slice, value: np.float32) -> None:
    plane[: rows.start] = value
    plane[rows.stop :] = value
    plane[rows, : columns.start] = value
    plane[rows, columns.stop :] = value
