"""What the web page's server answers, over real sockets."""

from __future__ import annotations

import json
import re
import runpy
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from detrx.live.frames import State
from detrx.live.source import open_source
from detrx.live.web import WebPage
from detrx.live.web_feed import Look

cv2 = pytest.importorskip("cv2")
WEB = runpy.run_path(str(Path(__file__).with_name("web_clients.py")))
NAMES, TIMES = WEB["NAMES"], WEB["TIMES"]
a_frame, some, a_page, port_of, ask, raw, change, watch_stream = (
    WEB[name] for name in ("a_frame", "some", "a_page", "port_of", "ask", "raw", "change", "watch_stream")
)


def test_the_page_is_one_file_that_needs_no_other(fed: WebPage) -> None:
    status, headers, body = ask(fed, "/")
    text = body.decode()
    assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
    assert not re.search(r"(src|href)=\"(?!data:)", text), "the page loads something"
    assert not re.search(r"\son\w+=\"| style=\"", text), "its own policy forbids inline handlers and styles"
    assert "default-src 'none'" in headers["content-security-policy"]
    assert headers["content-security-policy"].count("sha256-") == 3
    assert "unsafe" not in headers["content-security-policy"]
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["x-frame-options"] == "DENY"
    assert headers["cross-origin-resource-policy"] == "same-origin"


def test_numbers_as_json(fed: WebPage) -> None:
    status = json.loads(ask(fed, "/status.json")[2])
    assert status["state"] == "live"
    assert status["counts"] == {"0": 1, "1": 1}
    assert status["stages"]["infer"] == pytest.approx(3.0)
    assert (status["frame"], status["size"], status["dropped"]) == (0, [64, 48], 0)
    about = json.loads(ask(fed, "/about.json")[2])
    assert about["names"] == list(NAMES)
    assert all(re.fullmatch("#[0-9a-f]{6}", found) for found in about["colours"])
    assert json.loads(ask(fed, "/zones.json")[2]) == {"zones": [], "lines": []}
    fed.draws(lambda: {"zones": [{"name": "door", "polygon": [[0, 0], [9, 0], [9, 9]]}], "lines": []})
    assert json.loads(ask(fed, "/zones.json")[2])["zones"][0]["name"] == "door"


def test_dropped_frames_are_those_that_the_index_skips(page: WebPage) -> None:
    for index in (0, 3, 9):
        page.take(a_frame(index), some(), TIMES)
    assert json.loads(ask(page, "/status.json")[2])["dropped"] == 7


def test_before_the_first_frame(page: WebPage) -> None:
    assert json.loads(ask(page, "/status.json")[2])["state"] == "connecting"
    assert ask(page, "/snapshot.jpg")[0] == 503
    page.hear(State("lost", 0.0, "unplugged"))
    status = json.loads(ask(page, "/status.json")[2])
    assert (status["state"], status["why"]) == ("lost", "unplugged")


def test_a_snapshot_has_the_size_of_the_camera() -> None:
    with a_page(width=32) as page:
        page.take(a_frame(0), some(), TIMES)
        status, headers, body = ask(page, "/snapshot.jpg")
        assert (status, headers["content-type"]) == (200, "image/jpeg")
        assert re.fullmatch(r'attachment; filename="detrx-[\d-]+\.jpg"', headers["content-disposition"])
        assert cv2.imdecode(np.frombuffer(body, np.uint8), 1).shape == (48, 64, 3)


def test_the_stream_is_the_newest_frame_as_jpeg() -> None:
    with a_page(width=32) as page, watch_stream(page) as connection:
        page.take(a_frame(5), some(), TIMES)
        reader = connection.makefile("rb")
        assert b"200" in reader.readline()
        while reader.readline() != b"--frame\r\n":
            pass
        head = b"".join(iter(reader.readline, b"\r\n")).decode()
        length = re.search(r"Content-Length: (\d+)", head)
        assert length is not None
        assert "X-Frame: 5\r\n" in head
        assert float(re.findall(r"X-Age-Ms: ([\d.]+)", head)[0]) > 0
        picture = cv2.imdecode(np.frombuffer(reader.read(int(length[1])), np.uint8), 1)
        assert picture.shape == (24, 32, 3)


def test_events_tell_the_numbers_and_every_change_at_once(fed: WebPage) -> None:
    with watch_stream(fed, "/events") as connection:
        reader = connection.makefile("rb")
        while reader.readline() != b"event: status\n":
            pass
        assert json.loads(reader.readline()[6:])["threshold"] == 0.5
        begun = time.monotonic()
        assert change(fed, {"threshold": 0.7})[0] == 200
        line = b""
        while not (line.startswith(b"data: ") and json.loads(line[6:])["threshold"] == 0.7):
            line = reader.readline()
        assert time.monotonic() - begun < 5


def test_our_stream_is_a_source(page: WebPage) -> None:
    """What we send others can read: here OpenCV's FFmpeg."""
    going = threading.Event()

    def feed() -> None:
        index = 0
        while not going.wait(0.02):
            page.take(a_frame(index), some(), TIMES)
            index += 1

    thread = threading.Thread(target=feed)
    thread.start()
    try:
        with open_source(f"{page.url}stream", timeout=20) as source:
            shapes = [frame.image.shape for frame, _ in zip(source, range(3))]
    finally:
        going.set()
        thread.join()
    assert shapes == [(48, 64, 3)] * 3


def test_the_slider_acts_on_the_frame_that_is_there(fed: WebPage) -> None:
    before = fed._feed.picture(after=0, timeout=5)
    assert before is not None
    assert change(fed, {"threshold": 0.1}) == (200, {"threshold": 0.1, "classes": None})
    after = fed._feed.picture(after=before.number, timeout=5)
    assert after is not None
    assert after.jpeg != before.jpeg
    assert json.loads(ask(fed, "/status.json")[2])["counts"] == {"0": 1, "1": 1, "2": 1}
    assert change(fed, {"classes": [2, 2]}) == (200, {"threshold": 0.1, "classes": [2]})
    assert json.loads(ask(fed, "/status.json")[2])["counts"] == {"2": 1}
    assert json.loads(ask(fed, "/settings")[2])["classes"] == [2]


@pytest.mark.parametrize(
    "content",
    [
        {"threshold": 1.5},
        {"threshold": 0.0},
        {"threshold": float("nan")},
        {"threshold": "0.5"},
        {"threshold": True},
        {"threshold": None},
        {"classes": [3]},
        {"classes": [-1]},
        {"classes": [True]},
        {"classes": "disc"},
        {"else": 1},
        [],
        None,
    ],
)
def test_settings_out_of_range_change_nothing(fed: WebPage, content: object) -> None:
    status, said = change(fed, content)
    assert status == 400
    assert said["error"].startswith("[web]")
    assert fed._feed.look == Look(0.5)


def test_settings_that_are_no_json(fed: WebPage) -> None:
    kind = {"Content_Type": "application/json"}
    assert ask(fed, "/settings", "POST", "{", **kind)[0] == 400
    assert ask(fed, "/settings", "POST", "[" * 4000, **kind)[0] == 400
    assert ask(fed, "/settings", "POST", "a=1", Content_Type="application/x-www-form-urlencoded")[0] == 415
    assert ask(fed, "/settings", "POST", "x" * 5000, **kind)[0] == 413
    head = b"POST /settings HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
    assert b" 411 " in raw(fed, head + b"\r\n").splitlines()[0]
    assert b" 411 " in raw(fed, head + b"Content-Length: -1\r\n\r\n").splitlines()[0]


def test_other_sites_may_not_change_settings(fed: WebPage) -> None:
    assert change(fed, {"threshold": 0.7}, Origin="http://evil.example")[0] == 403
    assert change(fed, {"threshold": 0.7}, Origin="null")[0] == 403
    own = f"http://127.0.0.1:{port_of(fed)}"
    assert change(fed, {"threshold": 0.7}, Origin=own)[0] == 200


def test_nothing_is_encoded_while_nobody_looks(fed: WebPage) -> None:
    for index in range(1, 50):
        fed.take(a_frame(index), some(), TIMES)
    ask(fed, "/status.json")
    assert fed._feed.encoded == 0
