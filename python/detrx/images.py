"""Picture files in, RGB pixels out: the header is believed only after it was checked, a broken file is an error.

Formats: JPEG, PNG, BMP, WebP, GIF and TIFF, told by their first bytes, never by their name. Conversion to (H, W, 3)
uint8 RGB: grey is repeated, a palette looked up, alpha laid on black, CMYK converted by the decoder, 16 bits scaled by
1/257, 1 bit becomes 0 and 255, and of an animation the first frame is taken. The EXIF orientation is applied, so boxes
always refer to the picture as it is shown.
"""

from __future__ import annotations

import os
import re
import stat
import struct
from typing import Any, Optional, Tuple, Union

import numpy as np
from numpy.typing import NDArray

from detrx.errors import DataError, MissingBackendError, pip_install
from detrx.picture_header import HEAD, SAMPLES, Header, parse, tiff_tags

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".gif", ".tif", ".tiff")
"""Lower-case suffixes that a folder of pictures is searched for."""

_NEXT_MARKER = re.compile(rb"\xff[^\x00\xd0-\xd7\xff]")
_MAY_FOLLOW_A_SCAN = frozenset((0xC4, 0xDA, 0xDB, 0xDC, 0xDD, 0xFE)) | frozenset(range(0xE0, 0xF0))

PathLike = Union[str, "os.PathLike[str]"]


def read_image(path: PathLike, *, max_pixels: int = 100_000_000) -> NDArray[np.uint8]:
    """Read a picture file.

    Returns:
        (H, W, 3) uint8 RGB as it is shown (EXIF applied), contiguous.

    Raises:
        DataError: not a regular file, not a picture, larger than max_pixels, truncated or corrupt.
        MissingBackendError: OpenCV is not installed.
    """
    data = _read_bytes(path)
    header = _checked_header(path, data, max_pixels)
    _check_complete(path, header, data)
    return _oriented(_decode(path, header, data), header)


def image_size(path: PathLike, *, max_pixels: int = 100_000_000) -> Tuple[int, int]:
    """The (height, width) of a picture as it is shown, from its header and its last bytes alone.

    Raises:
        DataError: not a regular file, not a picture, larger than max_pixels, or cut off.
    """
    return read_header(path, max_pixels=max_pixels).shown


def read_header(path: PathLike, *, max_pixels: int = 100_000_000) -> Header:
    """Format, size and orientation of a picture file; the pixels are not decoded.

    Raises:
        DataError: as image_size.
    """
    with _open_regular(path) as file:
        data = _read(path, file, HEAD)
        tail = _last_bytes(path, file)
        header = None
        if len(data) == HEAD:
            header = _header_of_part(data)
            if header is None:
                data += _read(path, file, -1)
        if header is None:
            header = _checked_header(path, data, max_pixels)
        else:
            _check_pixels(path, header, max_pixels)
        if not _ends_well(header, tail):
            file.seek(0)
            _check_complete(path, header, _read(path, file, -1))
    return header


def opencv() -> Any:
    """The cv2 module.

    Raises:
        MissingBackendError: it is not installed.
    """
    try:
        import cv2
    except ImportError as error:
        raise MissingBackendError("OpenCV (cv2)", f"Type: {pip_install('cpu')}") from error
    return cv2


def _refuse(
    path: PathLike, found: str, remedy: str = "Replace the file or take it out of the data set."
) -> DataError:
    return DataError(f"[read_image] {os.fspath(path)!r}: a picture must be readable, but {found}. {remedy}")


def _open_regular(path: PathLike) -> Any:
    """Open without waiting (a FIFO would block for ever) and refuse all but regular files."""
    try:
        handle = os.open(
            os.fspath(path), os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
        )
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise _refuse(
            path, f"it cannot be opened ({reason})", "Check the path and its permissions."
        ) from error
    try:
        regular = stat.S_ISREG(os.fstat(handle).st_mode)
    except OSError as error:
        os.close(handle)
        raise _refuse(path, f"it cannot be examined ({error.strerror})") from error
    if not regular:
        os.close(handle)
        raise _refuse(path, "it is not a regular file")
    return os.fdopen(handle, "rb", buffering=0)


def _read(path: PathLike, file: Any, count: int) -> bytes:
    try:
        data: bytes = file.read(count)
    except OSError as error:
        raise _refuse(path, f"reading it failed ({error.strerror})") from error
    return data


def _read_bytes(path: PathLike) -> bytes:
    with _open_regular(path) as file:
        return _read(path, file, -1)


def _last_bytes(path: PathLike, file: Any) -> bytes:
    here = file.tell()
    file.seek(max(0, os.fstat(file.fileno()).st_size - 12))
    tail = _read(path, file, 12)
    file.seek(here)
    return tail


def _checked_header(path: PathLike, data: bytes, max_pixels: int) -> Header:
    if not data:
        raise _refuse(path, "it has zero bytes")
    start = data[:512].lstrip().lower()
    if start.startswith((b"<!doctype html", b"<html", b"<?xml", b"<svg")):
        raise _refuse(path, "it holds HTML or XML, as a failed download does", "Download it again.")
    try:
        header = parse(data)
    except (IndexError, struct.error) as error:
        raise _refuse(path, "its header is cut off") from error
    if header is None:
        raise _refuse(path, f"it is none of JPEG, PNG, BMP, WebP, GIF, TIFF (it starts with {data[:8]!r})")
    _check_pixels(path, header, max_pixels)
    return header


def _check_pixels(path: PathLike, header: Header, max_pixels: int) -> None:
    if header.height < 1 or header.width < 1:
        raise _refuse(path, f"its header says {header.width} x {header.height} pixels")
    if header.height * header.width > max_pixels:
        found = f"its header says {header.width} x {header.height} pixels, more than max_pixels={max_pixels}"
        raise _refuse(path, found, "Shrink it, or pass a larger max_pixels if you trust it.")


def _header_of_part(data: bytes) -> Optional[Header]:
    try:
        return parse(data)
    except (IndexError, struct.error):
        return None


def _ends_well(header: Header, tail: bytes) -> bool:
    """Whether the last bytes alone prove that nothing was cut off; False asks for a closer look."""
    if header.kind == "jpeg":
        return tail.endswith(b"\xff\xd9")
    if header.kind == "png":
        return tail[4:8] == b"IEND"
    return header.kind != "webp"


def _check_complete(path: PathLike, header: Header, data: bytes) -> None:
    """OpenCV 4 fills what is missing with grey and says nothing: look for the end of the file's own format."""
    if header.kind == "jpeg":
        _check_scans(path, data)
    elif header.kind == "png" and b"IEND" not in data[-4096:]:
        raise _refuse(path, "the PNG is cut off: it has no end chunk")
    elif header.kind == "webp" and len(data) < 8 + int.from_bytes(data[4:8], "little"):
        raise _refuse(path, "the WebP is cut off")


def _check_scans(path: PathLike, data: bytes) -> None:
    """Walk a JPEG's scans to its end marker; only markers that the standard allows may stand between them."""
    at, scans, progressive = 2, 0, False
    while at + 4 <= len(data) or data[at : at + 2] == b"\xff\xd9":
        marker = data[at + 1]
        if marker == 0xD9 and scans:
            return
        if marker == 0xFF:
            at += 1
            continue
        if data[at] != 0xFF or (scans and marker not in _MAY_FOLLOW_A_SCAN):
            raise _refuse(path, f"the JPEG is corrupt at byte {at}")
        progressive |= marker in (0xC2, 0xC6, 0xCA, 0xCE)
        at += 2 + struct.unpack_from(">H", data, at + 2)[0]
        if marker == 0xDA:
            scans += 1
            found = _NEXT_MARKER.search(data, at)
            if found is None:
                break
            at = found.start()
    raise _refuse(path, "the JPEG is cut off: it has no end marker")


def _decode(path: PathLike, header: Header, data: bytes) -> NDArray[np.uint8]:
    found = _decode_with_opencv(path, header, data)
    if found is None:
        found = _decode_with_pillow(path, header)
    if found.shape[:2] not in ((header.height, header.width), header.shown):
        raise _refuse(
            path, f"its header says {header.height} x {header.width}, its pixels are {found.shape[:2]}"
        )
    image = _to_rgb(path, found)
    if header.kind == "jpeg" and _is_grey_below(image) and _wants_more_data(data, found):
        raise _refuse(path, "the JPEG is corrupt: its data end before its last row")
    return image


def _decode_with_opencv(path: PathLike, header: Header, data: bytes) -> Optional[NDArray[Any]]:
    """Grey or BGR, perhaps with alpha; None where OpenCV does not know the kind or finds it corrupt."""
    cv2 = opencv()
    if header.kind == "tiff" and tiff_tags(data).get(SAMPLES) == 2:
        return None  # OpenCV would drop the alpha of grey
    try:
        found: Optional[NDArray[Any]] = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_UNCHANGED)
    except cv2.error as error:
        raise _refuse(path, f"OpenCV cannot decode it ({error})") from error
    if found is not None and header.kind == "tiff" and found.ndim == 3 and found.dtype == np.uint8:
        return found[..., :3]  # OpenCV's TIFF reader has laid the alpha on black already
    return found


def _decode_with_pillow(path: PathLike, header: Header) -> NDArray[Any]:
    """BGR and alpha of the kinds that OpenCV, mostly older ones, cannot read, where Pillow happens to be installed."""
    refused = _refuse(
        path, f"OpenCV cannot decode this {header.kind.upper()}: corrupt, or a kind that it does not know"
    )
    if header.kind not in ("gif", "webp", "tiff"):
        raise refused
    try:
        from PIL import Image, ImageOps
    except ImportError:
        raise refused from None
    try:
        with Image.open(os.fspath(path)) as picture:
            shown = ImageOps.exif_transpose(picture) if header.kind == "tiff" else picture
            rgba = np.asarray(shown.convert("RGBA"))
    except (
        OSError,
        ValueError,
        SyntaxError,
        Warning,
        Image.DecompressionBombError,
    ) as error:  # warnings may be errors
        raise refused from error
    return np.ascontiguousarray(rgba[..., [2, 1, 0, 3]])


def _to_rgb(path: PathLike, found: NDArray[Any]) -> NDArray[np.uint8]:
    cv2 = opencv()
    if found.dtype == np.uint16:
        found = ((found.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if found.dtype != np.uint8:
        raise _refuse(path, f"its pixels are {found.dtype}", "Convert it to 8 or 16 bits a channel.")
    if found.ndim == 2 or found.shape[2] == 1:
        return np.asarray(cv2.cvtColor(found, cv2.COLOR_GRAY2RGB), np.uint8)
    if found.shape[2] == 4:
        alpha = found[..., 3:].astype(np.uint16)
        return np.ascontiguousarray(((found[..., 2::-1] * alpha + 127) // 255).astype(np.uint8))
    if found.shape[2] != 3:
        raise _refuse(path, f"it has {found.shape[2]} channels", "Convert it to RGB.")
    return np.asarray(cv2.cvtColor(found, cv2.COLOR_BGR2RGB), np.uint8)


def _oriented(image: NDArray[np.uint8], header: Header) -> NDArray[np.uint8]:
    """Turn and mirror as EXIF orientation 1 to 8 says (rows: where row 0 of the file lies, then column 0)."""
    if header.kind == "tiff":
        return image
    if header.orientation >= 5:
        image = image.transpose(1, 0, 2)
    if header.orientation in (3, 4, 7, 8):
        image = image[::-1]
    if header.orientation in (2, 3, 6, 7):
        image = image[:, ::-1]
    return np.ascontiguousarray(image)


def _is_grey_below(image: NDArray[np.uint8]) -> bool:
    """Whether the last rows are the exact grey with which a JPEG decoder fills what is missing."""
    return bool((image[-8:] == 128).all())


def _wants_more_data(data: bytes, found: NDArray[Any]) -> bool:
    """Whether bytes put in before the end marker change the picture: a complete scan would not read them."""
    cv2 = opencv()
    end = data.rfind(b"\xff\xd9")
    longer = data[:end] + bytes(range(1, 129)) + data[end:]
    again = cv2.imdecode(np.frombuffer(longer, np.uint8), cv2.IMREAD_UNCHANGED)
    return again is not None and not np.array_equal(again, found)
