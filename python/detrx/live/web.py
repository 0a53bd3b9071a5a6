"""A page that shows the loop in a browser: ``WebPage`` is told of each frame and serves whoever looks."""

from __future__ import annotations

import base64
import hashlib
import ipaddress
import os
import re
import secrets
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional, Sequence, Tuple

import detrx
from detrx.draw import colour
from detrx.errors import ConfigError
from detrx.live.frames import Source, State
from detrx.live.loop import FrameTimes
from detrx.live.web_feed import Feed, Look
from detrx.live.web_routes import ROUTES
from detrx.live.web_server import Server, Site
from detrx.types import Detections, Frame

ASSETS = Path(__file__).parents[1] / "assets"
DEFAULT = "127.0.0.1:8080"
LEAST = 0.05
"""What the detector still answers while a page is open, so that its slider can go below the threshold."""
TOKEN = "DETRX_WEB_TOKEN"
"""Environment: a token of one's own, which outlives a restart. No argument, because every user can list those."""
ADDRESS = re.compile(r"(?:(?P<host>\[[0-9a-fA-F:]+\]|[\w.-]*):)?(?P<port>\d{1,5})")


@dataclass(frozen=True)
class Address:
    """Where the page is served."""

    host: str
    """A name or number without brackets; 0.0.0.0 and :: are all of this machine's."""
    port: int
    """0 takes any that is free."""

    @property
    def local(self) -> bool:
        """Whether only this machine can connect."""
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return False

    def url(self) -> str:
        """For a browser that may run elsewhere."""
        host = _own_address() if self.host in ("0.0.0.0", "::") else self.host
        return f"http://{f'[{host}]' if ':' in host else host}:{self.port}/"


def parse_address(text: str) -> Address:
    """Read 8080, :8080 and localhost:8080 as 127.0.0.1:8080; 0.0.0.0:8080 lets other machines in.

    Raises:
        ConfigError: neither HOST:PORT nor a port.
    """
    found = ADDRESS.fullmatch(text.strip())
    if found is None or int(found["port"]) > 65535:
        raise ConfigError(f"[web] where to serve is HOST:PORT, as {DEFAULT} or 0.0.0.0:8080, got {text!r}")
    host = (found["host"] or "").strip("[]")
    return Address("127.0.0.1" if host in ("", "localhost") else host, int(found["port"]))


@dataclass(frozen=True)
class PageConfig:
    """How the page is sent."""

    width: int = 960
    """Pixels of the picture at most; a snapshot of /snapshot.jpg has the camera's own."""
    quality: int = 75
    """JPEG, 1 to 100."""
    clients: int = 64
    """Connections at most; a browser that looks holds two."""

    def __post_init__(self) -> None:
        if not (16 <= self.width <= 16384 and 1 <= self.quality <= 100 and self.clients >= 1):
            raise ConfigError(
                f"[web] width must be 16 to 16384, quality 1 to 100, clients 1 or more, got {self.width}, "
                f"{self.quality}, {self.clients}"
            )


class WebPage:
    """Serves from construction to ``close``; ``take`` is what the loop calls for each frame, and never waits.

    Args:
        address: HOST:PORT. Anything but this machine's own addresses asks clients for a token, which ``url`` holds.
        names: the classes.
        threshold: the least score shown at the start, in [0, 1].
        least: the least score that ``take`` will be given.
        title: what is looked at, without password.
        model: what looks, for people.
        config: how it is sent.

    Raises:
        ConfigError: not an address, or one that cannot be served from.
    """

    def __init__(
        self,
        address: str,
        *,
        names: Sequence[str],
        threshold: float,
        least: float = LEAST,
        title: str = "",
        model: str = "",
        config: PageConfig = PageConfig(),
    ) -> None:
        place = parse_address(address)
        token = None if place.local else _token()
        about = {
            "title": title,
            "model": model,
            "version": detrx.__version__,
            "least": least,
            "names": list(names),
            "colours": ["#{:02x}{:02x}{:02x}".format(*colour(label)) for label in range(len(names))],
        }
        hosts = frozenset({"localhost", "127.0.0.1", "[::1]", place.host} if token is None else ())
        page, editor = (
            (ASSETS / name).read_text(encoding="utf-8") for name in ("live.html", "live_zones.js")
        )
        page = page.replace("</html>", f"<script>\n{editor}</script>\n</html>")
        self._now: Callable[[], Optional[float]] = lambda: None
        self._feed = Feed(
            Look(threshold),
            classes=len(names),
            least=min(least, threshold),
            width=config.width,
            quality=config.quality,
        )
        site = Site(
            self._feed, routes=ROUTES, page=page, policy=policy(page), about=about, token=token, hosts=hosts
        )
        try:
            self._server = _serve(place, site, config.clients, moves=address == DEFAULT)
        except OSError as error:
            self._feed.close()
            raise ConfigError(
                f"[web] {address} cannot be served from: {error.strerror or error}; another port, as --web "
                f"{place.host}:{place.port + 1}, may be free"
            ) from error
        served = Address(place.host, self._server.server_address[1])
        self.url = served.url() + (f"?token={token}" if token else "")
        """What to open; with the token where one is needed."""

    def watch(self, source: Source) -> None:
        """Take the age of frames from this source's clock."""
        self._now = source.now

    def hear(self, state: State) -> None:
        """What became of the source; fits its ``on_state``."""
        self._feed.state(state.name, state.why)

    def draws(
        self,
        zones: Callable[[], Dict[str, Any]],
        *,
        edit: Optional[Callable[[object], Dict[str, Any]]] = None,
    ) -> None:
        """Let the page draw what this answers, which is what zones.json says, with the counts of each name.

        Args:
            zones: as ``Zones.drawn``, or ``ZoneEditor.drawn``.
            edit: as ``ZoneEditor.edit``: who looks may then draw other zones.
        """
        self._server.site.zones, self._server.site.edit = zones, edit

    def take(self, frame: Frame, found: Detections, times: FrameTimes) -> None:
        """The newest frame with all that was found in it; fits ``on_frame`` of the loop."""
        now = self._now()
        self._feed.take(frame, found, times, age=None if now is None else now - frame.seconds)

    def close(self) -> None:
        """End every stream and free the port. Closing twice does nothing."""
        if not self._feed.closed:
            self._feed.close()
            self._server.close()

    def __enter__(self) -> WebPage:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def policy(page: str) -> str:
    """The Content-Security-Policy that lets a page run its own script and style and reach its own server alone."""
    sources: List[str] = []
    for tag in ("script", "style"):
        inside = re.findall(f"<{tag}>(.*?)</{tag}>", page, re.DOTALL)
        digests = (hashlib.sha256(text.encode("utf-8")).digest() for text in inside)
        sources.append(f"{tag}-src " + " ".join(f"'sha256-{base64.b64encode(d).decode()}'" for d in digests))
    rest = "img-src 'self' blob: data:; connect-src 'self'; base-uri 'none'; form-action 'none'"
    return f"default-src 'none'; {'; '.join(sources)}; {rest}; frame-ancestors 'none'"


def _serve(place: Address, site: Site, clients: int, *, moves: bool) -> Server:
    """On this port, or, where it was nobody's choice, on one of the next nine."""
    ports: Tuple[int, ...] = tuple(range(place.port, place.port + (10 if moves else 1)))
    for port in ports[:-1]:
        try:
            return Server((place.host, port), site, clients=clients)
        except OSError:
            continue
    return Server((place.host, ports[-1]), site, clients=clients)


def _token() -> str:
    given = os.environ.get(TOKEN, "")
    if given and not re.fullmatch(r"[\w.~-]{16,256}", given, re.ASCII):
        raise ConfigError(
            f"[web] {TOKEN} must be 16 to 256 letters, digits or -_.~, got {len(given)} characters"
        )
    return given or secrets.token_urlsafe(24)


def _own_address() -> str:
    """This machine's number in its network, as a packet to a far one would carry it; none is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            address: str = probe.getsockname()[0]
        except OSError:
            return socket.gethostname()
    return address
