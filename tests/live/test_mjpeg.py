"""Motion JPEG over HTTP from a small server that also stalls, truncates, lies and goes away."""

from __future__ import annotations

import base64
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import pytest

from detrx.errors import SourceError
from detrx.live.source import open_source

cv2 = pytest.importorskip("cv2")
NOISE = np.random.default_rng(0)


def jpeg() -> bytes:
    picture = NOISE.integers(0, 256, (48, 64, 3), dtype=np.uint8)
    return cv2.imencode(".jpg", picture)[1].tobytes()


def part(body: bytes, length: int | None = -1) -> bytes:
    said = b"" if length is None else b"Content-Length: %d\r\n" % (len(body) if length < 0 else length)
    return b"--frame\r\nContent-Type: image/jpeg\r\n" + said + b"\r\n" + body + b"\r\n"


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.server.asked += 1  # type: ignore[attr-defined]
        name = self.path.strip("/").partition("?")[0]
        if name == "moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            return
        wanted = "Basic " + base64.b64encode(b"me:ge@heim").decode()
        if name == "locked" and self.headers.get("Authorization") != wanted:
            self.send_error(401)
            return
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=frame")
        self.end_headers()
        try:
            getattr(self, f"give_{name}", self.give_good)()
        except OSError:
            return

    def send(self, data: bytes) -> None:
        self.wfile.write(data)
        time.sleep(0.01)

    def give_good(self) -> None:
        while not self.server.stopped:  # type: ignore[attr-defined]
            self.send(part(jpeg()))

    def give_nolength(self) -> None:
        while not self.server.stopped:  # type: ignore[attr-defined]
            self.send(part(jpeg(), None))

    def give_rubbish(self) -> None:
        while not self.server.stopped:  # type: ignore[attr-defined]
            whole = jpeg()
            self.send(part(whole[: len(whole) // 2]))
            self.send(part(whole, 20))
            self.send(part(whole, len(whole) + 300))
            self.send(b"\xff\xd8 rubbish without an end \r\n")
            self.send(part(b"no picture at all"))
            self.send(part(whole))
            self.send(part(whole))

    def give_stall(self) -> None:
        self.send(part(jpeg()))
        self.send(part(jpeg()))
        if self.server.asked < 2:  # type: ignore[attr-defined]
            self.server.free.wait(20)  # type: ignore[attr-defined]
        else:
            self.give_good()

    def give_short(self) -> None:
        self.send(part(jpeg()))
        self.send(part(jpeg())[:200])

    def log_message(self, *_: object) -> None:
        """Not to the test's output."""


class Server(ThreadingHTTPServer):
    daemon_threads = True
    asked = 0
    stopped = False

    def __init__(self, port: int = 0) -> None:
        super().__init__(("127.0.0.1", port), Handler)
        self.free = threading.Event()
        threading.Thread(target=self.serve_forever, args=(0.05,), daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def stop(self) -> None:
        self.stopped = True
        self.free.set()
        self.shutdown()
        self.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.stop()


def take(source: Any, count: int) -> int:
    found = 0
    for frame in source:
        assert frame.image.shape == (48, 64, 3)
        found += 1
        if found == count:
            break
    return found


@pytest.mark.parametrize("name", ["good", "nolength", "moved"])
def test_frames_arrive(server: Server, name: str) -> None:
    with open_source(f"{server.url}/{name}") as source:
        assert take(source, 5) == 5
        assert (source.live, source.corrupt, source.state.name) == (True, 0, "live")


def test_rubbish_is_counted_and_the_rest_arrives(server: Server) -> None:
    with open_source(f"{server.url}/rubbish") as source:
        assert take(source, 6) == 6
        assert source.corrupt >= 4
        assert source.reconnects == 0


def test_a_stall_is_a_loss_and_comes_back(server: Server) -> None:
    with open_source(f"{server.url}/stall", timeout=0.5) as source:
        assert take(source, 6) == 6
        assert source.reconnects == 1


def test_a_password_is_sent_and_kept_secret(server: Server) -> None:
    place = server.url.replace("http://", "")
    with open_source(f"http://me:ge%40heim@{place}/locked") as source:
        assert take(source, 2) == 2
        assert "heim" not in source.name
    with pytest.raises(SourceError, match="401") as caught:
        open_source(f"http://me:wrongword@{place}/locked")
    assert "wrongword" not in str(caught.value)


def test_a_server_that_restarts_is_found_again() -> None:
    states: list[str] = []
    first = Server()
    port = first.server_port
    source = open_source(f"{first.url}/good", timeout=1, on_state=lambda state: states.append(state.name))
    assert take(source, 3) == 3
    first.stop()
    deadline = time.monotonic() + 10
    while "lost" not in states and time.monotonic() < deadline:
        time.sleep(0.02)
    second = Server(port)
    assert take(source, 30) == 30
    source.close()
    second.stop()
    assert states[:3] == ["connecting", "live", "lost"]
    assert source.reconnects >= 1


def test_an_answer_cut_off_is_a_loss(server: Server) -> None:
    source = open_source(f"{server.url}/short", timeout=0.5, retry=0)
    with pytest.raises(SourceError, match="closed the connection"):
        take(source, 5)


def test_nobody_there() -> None:
    with pytest.raises(SourceError, match="does not open"):
        open_source("http://127.0.0.1:9/stream", timeout=1)
