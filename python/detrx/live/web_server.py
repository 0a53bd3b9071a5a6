"""HTTP around a feed, from the standard library: few routes, no files, a limit to everything that a client can do."""

from __future__ import annotations

import hmac
import io
import logging
import select
import socket
import threading
import time
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Callable, Dict, FrozenSet, Optional, Set, Tuple
from urllib.parse import SplitResult, parse_qs, urlsplit

from detrx.live.frames import redact
from detrx.live.web_feed import Feed

log = logging.getLogger(__name__)

READ_SECONDS = 5.0
"""A whole request must have come by then, however slowly it drips."""
SEND_SECONDS = 8.0
"""One picture must be gone by then, or the client is."""
REQUEST_BYTES = 16 * 1024
SEND_BUFFER = 128 * 1024
"""Bytes of old pictures that may queue in the kernel for a slow client."""

Route = Callable[["Handler"], None]


class Site:
    """What is served, and to whom.

    Args:
        feed: pictures and numbers.
        routes: path -> method -> what answers.
        page: the HTML.
        policy: its Content-Security-Policy.
        about: what does not change while the server runs, ready for JSON.
        token: what a client must show, or None where only this machine can connect.
        hosts: names in the Host header that are answered; empty for any.
    """

    def __init__(
        self,
        feed: Feed,
        *,
        routes: Dict[str, Dict[str, Route]],
        page: str,
        policy: str,
        about: Dict[str, Any],
        token: Optional[str] = None,
        hosts: FrozenSet[str] = frozenset(),
    ) -> None:
        self.feed, self.routes, self.page, self.policy, self.about = feed, routes, page, policy, about
        self.token, self.hosts = token, hosts
        self.zones: Callable[[], Dict[str, Any]] = lambda: {"zones": [], "lines": []}
        """What ``/zones.json`` answers and the page draws over its picture."""
        self.edit: Optional[Callable[[object], Dict[str, Any]]] = None
        """What takes zones that were drawn on the page, where that is wanted."""
        self.cookie = "detrx"

    def trusts(self, given: str) -> bool:
        return self.token is not None and hmac.compare_digest(given.encode(), self.token.encode())


class Server(ThreadingHTTPServer):
    """A thread for each connection, and never more than ``clients`` of them."""

    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: Tuple[str, int], site: Site, *, clients: int) -> None:
        self.address_family = socket.AF_INET6 if ":" in address[0] else socket.AF_INET
        self.site = site
        self.refused = 0
        """Connections that found no place."""
        self._places = threading.BoundedSemaphore(clients)
        self._open: Set[socket.socket] = set()
        self._lock = threading.Lock()
        super().__init__(address, Handler)
        self.site.cookie = f"detrx_{self.server_address[1]}"
        self._thread = threading.Thread(
            target=self.serve_forever, kwargs={"poll_interval": 0.1}, name="detrx-web", daemon=True
        )
        self._thread.start()

    def server_bind(self) -> None:
        """Without the look-up of this machine's name, which may take seconds where no name server answers."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = "detrx", self.server_address[1]

    def process_request(self, request: Any, client_address: Any) -> None:
        if not self._places.acquire(blocking=False):
            self.refused += 1
            _refuse(request)
            self.shutdown_request(request)
            return
        with self._lock:
            self._open.add(request)
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # no thread to be had
            self._leave(request)
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._leave(request)

    def _leave(self, request: Any) -> None:
        with self._lock:
            self._open.discard(request)
        self._places.release()

    @property
    def connections(self) -> int:
        with self._lock:
            return len(self._open)

    def handle_error(self, request: Any, client_address: Any) -> None:  # noqa: ARG002
        """Clients come and go; only the log of a debugger hears of it."""
        log.debug("%s left", client_address, exc_info=True)

    def close(self) -> None:
        """Let go of the port and of everyone, in well under a second."""
        self.shutdown()
        self.server_close()
        with self._lock:
            left = list(self._open)
        for connection in left:
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                log.debug("a connection was gone already")
        self._thread.join(timeout=1.0)


class TooMuchError(Exception):
    """A request over its limit of bytes."""


class _Patient(io.RawIOBase):
    """Reads a socket until one moment and one number of bytes, whoever drips or pours."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._until = time.monotonic() + READ_SECONDS
        self._left = REQUEST_BYTES

    def allow(self, count: int) -> None:
        """Let so many bytes come beside the rest."""
        self._left += count

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        seconds = self._until - time.monotonic()
        if seconds <= 0:
            raise socket.timeout("request too slow")
        if self._left <= 0:
            raise TooMuchError
        self._connection.settimeout(seconds)
        count = self._connection.recv_into(memoryview(buffer)[: self._left])
        self._left -= count
        return count


class Handler(BaseHTTPRequestHandler):
    """One connection, one request."""

    server: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    error_message_format = "%(code)d %(message)s\n"
    error_content_type = "text/plain; charset=utf-8"

    def setup(self) -> None:
        super().setup()
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER)
        unsent = getattr(socket, "TCP_NOTSENT_LOWAT", None)
        if unsent is not None:
            # Ready means that the last picture is on its way, not that several more would find room behind it.
            self.connection.setsockopt(socket.IPPROTO_TCP, unsent, 1)
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self.rfile.close()
        self._patient = _Patient(self.connection)
        self.rfile = io.BufferedReader(self._patient)

    def handle_one_request(self) -> None:
        try:
            super().handle_one_request()
        except TooMuchError:
            self.requestline, self.command = "", ""
            self.send_error(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        self.close_connection = True

    @property
    def feed(self) -> Feed:
        return self.server.site.feed

    def version_string(self) -> str:
        return "detrx"

    def do_GET(self) -> None:
        try:
            url = urlsplit(self.path)
        except ValueError:
            self.send_error(HTTPStatus.BAD_REQUEST)
            return
        if self._may_enter(url):
            methods = self.server.site.routes.get(url.path)
            if methods is None:
                self.send_error(HTTPStatus.NOT_FOUND)
            elif self.command not in methods:
                self.answer(HTTPStatus.METHOD_NOT_ALLOWED, b"", "text/plain", Allow=", ".join(methods))
            else:
                methods[self.command](self)

    do_HEAD = do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_GET  # noqa: N815

    def _may_enter(self, url: SplitResult) -> bool:
        """Whether Host, origin and token are right; else the refusal is sent."""
        site, host = self.server.site, self.headers.get("Host", "")
        origin = self.headers.get("Origin")
        if not host or (site.hosts and _name(host) not in site.hosts):
            # Another site's name that points to this machine: DNS rebinding.
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, f"detrx does not serve {_name(host)[:80]!r}")
        elif self.command == "POST" and origin is not None and urlsplit(origin).netloc != host:
            self.send_error(HTTPStatus.FORBIDDEN, "another site's page may not change this one")
        elif site.token is None or self._shows_token(url):
            return True
        return False

    def _shows_token(self, url: SplitResult) -> bool:
        site = self.server.site
        asked = parse_qs(url.query).get("token", [""])[0]
        held = [part.strip().partition("=") for part in self.headers.get("Cookie", "").split(";")]
        bearer = self.headers.get("Authorization", "").partition("Bearer ")[2]
        if site.trusts(asked) and url.path == "/":
            # The cookie goes on with the reader; the token leaves the address bar and the history.
            cookie = f"{site.cookie}={site.token}; HttpOnly; SameSite=Lax; Path=/; Max-Age=2592000"
            self.answer(HTTPStatus.SEE_OTHER, b"", "text/plain", **{"Location": "/", "Set-Cookie": cookie})
            return False
        given = [asked, bearer, *(value for name, _, value in held if name == site.cookie)]
        if any(site.trusts(value) for value in given):
            return True
        self.send_error(HTTPStatus.UNAUTHORIZED, "open the address with ?token=... that detrx printed")
        return False

    def read_body(self, *, most: int) -> Optional[bytes]:
        """What a request brings as JSON, or None where that is refused, and told."""
        kind = self.headers.get("Content-Type", "").partition(";")[0].strip()
        length = self.headers.get("Content-Length", "")
        if kind != "application/json":
            # A form of another site could send anything else without asking first.
            self.send_error(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "what is sent here is application/json")
        elif not (length.isascii() and length.isdigit() and len(length) < 9):
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif int(length) > most:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._patient.allow(int(length))
            return self.rfile.read(int(length))
        return None

    def send_error(
        self,
        code: int,
        message: Optional[str] = None,
        explain: Optional[str] = None,  # noqa: ARG002
    ) -> None:
        """Plain text, for the standard library's own refusals too."""
        text = f"{int(code)} {message or HTTPStatus(code).phrase}\n"
        self.answer(HTTPStatus(code), text.encode("utf-8", "replace"), self.error_content_type)

    def answer(self, code: HTTPStatus, body: bytes, kind: str, **headers: str) -> None:
        """A whole answer; HEAD gets it without the body."""
        self.start(code, kind, **{"Content-Length": str(len(body)), **headers})
        if self.command != "HEAD":
            self.wfile.write(body)

    def start(self, code: HTTPStatus, kind: str, **headers: str) -> None:
        self.connection.settimeout(SEND_SECONDS)
        # Of a request that could not be read, the standard library would think it came before there were headers.
        self.request_version = self.protocol_version
        self.send_response(code)
        common = {
            "Content-Type": kind,
            "Connection": "close",
            "Cache-Control": "no-store",
            "Content-Security-Policy": self.server.site.policy,
            "Cross-Origin-Resource-Policy": "same-origin",
            "Referrer-Policy": "no-referrer",
            "X-Content-Type-Options": "nosniff",
            "X-Frame-Options": "DENY",
        }
        for name, value in {**common, **headers}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the standard library's name
        log.debug("%s %s", self.client_address[0], redact(format % args))

    def ready(self) -> bool:
        """Wait until the client has taken what was sent; False where that takes too long."""
        return bool(select.select([], [self.connection], [], SEND_SECONDS)[1])

    def gone(self) -> bool:
        """Whether the client hung up, as far as one can know without sending."""
        readable = select.select([self.connection], [], [], 0)[0]
        return bool(readable) and self.connection.recv(1, socket.MSG_PEEK) == b""


def _refuse(connection: socket.socket) -> None:
    """The answer to one too many; never waits, because nobody is let in meanwhile."""
    connection.setblocking(False)
    text = b"detrx: all places are taken\n"
    head = f"HTTP/1.1 503 Busy\r\nRetry-After: 5\r\nConnection: close\r\nContent-Length: {len(text)}\r\n\r\n"
    try:
        connection.send(head.encode() + text)
    except OSError:
        log.debug("refused one who had left")


def _name(host: str) -> str:
    """The Host header without its port."""
    name, _, port = host.lower().rpartition(":")
    return name if name and port.isdigit() else host.lower()
