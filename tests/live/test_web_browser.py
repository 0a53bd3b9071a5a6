"""The web page in a real browser: it shows, its controls act, it comes back, in both schemes and on a phone's width."""

from __future__ import annotations

import runpy
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from detrx.live.frames import State
from detrx.live.web import WebPage
from detrx.types import Detections, Frame

cv2 = pytest.importorskip("cv2")
pytestmark = pytest.mark.needs("browser")
HERE = Path(__file__).parent
NAMES = ("disc", "star", "ring")


class Camera:
    """Ten frames a second, three objects in each, into a page on one port; may be stopped and started again."""

    def __init__(self) -> None:
        self.port = 0
        self.page: WebPage | None = None

    def start(self) -> None:
        self.page = WebPage(f"127.0.0.1:{self.port}", names=NAMES, threshold=0.5, title="test <b>")
        self.port = int(self.page.url.rsplit(":", 1)[1].strip("/"))
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(self.page,))
        self._thread.start()

    def stop(self) -> None:
        if self.page is not None:
            self._over.set()
            self._thread.join()
            self.page.close()
            self.page = None

    def _run(self, page: WebPage) -> None:
        boxes = np.array([[10, 10, 60, 60], [80, 20, 120, 90], [90, 60, 150, 110]], np.float32)
        found = Detections(boxes, np.array([0.9, 0.6, 0.2], np.float32), np.arange(3), NAMES)
        index = 0
        while not self._over.wait(0.1):
            page.take(
                Frame(np.full((120, 160, 3), index % 250, np.uint8), index, index / 10), found, (0.001,) * 6
            )
            index += 1


@pytest.fixture
def camera() -> Iterator[Camera]:
    served = Camera()
    served.start()
    yield served
    served.stop()


@pytest.fixture
def browser(tmp_path: Path, camera: Camera) -> Iterator[Any]:
    with runpy.run_path(str(HERE / "browser.py"))["Browser"](tmp_path / "profile") as window:
        window.open(f"http://127.0.0.1:{camera.port}/")
        window.wait(f"{text('state')} === 'Live' && document.getElementById('picture').naturalWidth === 160")
        yield window


def text(name: str) -> str:
    return f"document.getElementById('{name}').textContent"


def test_the_page_lives(browser: Any, camera: Camera, tmp_path: Path) -> None:
    assert camera.page is not None
    look = camera.page._feed

    # What is shown.
    assert browser.run(text("title")) == "test <b>"
    browser.wait(f"{text('objects')} === '2'")
    assert browser.run("document.querySelectorAll('#stages tr').length") == 7
    browser.screenshot(tmp_path / "page.png")
    assert cv2.imread(str(tmp_path / "page.png")).std() > 5

    # The slider acts on the server, and so on the picture.
    browser.run("(at('threshold').value = 0.1, at('threshold').dispatchEvent(new Event('input')))")
    browser.wait(f"{text('objects')} === '3'")
    assert look.look.threshold == 0.1

    # So do the classes, and another's change arrives here.
    browser.run("document.querySelectorAll('#classes input')[1].click()")
    browser.wait(f"{text('objects')} === '2'")
    assert look.look.classes == (0, 2)
    look.change_look(threshold=0.8, classes=None)
    browser.wait(f"{text('value')} === '0.80' && document.querySelectorAll('#classes input')[1].checked")

    # A pause ends the stream, the numbers go on; a snapshot is the picture that is seen.
    browser.run("at('pause').click()")
    browser.wait("stop === null")
    frozen = browser.run("[frame, status.frame]")
    browser.wait(f"status.frame > {frozen[1] + 2}")
    assert browser.run("frame") == frozen[0]
    assert browser.run("at('snapshot').disabled") is False
    browser.run("at('pause').click()")
    browser.wait(f"frame > {frozen[0]}")
    assert browser.log() == []


def test_the_page_comes_back_when_the_server_does(browser: Any, camera: Camera) -> None:
    camera.stop()
    browser.wait(f"{text('state')}.includes('Server gone')")
    assert browser.run("at('veil').hidden") is False
    camera.start()
    browser.wait(f"{text('state')} === 'Live' && at('veil').hidden", seconds=30)
    first = browser.run("frame")
    browser.wait(f"frame !== {first}")


def test_zones_are_drawn_over_the_picture(browser: Any, camera: Camera) -> None:
    assert camera.page is not None
    drawn = (
        "at('overlay').getContext('2d').getImageData(0, 0, at('overlay').width, at('overlay').height).data"
    )
    assert browser.run(f"{drawn}.some(value => value > 0)") is False
    plan = {"coordinates": "shares", "lines": [{"name": "gate", "start": [0.1, 0.5], "end": [0.9, 0.5]}]}
    square = {"name": "door", "polygon": [[0.1, 0.1], [0.4, 0.1], [0.4, 0.4]]}
    counts = {"door": {"in": 2, "out": 1}, "gate": {"in": 0, "out": 0}}
    camera.page.draws(lambda: {**plan, "zones": [square], "counts": counts})
    browser.run("ask()")
    browser.wait(f"{drawn}.some(value => value > 0)")


def test_the_page_says_what_became_of_the_camera(browser: Any, camera: Camera) -> None:
    assert camera.page is not None
    camera._over.set()
    camera.page.hear(State("lost", 0.0, "unplugged"))
    browser.wait(f"{text('state')} === 'Camera lost: unplugged' && {text('since')}.startsWith('since')")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_schemes_and_widths(browser: Any, camera: Camera, scheme: str) -> None:
    """Nothing sticks out, text can be read, and every control has a name and is big enough for a finger."""
    browser.emulate(
        "Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}]
    )
    colours = "[getComputedStyle(document.body).color, getComputedStyle(document.body).backgroundColor]"
    ink, paper = (float(np.mean(numbers(found))) for found in browser.run(colours))
    assert (ink < 60 and paper > 200) if scheme == "light" else (ink > 200 and paper < 60)
    for width in (320, 390, 1280):
        browser.emulate(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=800,
            deviceScaleFactor=1,
            mobile=width < 400,
        )
        assert browser.run("document.documentElement.scrollWidth") <= width
    small = "[...document.querySelectorAll('.buttons button, #classes label')].filter(x => x.offsetHeight < 30).length"
    assert browser.run(small) == 0
    tree = browser.emulate("Accessibility.getFullAXTree")["nodes"]
    controls = [
        node for node in tree if node.get("role", {}).get("value") in ("button", "slider", "checkbox")
    ]
    assert len(controls) >= 9
    assert all(node["name"]["value"] for node in controls)


def numbers(colour: str) -> list[int]:
    return [int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
