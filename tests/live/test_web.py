"""Where the page is served, for whom, and how it ends."""

from __future__ import annotations

import runpy
import socket
import threading
import time
from pathlib import Path

import pytest

from detrx.errors import ConfigError
from detrx.live.web import DEFAULT, Address, PageConfig, WebPage, parse_address

cv2 = pytest.importorskip("cv2")
WEB = runpy.run_path(str(Path(__file__).with_name("web_clients.py")))
NAMES, TIMES = WEB["NAMES"], WEB["TIMES"]
a_frame, some, a_page, port_of, ask, until, watch_stream = (
    WEB[name] for name in ("a_frame", "some", "a_page", "port_of", "ask", "until", "watch_stream")
)


def test_other_machines_need_the_token() -> None:
    with a_page("0.0.0.0:0") as page:
        token = page.url.partition("?token=")[2]
        assert len(token) >= 32
        for path in ("/", "/stream", "/events", "/status.json", "/snapshot.jpg", "/nothing"):
            assert ask(page, path)[0] == 401
            assert ask(page, f"{path}?token={token[:-1]}")[0] == 401
        assert ask(page, "/settings", "POST", "{}", Content_Type="application/json")[0] == 401
        status, headers, _ = ask(page, f"/?token={token}")
        assert (status, headers["location"]) == (303, "/")
        cookie = headers["set-cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Lax" in cookie
        held = cookie.partition(";")[0]
        assert ask(page, "/", Cookie=f"other=1; {held}")[0] == 200
        assert ask(page, "/", Cookie=held[:-1])[0] == 401
        assert ask(page, "/status.json", Authorization=f"Bearer {token}")[0] == 200
        assert ask(page, f"/status.json?token={token}")[0] == 200
        assert ask(page, "/", Host="camera.local", Cookie=held)[0] == 200


def test_a_token_of_ones_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETRX_WEB_TOKEN", "short")
    with pytest.raises(ConfigError, match="DETRX_WEB_TOKEN"):
        a_page("0.0.0.0:0")
    monkeypatch.setenv("DETRX_WEB_TOKEN", "0123456789abcdef")
    with a_page("0.0.0.0:0") as page:
        assert page.url.endswith("?token=0123456789abcdef")
    with a_page() as page:
        assert "token" not in page.url


@pytest.mark.parametrize(
    ("text", "host", "port", "local"),
    [
        ("8080", "127.0.0.1", 8080, True),
        (":8080", "127.0.0.1", 8080, True),
        ("localhost:80", "127.0.0.1", 80, True),
        ("[::1]:80", "::1", 80, True),
        ("0.0.0.0:9", "0.0.0.0", 9, False),
        ("[::]:9", "::", 9, False),
        ("camera.local:9", "camera.local", 9, False),
        (DEFAULT, "127.0.0.1", 8080, True),
    ],
)
def test_addresses(text: str, host: str, port: int, local: bool) -> None:
    found = parse_address(text)
    assert found == Address(host, port)
    assert found.local is local


@pytest.mark.parametrize("text", ["", "http://localhost:80", "a b:80", "host", ":70000", "a:b"])
def test_what_is_no_address(text: str) -> None:
    with pytest.raises(ConfigError, match="HOST:PORT"):
        parse_address(text)


def test_a_port_that_is_taken(page: WebPage) -> None:
    with pytest.raises(ConfigError, match="another port"):
        a_page(f"127.0.0.1:{port_of(page)}")
    with pytest.raises(ConfigError, match="width"):
        PageConfig(quality=0)


def test_closing_is_quick_and_ends_every_thread() -> None:
    before = set(threading.enumerate())
    page = a_page()
    page.take(a_frame(0, size=(480, 640)), some(), TIMES)
    clients = [watch_stream(page, path) for path in ("/stream", "/events", "/stream")]
    idle = socket.create_connection(("127.0.0.1", port_of(page)))
    until(lambda: page._server.connections == 4)
    begun = time.monotonic()
    page.close()
    page.close()
    assert time.monotonic() - begun < 2
    until(lambda: set(threading.enumerate()) <= before, seconds=2)
    for connection in (*clients, idle):
        connection.close()
    again = a_page(f"127.0.0.1:{port_of(page)}")
    again.close()
