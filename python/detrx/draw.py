"""Masks, boxes, names and scores on a picture, or the segments that it is divided among."""

from __future__ import annotations

import colorsys
from typing import Any, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray

from detrx.errors import MissingBackendError, pip_install
from detrx.rle import bounds
from detrx.types import Detections, Panoptic

Colour = Tuple[int, int, int]

# Hues far apart first; lightness alternates, so that neighbours in the list differ twice.
_HUES = (0.01, 0.58, 0.12, 0.36, 0.78, 0.49, 0.92, 0.07, 0.66, 0.24, 0.85, 0.43)


def _cv2() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise MissingBackendError("OpenCV (cv2)", f"Type: {pip_install('cpu')}") from error
    return cv2


def colour(label: int) -> Colour:
    """The RGB colour of a class, the same in every picture."""
    turn, place = divmod(int(label), len(_HUES))
    light = (0.56, 0.44, 0.64)[(turn + place) % 3]
    red, green, blue = colorsys.hls_to_rgb((_HUES[place] + 0.035 * turn) % 1, light, 0.85)
    return round(255 * red), round(255 * green), round(255 * blue)


def draw(image: NDArray[np.uint8], found: Detections, *, scores: bool = True) -> NDArray[np.uint8]:
    """A copy of the image with its objects: line width and text follow the size of the picture.

    Args:
        image: (H, W, 3) uint8 RGB, never written to.
        found: in pixels of that image; the best ends on top. Masks shine through and have an outline. With tracks, each
            track has its number and colour.
        scores: write them behind the name.

    Returns:
        (H, W, 3) uint8 RGB of its own memory.
    """
    cv2 = _cv2()
    out = np.array(image, dtype=np.uint8, order="C")
    size = (out.shape[0] * out.shape[1]) ** 0.5
    width = max(1, round(size / 260))
    names, shades = _names(found), _shades(found)
    order = range(len(found) - 1, -1, -1)
    if found.masks is not None:
        for index in order:
            _mask(cv2, out, found.masks[index], shades[index], width)
    for index in order:
        x0, y0, x1, y1 = _corners(found.boxes[index], out.shape)
        cv2.rectangle(out, (x0, y0), (x1, y1), shades[index], width, cv2.LINE_AA)
    for index in order:
        text = f"{names[index]} {found.scores[index]:.2f}" if scores else names[index]
        label_tab(cv2, out, text, _corners(found.boxes[index], out.shape), shades[index], size)
    return out


def draw_panoptic(image: NDArray[np.uint8], found: Panoptic) -> NDArray[np.uint8]:
    """A copy of the image under its segments: each in the colour of its class, outlined, its name where it is widest.

    Args:
        image: (H, W, 3) uint8 RGB, never written to.
        found: how that image is divided.

    Returns:
        (H, W, 3) uint8 RGB of its own memory.
    """
    cv2 = _cv2()
    out = np.array(image, dtype=np.uint8, order="C")
    size = (out.shape[0] * out.shape[1]) ** 0.5
    shades = np.array([(0, 0, 0), *(colour(one.label) for one in found.segments)], np.float32)
    ids = np.array([0, *(one.id for one in found.segments)])
    order = np.argsort(ids)
    place = order[np.searchsorted(ids[order], found.segments_map)]
    inside = place > 0
    out[inside] = (0.45 * out[inside] + 0.55 * shades[place[inside]]).astype(np.uint8)
    out[_borders(cv2, place, max(1, round(size / 400)))] = (250, 250, 250)
    for one in sorted(found.segments, key=lambda segment: -segment.area):
        x, y, room = _widest(cv2, found.mask(one))
        if room * 100 >= size:  # a name on a speck would hide its neighbours
            label_tab(cv2, out, found.name(one), (x, y), colour(one.label), size, centred=True)
    return out


def mosaic(
    images: Sequence[NDArray[np.uint8]], *, columns: int, cell: Tuple[int, int] = (240, 320), gap: int = 6
) -> NDArray[np.uint8]:
    """Pictures side by side on dark grey, each fitted into a (height, width) cell.

    Raises:
        ValueError: no pictures.
    """
    if not images:
        raise ValueError("[mosaic] at least one image must be given")
    cv2 = _cv2()
    rows = -(-len(images) // columns)
    height, width = cell
    out = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), 24, np.uint8)
    for index, image in enumerate(images):
        scale = min(height / image.shape[0], width / image.shape[1])
        size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
        small = cv2.resize(image, size, interpolation=cv2.INTER_AREA)
        top = gap + (index // columns) * (height + gap) + (height - small.shape[0]) // 2
        left = gap + (index % columns) * (width + gap) + (width - small.shape[1]) // 2
        out[top : top + small.shape[0], left : left + small.shape[1]] = small
    return out


def _names(found: Detections) -> List[str]:
    """ "car", or "car #12" of a track."""
    tracks = [-1] * len(found) if found.tracks is None else found.tracks
    return [str(name) if track < 1 else f"{name} #{track}" for name, track in zip(found.names, tracks)]


def _shades(found: Detections) -> List[Colour]:
    """Of each object's track, else of its class."""
    tracks = found.labels if found.tracks is None else found.tracks
    return [colour(track if track > 0 else label) for track, label in zip(tracks, found.labels)]


def _corners(box: NDArray[np.float32], shape: Sequence[int]) -> List[int]:
    """Whole pixels inside the picture."""
    limits = (shape[1] - 1, shape[0] - 1, shape[1] - 1, shape[0] - 1)
    return [int(min(max(round(float(value)), 0), limit)) for value, limit in zip(box, limits)]


def _mask(cv2: Any, out: NDArray[np.uint8], mask: NDArray[np.bool_], shade: Colour, width: int) -> None:
    """Two fifths of the colour over the object, and its outline."""
    x0, y0, x1, y1 = bounds(mask)
    if x1 == 0:
        return
    part, inside = np.ascontiguousarray(out[y0:y1, x0:x1]), np.ascontiguousarray(mask[y0:y1, x0:x1])
    part[inside] = (0.6 * part[inside] + 0.4 * np.array(shade)).astype(np.uint8)
    lines, _ = cv2.findContours(inside.astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    cv2.drawContours(part, lines, -1, shade, max(1, width // 2), cv2.LINE_AA)
    out[y0:y1, x0:x1] = part


def _borders(cv2: Any, place: NDArray[np.intp], width: int) -> NDArray[np.bool_]:
    """(H, W) where one segment meets another, about ``width`` pixels wide."""
    edge = np.zeros(place.shape, np.uint8)
    edge[:, 1:] |= place[:, 1:] != place[:, :-1]
    edge[1:] |= place[1:] != place[:-1]
    wide: NDArray[np.bool_] = cv2.dilate(edge, np.ones((width, width), np.uint8)) > 0
    return wide


def _widest(cv2: Any, mask: NDArray[np.bool_]) -> Tuple[int, int, float]:
    """The pixel (x, y) of a mask that is farthest from its outside, the picture's edge included, and how far."""
    x0, y0, x1, y1 = bounds(mask)
    if x1 == 0:
        return 0, 0, 0.0
    part = np.pad(mask[y0:y1, x0:x1].astype(np.uint8), 1)
    _, far, _, (x, y) = cv2.minMaxLoc(cv2.distanceTransform(part, cv2.DIST_L2, 3))
    return x0 + x - 1, y0 + y - 1, float(far)


def label_tab(
    cv2: Any,
    out: NDArray[np.uint8],
    text: str,
    corners: Sequence[int],
    shade: Colour,
    size: float,
    *,
    centred: bool = False,
) -> None:
    """The name on a filled tab above the box, or inside it at the picture's upper edge; or around a point."""
    font = cv2.FONT_HERSHEY_SIMPLEX
    scale = max(0.32, size / 1150)
    thick = max(1, round(scale * 1.6))
    (width, height), below = cv2.getTextSize(text, font, scale, thick)
    margin = max(2, round(height * 0.35))
    tall, wide = height + below + margin, width + 2 * margin
    left = max(0, min(corners[0] - wide // 2 * centred, out.shape[1] - wide))
    above = tall // 2 if centred else tall
    top = corners[1] - above if corners[1] >= above else corners[1]
    cv2.rectangle(out, (left, top), (left + wide, top + tall), shade, -1)
    # Black or white, whichever the tab's brightness leaves readable.
    dark = 0.299 * shade[0] + 0.587 * shade[1] + 0.114 * shade[2] > 140
    ink = (16, 16, 16) if dark else (255, 255, 255)
    cv2.putText(out, text, (left + margin, top + margin // 2 + height), font, scale, ink, thick, cv2.LINE_AA)
