"""What tests of the web page share: a page with frames in it, and clients of it that speak HTTP."""

from __future__ import annotations

import http.client
import json
import re
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from detrx.live.web import PageConfig, WebPage
from detrx.types import Detections, Frame

cv2 = pytest.importorskip("cv2")
NAMES = ("disc", "star", "ring")
TIMES = (0.001, 0.002, 0.003, 0.001, 0.0, 0.0)


def a_frame(index: int, *, size: tuple[int, int] = (48, 64)) -> Frame:
    image = np.random.default_rng(index).integers(0, 255, (*size, 3)).astype(np.uint8)
    return Frame(image, index, index / 30, "test")


def some(scores: tuple[float, ...] = (0.9, 0.6, 0.2)) -> Detections:
    boxes = np.array([[4, 4, 20, 20], [20, 8, 40, 30], [30, 20, 60, 44]], np.float32)[: len(scores)]
    labels = np.arange(len(scores)) % len(NAMES)
    return Detections(boxes, np.array(scores, np.float32), labels.astype(np.int64), NAMES)


def a_page(address: str = "127.0.0.1:0", **settings: Any) -> WebPage:
    return WebPage(
        address, names=NAMES, threshold=0.5, title="test://x", model="none", config=PageConfig(**settings)
    )


def port_of(page: WebPage) -> int:
    found = re.match(r"http://[^/]*:(\d+)/", page.url)
    assert found is not None
    return int(found[1])


def ask(
    page: WebPage, path: str, method: str = "GET", body: str | None = None, **headers: str
) -> tuple[int, dict[str, str], bytes]:
    """One request; a header named with underscores has hyphens."""
    connection = http.client.HTTPConnection("127.0.0.1", port_of(page), timeout=10)
    try:
        given = {name.replace("_", "-"): value for name, value in headers.items()}
        connection.request(method, path, body, given)
        answer = connection.getresponse()
        return answer.status, {key.lower(): value for key, value in answer.getheaders()}, answer.read()
    finally:
        connection.close()


def raw(page: WebPage, content: bytes) -> bytes:
    """Everything that comes back for these bytes."""
    with socket.create_connection(("127.0.0.1", port_of(page)), timeout=10) as connection:
        connection.sendall(content)
        answer = b""
        while True:
            part = connection.recv(65536)
            if not part:
                return answer
            answer += part


def change(page: WebPage, content: object, **headers: str) -> tuple[int, dict[str, Any]]:
    given = {"Content_Type": "application/json", **headers}
    status, _, body = ask(page, "/settings", "POST", json.dumps(content), **given)
    return status, json.loads(body) if body.startswith(b"{") else {}


def until(true: Callable[[], bool], *, seconds: float = 10.0) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "it did not come true in time"
        time.sleep(0.01)


def drip(connection: socket.socket) -> None:
    for _ in range(100):
        connection.sendall(b"X")
        time.sleep(0.1)


def watch_stream(page: WebPage, path: str = "/stream") -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port_of(page)), timeout=10)
    connection.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    return connection
