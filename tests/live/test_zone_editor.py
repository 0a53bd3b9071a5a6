"""What is drawn on a page is written down whole, counts from the next frame on, and steps on nobody's toes."""

from __future__ import annotations

import json
import runpy
import threading
from pathlib import Path
from typing import Any

import pytest

from detrx.errors import ConfigError
from detrx.live import zone_editor
from detrx.live.job import DetectConfig, detect
from detrx.live.web import WebPage
from detrx.live.zone_editor import StaleZonesError, ZoneEditor
from detrx.live.zone_plan import ZonePlan, read_zones
from detrx.live.zones import Zones

pytest.importorskip("cv2")
WEB = runpy.run_path(str(Path(__file__).with_name("web_clients.py")))
TINY: dict[str, Any] = runpy.run_path(str(Path(__file__).parents[1] / "tiny_model.py"))
ask = WEB["ask"]
PLAN = {"coordinates": "shares", "zones": [{"name": "yard", "polygon": [[0, 0], [1, 0], [1, 1]]}]}
CROSSED = {"coordinates": "shares", "zones": [{"name": "a", "polygon": [[0, 0], [1, 1], [1, 0], [0, 1]]}]}
JSON = {"Content_Type": "application/json"}


@pytest.fixture
def editor(tmp_path: Path) -> ZoneEditor:
    return ZoneEditor(Zones(ZonePlan()), tmp_path / "zones.json")


def post(page: WebPage, content: object, **headers: str) -> tuple[int, dict[str, Any]]:
    status, _, body = ask(page, "/zones.json", "POST", json.dumps(content), **{**JSON, **headers})
    return status, json.loads(body) if body.startswith(b"{") else {}


def test_a_change_is_in_the_file_and_in_the_loop(editor: ZoneEditor, tmp_path: Path) -> None:
    found = editor.drawn()
    assert (found["zones"], found["lines"], found["file"]) == ([], [], "zones.json")
    after = editor.edit({"revision": found["revision"], "plan": PLAN})
    assert after["revision"] != found["revision"]
    assert after["counts"] == {"yard": {"in": 0, "out": 0}}
    assert [zone.name for zone in read_zones(tmp_path / "zones.json").zones] == ["yard"]
    empty = editor.edit({"revision": after["revision"], "plan": {"coordinates": "shares"}})
    assert empty["revision"] == found["revision"]
    assert read_zones(tmp_path / "zones.json", empty=True) == ZonePlan()


def test_what_is_wrong_changes_nothing(
    editor: ZoneEditor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    revision = editor.edit({"revision": editor.drawn()["revision"], "plan": PLAN})["revision"]
    text = (tmp_path / "zones.json").read_text()
    with pytest.raises(ConfigError, match="must not cross itself"):
        editor.edit({"revision": revision, "plan": CROSSED})
    with pytest.raises(StaleZonesError):
        editor.edit({"revision": "old", "plan": {"coordinates": "shares"}})
    for wanted in (None, [], {"plan": PLAN}, {"revision": revision, "plan": PLAN, "more": 1}):
        with pytest.raises(ConfigError, match="object with revision and plan"):
            editor.edit(wanted)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(zone_editor, "write_zones", full)
    with pytest.raises(OSError, match="No space"):
        editor.edit({"revision": revision, "plan": {"coordinates": "shares"}})
    assert editor.drawn()["revision"] == revision
    assert (tmp_path / "zones.json").read_text() == text


def test_of_two_who_change_at_once_one_is_told(editor: ZoneEditor) -> None:
    revision, told = editor.drawn()["revision"], []

    def change(name: str) -> None:
        try:
            zone = {"name": name, "polygon": [[0, 0], [1, 0], [1, 1]]}
            editor.edit({"revision": revision, "plan": {"coordinates": "shares", "zones": [zone]}})
        except StaleZonesError as error:
            told.append(str(error))

    threads = [threading.Thread(target=change, args=(name,)) for name in "abcd"]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(told) == 3


def test_the_page_takes_zones_where_it_may(page: WebPage, editor: ZoneEditor) -> None:
    assert post(page, {"revision": "", "plan": PLAN})[0] == 403
    page.draws(editor.drawn, edit=editor.edit)
    revision = json.loads(ask(page, "/zones.json")[2])["revision"]
    status, found = post(page, {"revision": revision, "plan": PLAN})
    assert (status, found["zones"][0]["name"]) == (200, "yard")
    assert post(page, {"revision": revision, "plan": PLAN})[0] == 409
    status, said = post(page, {"revision": found["revision"], "plan": CROSSED})
    assert (status, "must not cross itself" in said["error"]) == (400, True)
    assert post(page, {"revision": found["revision"], "plan": PLAN}, Origin="http://evil.example")[0] == 403
    assert ask(page, "/zones.json", "POST", "a=1", Content_Type="text/plain")[0] == 415
    assert ask(page, "/zones.json", "POST", "{", **JSON)[0] == 400
    assert ask(page, "/zones.json", "POST", "[" * 200_000, **JSON)[0] == 400
    assert ask(page, "/zones.json", "POST", "x" * 300_000, **JSON)[0] == 413
    assert json.loads(ask(page, "/zones.json")[2])["revision"] == found["revision"]


def test_others_need_the_token_to_draw(editor: ZoneEditor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DETRX_WEB_TOKEN", "0123456789abcdef")
    with WEB["a_page"]("0.0.0.0:0") as page:
        page.draws(editor.drawn, edit=editor.edit)
        wanted = {"revision": editor.drawn()["revision"], "plan": PLAN}
        assert post(page, wanted)[0] == 401
        assert post(page, wanted, Authorization="Bearer 0123456789abcdef")[0] == 200


def test_detect_with_a_page_begins_without_zones(tmp_path: Path) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    model = str(TINY["write_model"](tmp_path / "tiny.onnx"))
    config = DetectConfig(
        "test://shapes?size=64x96&frames=3",
        model=model,
        out=tmp_path / "a",
        save=("jsonl",),
        zones=tmp_path / "zones.json",
        web="127.0.0.1:0",
    )
    urls: list[str] = []
    answers: list[dict[str, Any]] = []

    def on_frame(*_: object) -> None:
        if not answers:
            connection = WEB["http"].client.HTTPConnection(urls[0].split("/")[2], timeout=10)
            connection.request("GET", "/zones.json")
            answers.append(json.loads(connection.getresponse().read()))
            connection.close()

    report = detect(config, on_page=urls.append, on_frame=on_frame)
    assert answers[0]["zones"] == []
    assert answers[0]["file"] == "zones.json"
    assert report.loop.zones == {}
    with pytest.raises(ConfigError, match=r"cannot be read.*look at the page of --web"):
        detect(DetectConfig("test://shapes", model=model, zones=tmp_path / "zones.json"))
