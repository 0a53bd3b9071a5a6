"""One picture for all who look, and only when somebody does."""

from __future__ import annotations

import runpy
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from detrx.live import web_feed
from detrx.live.web_feed import Feed, Look, encode, rate

cv2 = pytest.importorskip("cv2")
WEB = runpy.run_path(str(Path(__file__).with_name("web_clients.py")))
NAMES, TIMES = WEB["NAMES"], WEB["TIMES"]
a_frame, some, until = (WEB[name] for name in ("a_frame", "some", "until"))


def test_one_encoding_serves_all() -> None:
    feed = Feed(Look(0.5), classes=3)
    got: list[object] = []
    threads = [
        threading.Thread(target=lambda: got.append(feed.picture(after=0, timeout=10))) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    until(lambda: feed._waiting == 20)
    feed.take(a_frame(0), some(), TIMES)
    for thread in threads:
        thread.join()
    assert len({id(picture) for picture in got}) == 1
    assert feed.encoded == 1
    feed.close()


def test_a_late_client_gets_no_stale_picture() -> None:
    feed = Feed(Look(0.5), classes=3)
    feed.take(a_frame(0), some(), TIMES)
    first = feed.picture(after=0, timeout=5)
    feed.take(a_frame(1), some(), TIMES)
    late = feed.picture(after=0, timeout=5)
    assert first is not None
    assert late is not None
    assert (first.frame, late.frame) == (0, 1)
    assert feed.picture(after=late.number, timeout=0.05) is None
    feed.close()


def test_the_patient_share_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many are slow: a young picture is theirs too, and only an old one is made anew for them."""
    monkeypatch.setattr(web_feed, "SHARED", 1.0)
    feed = Feed(Look(0.5), classes=3)
    feed.take(a_frame(0), some(), TIMES)
    first = feed.picture(after=0, timeout=10)
    made = time.monotonic()
    feed.take(a_frame(1), some(), TIMES)
    assert first is not None
    assert feed.picture(after=0, timeout=10, patient=True) is first
    second = feed.picture(after=first.number, timeout=10, patient=True)
    assert second is not None
    assert (second.number, second.frame) == (2, 1)
    assert time.monotonic() - made > 0.8
    feed.take(a_frame(2), some(), TIMES)
    quick = feed.picture(after=second.number, timeout=10)
    assert quick is not None
    assert quick.frame == 2
    feed.close()


def test_small_things() -> None:
    assert rate([]) == rate([1.0]) == 0
    assert rate([1.0, 1.5, 2.0]) == 2
    jpeg = encode(a_frame(0), some(), width=1, quality=50)
    assert cv2.imdecode(np.frombuffer(jpeg, np.uint8), 1).shape == (1, 1, 3)
