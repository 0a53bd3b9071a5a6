"""Fetching published weights from a local server that also truncates, corrupts and stalls."""

from __future__ import annotations

import hashlib
import os
import re
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from detrx.errors import ConfigError, DownloadError
from detrx.models import hub
from detrx.runtime.backend import find_model

BODY = os.urandom(1 << 20)
FILE = f"tiny-{hashlib.sha256(BODY).hexdigest()[:8]}.pth"


class Server(ThreadingHTTPServer):
    """Answers as ``plan`` says, one word for each request, the last for all later ones."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.plan: list[str] = ["fine"]
        self.asked: list[tuple[str, str | None]] = []
        self.resumes = True
        self.stop = threading.Event()
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, *args: Any) -> None:
        """A client that hangs up is part of the play."""


class Handler(BaseHTTPRequestHandler):
    server: Server

    def log_message(self, *args: Any) -> None:
        pass

    def do_GET(self) -> None:
        server = self.server
        word = server.plan.pop(0) if len(server.plan) > 1 else server.plan[0]
        asked = self.headers.get("Range")
        server.asked.append((self.path, asked))
        start = int(re.findall(r"\d+", asked)[0]) if asked and server.resumes else 0
        if word.isdigit():
            self.send_error(int(word))
            return
        if word == "loop":
            self.send_response(302)
            self.send_header("Location", self.path)
            self.end_headers()
            return
        if start >= len(BODY):
            self.send_error(416)
            return
        body = BODY[start:]
        if word == "corrupt":
            body = bytes([body[0] ^ 1]) + body[1:]
        if word == "html":
            body = b"<html>sign in</html>"
        self.send_response(206 if start else 200)
        announced = 2**50 if word == "huge" else len(body)
        if word != "nolength":
            self.send_header("Content-Length", str(announced))
        if start:
            begin = start + 7 if word == "elsewhere" else start
            self.send_header("Content-Range", f"bytes {begin}-{len(BODY) - 1}/{len(BODY)}")
        self.end_headers()
        if word == "half":
            body = body[: len(body) // 2]
        if word == "nothing":
            body = b""
        if word == "stall":
            self.wfile.write(body[:300000])
            self.wfile.flush()
            server.stop.wait(5)
            return
        if word == "drip":
            for i in range(60):
                self.wfile.write(body[i : i + 1])
                self.wfile.flush()
                if server.stop.wait(0.05):
                    return
            return
        self.wfile.write(body)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Server]:
    made = Server()
    monkeypatch.setattr(hub, "SOURCE", made.url + "/detr/")
    monkeypatch.setattr(hub, "FILES", {"tiny": FILE})
    monkeypatch.setattr(hub, "_PAUSE", 0.001)
    monkeypatch.setattr(hub, "TIMEOUT", 0.4)
    for name in ("DETRX_OFFLINE", "DETRX_MIRROR", "http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NO_PROXY", "*")
    monkeypatch.setenv("DETRX_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    yield made
    made.stop.set()
    made.shutdown()
    made.server_close()


def names(path: Path) -> list[str]:
    return sorted(p.name for p in path.parent.iterdir() if p.suffix != ".lock")


def test_once_and_then_from_the_cache(server: Server, tmp_path: Path) -> None:
    path = hub.fetch("tiny")
    assert path == tmp_path / "cache" / FILE
    assert path.read_bytes() == BODY
    assert names(path) == [FILE]
    assert hub.fetch("tiny") == path
    assert server.asked == [(f"/detr/{FILE}", None)]


@pytest.mark.parametrize("word", ["half", "stall", "503", "nothing"])
def test_goes_on_where_it_broke_off(server: Server, word: str) -> None:
    server.plan = [word, word, "fine"]
    assert hub.fetch("tiny").read_bytes() == BODY
    assert len(server.asked) == 3
    assert (server.asked[-1][1] is not None) == (word in ("half", "stall"))


def test_goes_on_after_the_process_was_killed(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{FILE}.part").write_bytes(BODY[:400000])
    assert hub.fetch("tiny").read_bytes() == BODY
    assert server.asked == [(f"/detr/{FILE}", "bytes=400000-")]


def test_a_part_that_is_damaged_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{FILE}.part").write_bytes(b"x" * 400000)
    assert hub.fetch("tiny").read_bytes() == BODY
    assert [asked for _, asked in server.asked] == ["bytes=400000-", None]


def test_a_part_that_is_too_long_is_dropped(server: Server, tmp_path: Path) -> None:
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / f"{FILE}.part").write_bytes(BODY + b"more")
    assert hub.fetch("tiny").read_bytes() == BODY


def test_a_server_that_cannot_resume(server: Server, tmp_path: Path) -> None:
    server.resumes, server.plan = False, ["half", "fine"]
    assert hub.fetch("tiny").read_bytes() == BODY


def test_a_server_that_resumes_elsewhere(server: Server) -> None:
    server.plan = ["half", "elsewhere", "fine"]
    assert hub.fetch("tiny").read_bytes() == BODY


def test_no_announced_length(server: Server) -> None:
    server.plan = ["nolength"]
    assert hub.fetch("tiny").read_bytes() == BODY


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("corrupt", "SHA-256 must begin with"),
        ("html", "SHA-256 must begin with"),
        ("404", "404"),
        ("403", "403"),
        ("loop", "302"),
        ("huge", "announces"),
        ("nothing", "0 of"),
        ("500", "500"),
        ("drip", "only .* bytes came"),
    ],
)
def test_what_never_gets_the_final_name(server: Server, tmp_path: Path, word: str, said: str) -> None:
    server.plan = [word]
    began = time.monotonic()
    with pytest.raises(DownloadError, match=said) as caught:
        hub.fetch("tiny")
    assert time.monotonic() - began < 5
    assert server.url in str(caught.value)
    assert "DETRX_MIRROR" in str(caught.value)
    assert not (tmp_path / "cache" / FILE).exists()


def test_a_source_that_stalls_for_good_keeps_what_came(server: Server, tmp_path: Path) -> None:
    server.plan = ["half", "nothing"]
    with pytest.raises(DownloadError):
        hub.fetch("tiny")
    assert (tmp_path / "cache" / f"{FILE}.part").stat().st_size == len(BODY) // 2
    server.plan = ["fine"]
    assert hub.fetch("tiny").read_bytes() == BODY


def test_mirrors_come_first_and_need_not_work(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETRX_MIRROR", f"{server.url}/a/ {server.url}/b")
    server.plan = ["404", "corrupt", "fine"]
    assert hub.fetch("tiny").read_bytes() == BODY
    assert [path for path, _ in server.asked] == [f"/a/{FILE}", f"/b/{FILE}", f"/detr/{FILE}"]


def test_a_mirror_that_is_no_url(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETRX_MIRROR", "file:///etc/")
    with pytest.raises(ConfigError, match="http or https"):
        hub.fetch("tiny")


def test_no_network(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "SOURCE", "http://127.0.0.1:9/")
    with pytest.raises(DownloadError, match="refused"):
        hub.fetch("tiny")


def test_offline(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETRX_OFFLINE", "1")
    with pytest.raises(DownloadError, match=r"DETRX_OFFLINE.*curl -O"):
        hub.fetch("tiny")
    assert server.asked == []
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / FILE).write_bytes(BODY)
    assert hub.fetch("tiny").read_bytes() == BODY


def test_what_torch_hub_fetched_is_used(server: Server, tmp_path: Path) -> None:
    theirs = tmp_path / "torch" / "hub" / "checkpoints" / FILE
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"damaged")
    assert hub.fetch("tiny", folder=tmp_path / "a") == tmp_path / "a" / FILE
    theirs.write_bytes(BODY)
    assert hub.fetch("tiny", folder=tmp_path / "b") == theirs


def test_a_full_disk(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub.shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    with pytest.raises(DownloadError, match=r"cannot be written.*DETRX_CACHE"):
        hub.fetch("tiny")
    assert len(server.asked) == 1


def test_a_folder_that_cannot_be_made(server: Server, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(DownloadError, match="cannot be written"):
        hub.fetch("tiny", folder=tmp_path / "file" / "sub")


def test_two_at_once_fetch_one_file(server: Server) -> None:
    found: list[Path] = []
    both = [threading.Thread(target=lambda: found.append(hub.fetch("tiny"))) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join(10)
    assert len(found) == 2
    assert found[0].read_bytes() == BODY
    assert len(server.asked) == 1


def test_progress_is_shown_with_the_size(server: Server, capsys: pytest.CaptureFixture[str]) -> None:
    hub.fetch("tiny", progress=True)
    assert "1.0/1.0 MB" in capsys.readouterr().err


def test_names(server: Server, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="must be one of tiny"):
        hub.fetch("huge")
    assert hub.local(tmp_path) == tmp_path
    assert find_model("tiny") == tmp_path / "cache" / FILE
    with pytest.raises(ConfigError, match="tiny"):
        find_model("tinny")


def test_the_published_seven() -> None:
    assert len(hub.FILES) == 7
    assert all(len(hub.wanted_hash(file)) == 8 and file.startswith(name) for name, file in hub.FILES.items())
    with pytest.raises(ConfigError, match="SHA-256"):
        hub.wanted_hash("weights.pth")
