"""Who is let in, and that no client slows the loop or keeps a place for ever (faults row 63)."""

from __future__ import annotations

import json
import runpy
import socket
import threading
from pathlib import Path

import pytest

from detrx.live import web_routes, web_server
from detrx.live.web import WebPage
from detrx.types import Frame

cv2 = pytest.importorskip("cv2")
WEB = runpy.run_path(str(Path(__file__).with_name("web_clients.py")))
NAMES, TIMES = WEB["NAMES"], WEB["TIMES"]
a_frame, some, a_page, port_of, ask, raw, until, drip, watch_stream = (
    WEB[name]
    for name in ("a_frame", "some", "a_page", "port_of", "ask", "raw", "until", "drip", "watch_stream")
)


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8080", "127.0.0.1.evil.example", "[::2]:80"])
def test_a_name_that_is_not_ours_is_refused(fed: WebPage, host: str) -> None:
    """DNS rebinding: another site's name that points here."""
    for path in ("/", "/stream", "/settings"):
        assert ask(fed, path, Host=host)[0] == 421


@pytest.mark.parametrize("host", ["localhost", "LOCALHOST:9", "127.0.0.1:1", "[::1]:8080"])
def test_a_forwarded_port_is_let_in(fed: WebPage, host: str) -> None:
    assert ask(fed, "/", Host=host)[0] == 200


@pytest.mark.parametrize(
    "path", ["/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd", "//etc/passwd", "/live.html", "/stream/", "/."]
)
def test_nothing_but_the_routes_is_there(fed: WebPage, path: str) -> None:
    status, _, body = ask(fed, path)
    assert (status, body) == (404, b"404 Not Found\n")


def test_methods(fed: WebPage) -> None:
    for path in ("/", "/stream", "/events", "/status.json", "/snapshot.jpg", "/settings"):
        status, headers, body = ask(fed, path, "HEAD")
        assert (status, body) == (200, b"")
        assert "content-type" in headers
    for method in ("PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(fed, "/settings", method)[:1] == (405,)
    status, headers, _ = ask(fed, "/stream", "POST")
    assert (status, headers["allow"]) == (405, "GET, HEAD")
    assert ask(fed, "/settings", "PUT")[1]["allow"] == "GET, HEAD, POST"
    assert ask(fed, "/", "BREW")[0] == 501


@pytest.mark.parametrize(
    ("content", "status"),
    [
        (b"GET / HTTP/1.1\r\n\r\n", b" 421 "),
        (b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\n\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\nX: " + b"a" * 20_000 + b"\r\n\r\n", b" 431 "),
        (b"GET / HTTP/1.1\r\nHost: localhost\r\n" + b"X: a\r\n" * 150 + b"\r\n", b" 431 "),
        (b"GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n", b" 400 "),
        (b"\x16\x03\x01 rubbish\r\n\r\n", b"400 "),
        (b"GET / HTTP/9.9\r\nHost: localhost\r\n\r\n", b" 505 "),
    ],
)
def test_bad_requests(fed: WebPage, content: bytes, status: bytes) -> None:
    assert status in raw(fed, content).splitlines()[0]
    assert ask(fed, "/")[0] == 200


def test_a_dripping_request_is_hung_up_on(fed: WebPage, monkeypatch: pytest.MonkeyPatch) -> None:
    """Slow-loris: a byte now and then, within every wait for a byte, but not within the whole."""
    monkeypatch.setattr(web_server, "READ_SECONDS", 0.5)
    with socket.create_connection(("127.0.0.1", port_of(fed)), timeout=5) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n")
        with pytest.raises((ConnectionResetError, BrokenPipeError)):
            drip(connection)
    until(lambda: fed._server.connections == 0)


def test_an_idle_or_half_open_connection_times_out(fed: WebPage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(web_server, "READ_SECONDS", 0.3)
    monkeypatch.setattr(web_server, "SEND_SECONDS", 0.3)
    monkeypatch.setattr(web_routes, "BEAT", 0.1)
    idle = socket.create_connection(("127.0.0.1", port_of(fed)), timeout=5)
    with idle, watch_stream(fed) as silent:
        until(lambda: fed._server.connections == 1)  # the idle one is gone, whatever it never asked
        fed.take(a_frame(1, size=(2000, 3000)), some(), TIMES)
        until(lambda: fed._server.connections == 0)  # as is the one that never reads
        silent.close()


def test_one_too_many_is_told_so() -> None:
    with a_page(clients=2) as page:
        page.take(a_frame(0), some(), TIMES)
        with watch_stream(page), watch_stream(page):
            until(lambda: page._feed.looking == 2)
            answer = raw(page, b"")
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert page._server.refused == 1
        page.take(a_frame(1), some(), TIMES)
        until(lambda: page._server.connections == 0)
        assert ask(page, "/")[0] == 200


def test_fifty_slow_clients_do_not_hold_the_loop_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """They read nothing: the loop's calls still return at once, memory is bounded, and a quick client sees all."""
    monkeypatch.setattr(web_server, "SEND_SECONDS", 60.0)
    with a_page(clients=64) as page:
        frames = [a_frame(index, size=(480, 640)) for index in range(8)]
        page.take(frames[0], some(), TIMES)
        slow = [watch_stream(page) for _ in range(50)]
        try:
            until(lambda: page._feed.looking == 50)
            quick = watch_stream(page)
            slow.append(quick)
            until(lambda: page._feed.looking == 51)
            reader = quick.makefile("rb")
            threads = threading.active_count()
            seen: set[bytes] = set()
            for index in range(1, 120):
                page.take(Frame(frames[index % 8].image, index, index / 30), some(), TIMES)
                seen |= {line for line in iter(reader.readline, b"\r\n") if line.startswith(b"X-Frame")}
            # Every client that reads nothing holds its one picture, not a queue of them.
            assert page._feed._waiting <= 51
            assert page._feed.encoded <= 120
            assert len(seen) > 2
            assert threading.active_count() <= threads
            assert json.loads(ask(page, "/status.json")[2])["frame"] == 119
            reader.close()
        finally:
            for connection in slow:
                connection.close()
        page.take(a_frame(200), some(), TIMES)
        until(lambda: page._server.connections == 0)
