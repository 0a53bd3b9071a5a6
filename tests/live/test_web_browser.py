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
from detrx.live.zone_editor import ZoneEditor
from detrx.live.zone_plan import ZonePlan, read_zones
from detrx.live.zones import Zones
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


def on_page(browser: Any, places: tuple[tuple[float, float], ...]) -> list[dict[str, float]]:
    """Where shares of the picture lie in the window."""
    corner = "[b.left + v.left, b.top + v.top, v.width * v.scale, v.height * v.scale]"
    view = f"(b => (v => {corner})(viewOf(b.width, b.height)))(at('overlay').getBoundingClientRect())"
    left, top, width, height = browser.run(view)
    return [{"x": left + x * width, "y": top + y * height} for x, y in places]


def mouse(browser: Any, *places: tuple[float, float], pull: bool = False) -> None:
    """Click at shares of the picture, or pull from each to the next."""
    kinds = ["mousePressed", *["mouseMoved"] * (len(places) - 2), "mouseReleased"] if pull else []
    for at, where in enumerate(on_page(browser, places)):
        for kind in kinds[at : at + 1] or ["mouseMoved", "mousePressed", "mouseReleased"]:
            held = {"buttons": 1} if pull else {}
            browser.emulate(
                "Input.dispatchMouseEvent", type=kind, button="left", clickCount=1, **where, **held
            )


def finger(browser: Any, *places: tuple[float, float]) -> None:
    """Pull a finger over the picture."""
    for kind, where in zip(["touchStart", *["touchMove"] * (len(places) - 1)], on_page(browser, places)):
        browser.emulate("Input.dispatchTouchEvent", type=kind, touchPoints=[where])
    browser.emulate("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])


def press(browser: Any, key: str) -> None:
    browser.run(
        f"document.body.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{key}', bubbles: true }}))"
    )


@pytest.fixture
def desk(browser: Any, camera: Camera, tmp_path: Path) -> tuple[Zones, ZoneEditor]:
    """Zones that may be drawn in the browser, into zones.json."""
    assert camera.page is not None
    zones = Zones(ZonePlan())
    editor = ZoneEditor(zones, tmp_path / "zones.json")
    assert browser.run("at('zonecard').hidden") is True
    camera.page.draws(editor.drawn, edit=editor.edit)
    browser.run("ask()")
    browser.wait("at('zonecard').hidden === false && at('screen').classList.contains('editable')")
    return zones, editor


def test_zones_are_drawn_named_and_moved_by_hand(
    browser: Any, desk: tuple[Zones, ZoneEditor], tmp_path: Path
) -> None:
    zones, file = desk[0], tmp_path / "zones.json"

    # An area: three clicks and one on the first corner; a name for it.
    browser.run("at('drawzone').click()")
    mouse(browser, (0.1, 0.1), (0.6, 0.1), (0.6, 0.8))
    assert browser.run("drawing.points.length") == 3
    browser.screenshot(tmp_path / "drawing.png")
    mouse(browser, (0.1, 0.1))
    browser.wait("zones.zones.length === 1 && !saving")
    corners = np.array(read_zones(file).zones[0].polygon)
    np.testing.assert_allclose(corners, [[0.1, 0.1], [0.6, 0.1], [0.6, 0.8]], atol=0.01)
    name = "document.querySelector('#zones input')"
    browser.run(f"({name}.value = 'yard', {name}.dispatchEvent(new Event('change')))")
    browser.wait("zones.zones[0].name === 'yard' && !saving")

    # A line, pulled; a second area by its keys.
    browser.run("at('drawline').click()")
    mouse(browser, (0.8, 0.2), (0.8, 0.5), (0.8, 0.9), pull=True)
    browser.wait("zones.lines.length === 1 && !saving")
    browser.run("document.querySelector('#zones li:last-child button').click()")
    browser.wait("!saving && zones.lines[0].start[1] > 0.8")
    assert [(line.name, round(line.end[1], 1)) for line in read_zones(file).lines] == [("line 1", 0.2)]

    # Counts arrive; a corner and a whole area are moved.
    found = Detections(
        np.array([[60, 10, 80, 30]], np.float32),
        np.ones(1, np.float32),
        np.zeros(1, int),
        NAMES,
        tracks=np.array([1]),
    )
    zones(Frame(np.zeros((120, 160, 3), np.uint8), 0, 0.0), found)
    browser.wait("document.querySelector('#zones output').textContent === '1 in, 0 out'")
    mouse(browser, (0.6, 0.8), (0.5, 0.85), (0.4, 0.9), pull=True)
    browser.wait("!saving && zones.zones[0].polygon[2][1] > 0.85")
    mouse(browser, (0.4, 0.3), (0.45, 0.3), (0.5, 0.3), pull=True)
    browser.wait("!saving && zones.zones[0].polygon[0][0] > 0.15")
    moved = np.array(read_zones(file).zones[0].polygon)
    np.testing.assert_allclose(moved, [[0.2, 0.1], [0.7, 0.1], [0.5, 0.9]], atol=0.02)
    browser.screenshot(tmp_path / "zones.png")
    for width in (320, 1280):
        browser.emulate(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        assert browser.run("document.documentElement.scrollWidth") <= width
        sides = "[...document.querySelectorAll('#zones button')].map(x => x.getBoundingClientRect().right)"
        assert max(browser.run(sides)) < width
    browser.emulate("Emulation.clearDeviceMetricsOverride")

    assert browser.log() == []


def test_zones_are_refused_shared_and_deleted(
    browser: Any, desk: tuple[Zones, ZoneEditor], tmp_path: Path
) -> None:
    editor, file = desk[1], tmp_path / "zones.json"

    # What crosses itself is refused and stays under the hand; Escape lets it go.
    browser.run("at('drawzone').click()")
    mouse(browser, (0.1, 0.3), (0.3, 0.6), (0.3, 0.3), (0.1, 0.6))
    press(browser, "Enter")
    browser.wait(f"{text('zonesay')}.includes('must not cross itself') && drawing !== null")
    assert browser.run("zones.zones.length") == 0
    press(browser, "Escape")
    assert browser.run("drawing") is None

    # Another's change arrives, and a change made from an old look is refused.
    editor.edit({"revision": editor.drawn()["revision"], "plan": {"coordinates": "shares", "lines": [
        {"name": "door", "start": [0.2, 0.2], "end": [0.2, 0.8]}]}})  # fmt: skip
    browser.wait("zones.lines.length === 1 && zones.lines[0].name === 'door'")
    browser.run("(zones.revision = 'old', document.querySelector('#zones li button:last-child').click())")
    browser.wait(f"{text('zonesay')}.includes('somebody else')")
    browser.wait("zones.lines.length === 1 && !saving")
    browser.run("document.querySelector('#zones li button:last-child').click()")
    browser.wait("shapes().length === 0 && !saving")
    assert read_zones(file, empty=True) == ZonePlan()
    assert [line for line in browser.log() if "40" not in line] == []


def test_a_finger_draws_and_moves(browser: Any, desk: tuple[Zones, ZoneEditor], tmp_path: Path) -> None:
    browser.emulate("Emulation.setTouchEmulationEnabled", enabled=True)
    browser.run("at('drawline').click()")
    finger(browser, (0.2, 0.2), (0.25, 0.5), (0.3, 0.7))
    browser.wait("zones.lines.length === 1 && !saving")
    finger(browser, (0.3, 0.7), (0.4, 0.6), (0.5, 0.5), (0.6, 0.4))
    browser.wait("!saving && zones.lines[0].end[0] > 0.55")
    line = read_zones(tmp_path / "zones.json").lines[0]
    np.testing.assert_allclose([line.start, line.end], [[0.2, 0.2], [0.6, 0.4]], atol=0.02)
    assert browser.run("scrollY") == 0


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
    controls = "[...document.querySelectorAll('.buttons button, #classes label')]"
    assert browser.run(f"{controls}.filter(x => x.offsetParent && x.offsetHeight < 30).length") == 0
    tree = browser.emulate("Accessibility.getFullAXTree")["nodes"]
    controls = [
        node for node in tree if node.get("role", {}).get("value") in ("button", "slider", "checkbox")
    ]
    assert len(controls) >= 9
    assert all(node["name"]["value"] for node in controls)


def numbers(colour: str) -> list[int]:
    return [int(part) for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
