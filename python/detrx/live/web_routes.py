"""What the web page's server answers: path by path."""

from __future__ import annotations

import json
import time
from http import HTTPStatus
from typing import Dict, Optional

from detrx.errors import ConfigError
from detrx.live.web_feed import Look, Picture
from detrx.live.web_server import Handler, Route
from detrx.live.zone_editor import StaleZonesError

SETTINGS_BYTES, ZONES_BYTES = 4 * 1024, 256 * 1024
"""Of what a client may send."""
BEAT = 4.0
"""Seconds after which a quiet stream shows that it lives."""
EVENT_SECONDS = 0.5
SLOW = 0.25
"""Seconds that a picture is on its way to a viewer from which on it shares those of others."""


def _json(handler: Handler, content: object, code: HTTPStatus = HTTPStatus.OK) -> None:
    handler.answer(code, json.dumps(content).encode(), "application/json")


def _look(look: Look) -> Dict[str, object]:
    return {"threshold": look.threshold, "classes": look.classes}


def _page(handler: Handler) -> None:
    handler.answer(HTTPStatus.OK, handler.server.site.page.encode(), "text/html; charset=utf-8")


def _snapshot(handler: Handler) -> None:
    content = handler.feed.snapshot()
    if content is None:
        handler.send_error(HTTPStatus.SERVICE_UNAVAILABLE, "no frame has come yet")
        return
    name = time.strftime("detrx-%Y%m%d-%H%M%S.jpg")
    disposition = {"Content-Disposition": f'attachment; filename="{name}"'}
    handler.answer(HTTPStatus.OK, content, "image/jpeg", **disposition)


def _stream(handler: Handler) -> None:
    handler.start(HTTPStatus.OK, "multipart/x-mixed-replace; boundary=frame")
    if handler.command == "HEAD":
        return
    feed, seen, took = handler.feed, 0, 0.0
    picture: Optional[Picture] = None
    feed.looking += 1
    try:
        while not feed.closed and not handler.gone():
            picture = feed.picture(after=seen, timeout=BEAT, patient=took > SLOW) or picture
            if picture is None or feed.closed:
                continue
            seen, begun = picture.number, time.monotonic()
            handler.wfile.write(_part(picture))
            if not handler.ready():
                return
            took = time.monotonic() - begun
    finally:
        feed.looking -= 1


def _part(picture: Picture) -> bytes:
    head = (
        f"--frame\r\nContent-Type: image/jpeg\r\nContent-Length: {len(picture.jpeg)}\r\n"
        f"X-Frame: {picture.frame}\r\nX-Age-Ms: {picture.age * 1000:.1f}\r\n\r\n"
    )
    return head.encode() + picture.jpeg + b"\r\n"


def _events(handler: Handler) -> None:
    handler.start(HTTPStatus.OK, "text/event-stream")
    if handler.command == "HEAD":
        return
    feed = handler.feed
    seen = feed.news(seen=-1, timeout=0)
    handler.wfile.write(_event("about", handler.server.site.about))
    while not feed.closed and not handler.gone():
        handler.wfile.write(_event("status", feed.status()))
        seen = feed.news(seen=seen, timeout=EVENT_SECONDS)


def _event(name: str, content: object) -> bytes:
    return f"event: {name}\ndata: {json.dumps(content)}\n\n".encode()


def _change(handler: Handler) -> None:
    """POST /settings: JSON with threshold and classes; what is left out stays."""
    body = handler.read_body(most=SETTINGS_BYTES)
    if body is None:
        return
    try:
        wanted = json.loads(body)
        if not isinstance(wanted, dict) or set(wanted) - {"threshold", "classes"}:
            raise ConfigError("[web] settings are an object with threshold and classes")
        look = handler.feed.change_look(**{**_look(handler.feed.look), **wanted})
    except (ValueError, RecursionError) as error:
        _json(handler, {"error": str(error)}, HTTPStatus.BAD_REQUEST)
    else:
        _json(handler, _look(look))


def _change_zones(handler: Handler) -> None:
    """POST /zones.json: JSON with all zones, and the revision that they were made from."""
    edit = handler.server.site.edit
    body = handler.read_body(most=ZONES_BYTES)
    if body is None:
        return
    if edit is None:
        handler.send_error(HTTPStatus.FORBIDDEN, "zones are drawn where detrx was started with --zones FILE")
        return
    try:
        _json(handler, edit(json.loads(body)))
    except StaleZonesError as error:
        _json(handler, {"error": str(error)}, HTTPStatus.CONFLICT)
    except (ValueError, RecursionError) as error:
        _json(handler, {"error": str(error)}, HTTPStatus.BAD_REQUEST)
    except OSError as error:
        _json(handler, {"error": f"[zones] not written: {error.strerror}"}, HTTPStatus.INSUFFICIENT_STORAGE)


def _reads(route: Route) -> Dict[str, Route]:
    return {"GET": route, "HEAD": route}


ROUTES: Dict[str, Dict[str, Route]] = {
    "/": _reads(_page),
    "/stream": _reads(_stream),
    "/events": _reads(_events),
    "/snapshot.jpg": _reads(_snapshot),
    "/status.json": _reads(lambda handler: _json(handler, handler.feed.status())),
    "/about.json": _reads(lambda handler: _json(handler, handler.server.site.about)),
    "/zones.json": {
        **_reads(lambda handler: _json(handler, handler.server.site.zones())),
        "POST": _change_zones,
    },
    "/settings": {**_reads(lambda handler: _json(handler, _look(handler.feed.look))), "POST": _change},
}
