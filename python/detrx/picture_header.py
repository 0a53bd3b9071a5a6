"""What the first bytes of a picture say: format, size, orientation. Plain bytes in, nothing is opened or decoded.

Formats are told by their first bytes, never by a file's name.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import Dict, Optional, Tuple

HEAD = 1 << 14
"""Bytes from the start of a file that nearly always hold all that is asked for here."""
SAMPLES = 277
"""TIFF's tag of the channels."""

_ORIENTATION = 274
_PNG = b"\x89PNG\r\n\x1a\n"
_FRAME_MARKERS = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}


@dataclass(frozen=True)
class Header:
    """What the first bytes of a picture say."""

    kind: str
    """jpeg, png, bmp, webp, gif or tiff."""
    height: int
    """Pixels as stored, before the orientation is applied."""
    width: int
    orientation: int = 1
    """EXIF orientation, 1 to 8."""

    @property
    def shown(self) -> Tuple[int, int]:
        """(height, width) after the orientation is applied."""
        turned = self.orientation >= 5
        return (self.width, self.height) if turned else (self.height, self.width)


def parse(data: bytes) -> Optional[Header]:
    """Read the header from the start of a file; None: none of the known formats.

    Raises:
        IndexError, struct.error: it goes on beyond these bytes, or is damaged.
    """
    if data.startswith(b"\xff\xd8\xff"):
        return _parse_jpeg(data)
    if data.startswith(_PNG):
        return _parse_png(data)
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return _parse_webp(data)
    if data.startswith((b"GIF87a", b"GIF89a")):
        width, height = struct.unpack_from("<HH", data, 6)
        return Header("gif", height, width)
    if data.startswith(b"BM") and len(data) >= 26:
        return _parse_bmp(data)
    if data[:4] in (b"II*\0", b"MM\0*"):
        tags = tiff_tags(data)
        if 256 in tags and 257 in tags:
            return Header("tiff", tags[257], tags[256], _valid_orientation(tags.get(_ORIENTATION, 1)))
    return None


def _parse_jpeg(data: bytes) -> Header:
    """Walk the segments up to the frame header (ITU-T T.81, annex B)."""
    at, orientation = 2, 1
    while True:
        while data[at] == 0xFF and data[at + 1] == 0xFF:
            at += 1
        if data[at] != 0xFF:
            raise struct.error("no marker")
        marker = data[at + 1]
        (length,) = struct.unpack_from(">H", data, at + 2)
        if marker in _FRAME_MARKERS:
            height, width = struct.unpack_from(">HH", data, at + 5)
            return Header("jpeg", height, width, orientation)
        if marker == 0xE1 and data[at + 4 : at + 10] == b"Exif\0\0":
            orientation = _exif_orientation(data[at + 10 : at + 2 + length])
        if marker in (0xD9, 0xDA) or length < 2:
            raise struct.error("no frame header")
        at += 2 + length


def _parse_png(data: bytes) -> Header:
    """IHDR, and eXIf where it stands before the pixels (PNG specification, third edition)."""
    width, height = struct.unpack_from(">II", data, 16)
    at, orientation = 8, 1
    while at + 8 <= len(data):
        (length,), name = struct.unpack_from(">I", data, at), data[at + 4 : at + 8]
        if name == b"eXIf":
            orientation = _exif_orientation(data[at + 8 : at + 8 + length])
        if name in (b"IDAT", b"eXIf"):
            return Header("png", height, width, orientation)
        at += 12 + length
    raise struct.error("no pixels")


def _parse_bmp(data: bytes) -> Header:
    (size,) = struct.unpack_from("<I", data, 14)
    width, height = struct.unpack_from("<HH" if size == 12 else "<ii", data, 18)
    return Header("bmp", abs(height), width)


def _parse_webp(data: bytes) -> Header:
    """VP8, VP8L or VP8X (RFC 9649)."""
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = (side & 0x3FFF for side in struct.unpack_from("<HH", data, 26))
        return Header("webp", height, width)
    if kind == b"VP8L":
        (bits,) = struct.unpack_from("<I", data, 21)
        return Header("webp", ((bits >> 14) & 0x3FFF) + 1, (bits & 0x3FFF) + 1)
    if kind != b"VP8X":
        raise struct.error("unknown WebP chunk")
    width = int.from_bytes(data[24:27], "little") + 1
    height = int.from_bytes(data[27:30], "little") + 1
    return Header("webp", height, width, _webp_orientation(data) if data[20] & 8 else 1)


def _webp_orientation(data: bytes) -> int:
    at = 12
    while at + 8 <= len(data):
        (length,) = struct.unpack_from("<I", data, at + 4)
        if data[at : at + 4] == b"EXIF":
            return _exif_orientation(data[at + 8 : at + 8 + length])
        at += 8 + length + (length & 1)
    if at > len(data) >= HEAD:
        raise struct.error("EXIF lies beyond what was read")
    return 1


def _exif_orientation(exif: bytes) -> int:
    """1 where the block is damaged: a viewer would show the picture unturned as well."""
    try:
        tags = tiff_tags(exif[6:] if exif.startswith(b"Exif\0\0") else exif)
    except (IndexError, struct.error):
        return 1
    return _valid_orientation(tags.get(_ORIENTATION, 1))


def _valid_orientation(found: int) -> int:
    return found if 1 <= found <= 8 else 1


def tiff_tags(data: bytes) -> Dict[int, int]:
    """The first directory's tags that hold one 16- or 32-bit number (TIFF 6.0)."""
    order = "<" if data[:2] == b"II" else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    tags = {}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, _ = struct.unpack_from(order + "HHI", data, entry)
        if kind in (3, 4):
            (tags[tag],) = struct.unpack_from(order + ("H" if kind == 3 else "I"), data, entry + 8)
    return tags
