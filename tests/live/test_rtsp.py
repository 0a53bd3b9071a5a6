"""A real RTSP server on loopback: read, killed, found again; a wrong password is told and not shown."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from pathlib import Path

import pytest

from detrx.errors import SourceError
from detrx.live.source import open_source

pytest.importorskip("cv2")
SCRIPT = Path(__file__).with_name("rtsp_server.py")
PROBE = "import gi; gi.require_version('GstRtspServer', '1.0'); from gi.repository import GstRtspServer"


@lru_cache(maxsize=1)
def python_with_server() -> str | None:
    """A Python that has GStreamer's RTSP server: this one, or the system's."""
    for python in (sys.executable, "/usr/bin/python3"):
        if (
            Path(python).exists()
            and not subprocess.run([python, "-c", PROBE], capture_output=True, check=False).returncode
        ):
            inspect = shutil.which("gst-inspect-1.0")
            if (
                inspect
                and not subprocess.run([inspect, "x264enc"], capture_output=True, check=False).returncode
            ):
                return python
    return None


class Server:
    """Started on a port, killed without a word as a power cut does."""

    def __init__(self, port: int = 0, login: tuple[str, ...] = ()) -> None:
        self.port = port or free_port()
        python = python_with_server()
        if python is None:
            pytest.skip(
                "no RTSP server: apt install gir1.2-gst-rtsp-server-1.0 python3-gi gstreamer1.0-plugins-ugly"
            )
        self._process = subprocess.Popen(
            [python, str(SCRIPT), str(self.port), *login], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()
        if self._process.stdout is not None:
            self._process.stdout.close()


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port: int = found.getsockname()[1]
        return port


@pytest.fixture
def server() -> Iterator[Server]:
    found = Server()
    yield found
    found.kill()


def test_frames_arrive_with_their_times(server: Server) -> None:
    with open_source(f"rtsp://127.0.0.1:{server.port}/cam", timeout=15) as source:
        frames = [frame for frame, _ in zip(source, range(5))]
    assert frames[0].image.shape == (96, 160, 3)
    assert all(a.seconds < b.seconds for a, b in zip(frames, frames[1:]))


def test_a_killed_server_is_found_again(server: Server) -> None:
    states: list[str] = []
    source = open_source(
        f"rtsp://127.0.0.1:{server.port}/cam", timeout=8, on_state=lambda state: states.append(state.name)
    )
    frames = iter(source)
    next(frames)
    server.kill()
    deadline = time.monotonic() + 20
    while "lost" not in states and time.monotonic() < deadline:
        time.sleep(0.02)
    assert "lost" in states
    again = Server(server.port)
    try:
        # The first may be the one that was there before the loss.
        seen = [next(frames).index for _ in range(3)]
        assert seen == sorted(set(seen))
        assert source.reconnects >= 1
        assert source.state.name == "live"
    finally:
        source.close()
        again.kill()


def test_a_wrong_password_is_told_and_not_shown() -> None:
    server = Server(login=("me", "geheim"))
    try:
        with pytest.raises(SourceError) as caught:
            open_source(f"rtsp://me:falschwort@127.0.0.1:{server.port}/cam", timeout=10)
        assert "falschwort" not in str(caught.value)
        with open_source(f"rtsp://me:geheim@127.0.0.1:{server.port}/cam", timeout=15) as source:
            assert next(iter(source)).image.shape == (96, 160, 3)
    finally:
        server.kill()
