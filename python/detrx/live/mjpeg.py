"""Motion JPEG over HTTP, as IP cameras and our own page send it."""

from __future__ import annotations

import base64
import http.client
import re
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Any, Callable, Dict, NamedTuple, Optional, Tuple
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import numpy as np
from numpy.typing import NDArray

from detrx.errors import SourceError
from detrx.live.capture import Reader
from detrx.live.health import BadFrame, decode_jpeg

MOST_BYTES = 32 << 20
"""The largest part that is waited for."""
CHUNK = 1 << 16
MOST_MOVES = 4

_LENGTH = re.compile(rb"content-length:\s*(\d{1,9})", re.IGNORECASE)
_BOUNDARY = re.compile(r'boundary="?([^";,]+)', re.IGNORECASE)


class MjpegReader(Reader):
    """The parts of a multipart/x-mixed-replace answer. What is no whole JPEG is a BadFrame, and the next is sought."""

    def __init__(self, answer: Any, boundary: str, connection: _Connection, *, name: str) -> None:
        self._answer, self._connection, self._name = answer, connection, name
        self._boundary = b"--" + boundary.strip().lstrip("-").encode("latin-1", "replace")
        self._buffer = bytearray()

    def read(self) -> Optional[NDArray[np.uint8]]:
        self._skip_past(self._boundary)
        head = self._until(b"\r\n\r\n")
        length = _LENGTH.search(head)
        if length is None or int(length.group(1)) > MOST_BYTES:
            return decode_jpeg(self._until(b"\xff\xd9"))
        size = int(length.group(1))
        while len(self._buffer) < size:
            self._fill()
        part = bytes(self._buffer[:size])
        if self._boundary in part:
            # The length was a lie: what follows the boundary is the next frame's.
            del self._buffer[: part.index(self._boundary)]
            raise BadFrame("a part shorter than it says")
        del self._buffer[:size]
        return decode_jpeg(part)

    def stop(self) -> None:
        self._connection.wake()

    def close(self) -> None:
        self._connection.close()

    def _skip_past(self, mark: bytes) -> None:
        while mark not in self._buffer:
            # The mark may lie across two chunks.
            del self._buffer[: max(0, len(self._buffer) - len(mark))]
            self._fill()
        del self._buffer[: self._buffer.index(mark) + len(mark)]

    def _until(self, mark: bytes) -> bytes:
        while mark not in self._buffer:
            if len(self._buffer) > MOST_BYTES:
                self._buffer.clear()
                raise BadFrame("a part without an end")
            self._fill()
        end = self._buffer.index(mark) + len(mark)
        part = bytes(self._buffer[:end])
        del self._buffer[:end]
        return part

    def _fill(self) -> None:
        try:
            chunk = self._answer.read1(CHUNK)
        except (OSError, ValueError, AttributeError) as error:
            raise SourceError(f"[open_source] {self._name} stopped sending: {error}") from None
        if not chunk:
            raise SourceError(f"[open_source] {self._name} closed the connection")
        self._buffer += chunk


def open_mjpeg(url: str, *, name: str, timeout: float) -> Optional[MjpegReader]:
    """Read a URL's answer as motion JPEG, or None where it is something else.

    Raises:
        SourceError: nobody answers, or not with a picture. No password is in the message.
    """
    for _ in range(MOST_MOVES):
        try:
            connection, answer = _ask(url, timeout)
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise SourceError(
                f"[open_source] {name} does not open: {error}; check address and port"
            ) from None
        moved = answer.getheader("Location")
        if answer.status // 100 != 3 or moved is None:
            return _read_answer(connection, answer, name)
        connection.close()
        url = urljoin(url, moved)
    raise SourceError(f"[open_source] {name} moved {MOST_MOVES} times; check the address")


class _Connection(NamedTuple):
    """What closes an answer, and what wakes its reader: the latter from another thread."""

    close: Callable[[], None]
    wake: Callable[[], None]


def _ask(url: str, timeout: float) -> Tuple[_Connection, http.client.HTTPResponse]:
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https"):
        raise ValueError("it moved to what is neither http nor https")
    kind = http.client.HTTPSConnection if parts.scheme == "https" else http.client.HTTPConnection
    connection = kind(parts.hostname or "", parts.port, timeout=timeout)
    connection.connect()
    socket: Any = connection.sock
    target = (parts.path or "/") + (f"?{parts.query}" if parts.query else "")
    connection.request("GET", target, headers=_headers(parts))
    answer = connection.getresponse()

    def close() -> None:
        answer.close()
        connection.close()

    def wake() -> None:
        with suppress(OSError):
            socket.shutdown(SHUT_RDWR)

    return _Connection(close, wake), answer


def _headers(parts: SplitResult) -> Dict[str, str]:
    """The user and password of the URL where HTTP wants them."""
    if parts.username is None:
        return {}
    pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}


def _read_answer(
    connection: _Connection, answer: http.client.HTTPResponse, name: str
) -> Optional[MjpegReader]:
    kind = answer.getheader("Content-Type", "")
    boundary = _BOUNDARY.search(kind)
    if answer.status == 200 and "multipart" in kind.lower() and boundary is not None:
        return MjpegReader(answer, boundary.group(1), connection, name=name)
    connection.close()
    if answer.status != 200:
        advice = "; check user and password" if answer.status in (401, 403) else ""
        raise SourceError(f"[open_source] {name} answers {answer.status} {answer.reason}{advice}")
    return None
