"""`tollspan ui`: the same as `tollspan top`, on a page in the browser of this machine, with charts.

Who gets in: the server listens on the loopback interface only. A request must name it as its Host (so that no foreign
name that was made to point here gets in), and carry the token of this start: in the address that is printed, which is
exchanged for a cookie that scripts cannot read and other sites cannot send, and then leaves the address. Answers come
from a fixed table of paths; a path is never turned into a file's name. Nothing can be changed here, only read.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import threading
import time
import webbrowser
from http import HTTPStatus
from http.cookies import CookieError, SimpleCookie
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import click

from tollspan.cli.ledger_options import with_ledger
from tollspan.cli.live.board import BoardReader, PanelFilter, data_of
from tollspan.cli.live.history import DEFAULT, SPANS, charts, first_token
from tollspan.ledger.queries import DAY, Where
from tollspan.model.errors import LedgerError
from tollspan.settings import load
from tollspan.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from tollspan.settings import Settings

HOST: Final = "127.0.0.1"
EVERY: Final = 0.25
"""Seconds between two looks at the ledger, and so at most between two events."""

HEARTBEAT: Final = 15.0
"""Seconds after which a comment is sent where there was no event: so a page that is gone is noticed."""

MOST_PAGES: Final = 16
"""Pages that are kept up to date at the same time."""

SESSIONS: Final = 50

_ASSETS: Final = {
    "/": ("index.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cache-Control": "no-store",
}


@click.command()
@with_ledger
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to listen at.  [default: a free one]")
@click.option("--open/--no-open", "show", default=False, help="Open the page in the browser.  [default: off]")
def ui(path: Path, port: int, *, show: bool) -> None:
    r"""Show live what is being spent, on a page in the browser of this machine.

    The page needs no network: everything is in the package. Only this machine can reach it, only by the address that is
    printed. Ctrl-C ends it.

    \b
    Examples:
      tollspan ui --open
      tollspan ui --port 8080
      ssh -L 8080:127.0.0.1:8080 server     # then tollspan ui --port 8080 there, and open the address here
    """
    try:
        server = Server(path, load(), port)
    except OSError as error:
        raise click.ClickException(f"port {port} cannot be used: {error.strerror}; --port 0 takes a free one") from None
    click.echo(f"tollspan ui: {server.url}")
    click.echo(f"  shows {path}; only this machine can reach it; Ctrl-C ends it")
    if show:
        webbrowser.open(server.url)
    with contextlib.suppress(KeyboardInterrupt):
        server.serve_forever(poll_interval=EVERY)
    server.server_close()


class Server(ThreadingHTTPServer):
    """Serves the page of one ledger.

    Args:
        path: The ledger; it may not be there yet.
        settings: Tags that are shown also at zero, and the budgets' store.
        port: Where to listen; 0 takes a free port.

    Raises:
        OSError: the port cannot be had.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: Path, settings: Settings, port: int = 0) -> None:
        self.ending = threading.Event()  # before anything that may fail: then `server_close` is called
        super().__init__((HOST, port), _Handler)
        self.path = path
        self.settings = settings
        self.token = secrets.token_urlsafe(24)
        self.assets = {place: (_asset(name), kind) for place, (name, kind) in _ASSETS.items()}
        self.places = threading.BoundedSemaphore(MOST_PAGES)

    @property
    def port(self) -> int:
        """Return the port that is listened at."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Return the address to open: it holds the token."""
        return f"http://{HOST}:{self.port}/?{urlencode({'token': self.token})}"

    @property
    def cookie(self) -> str:
        """Return the name of the cookie; browsers do not tell cookies apart by port."""
        return f"tollspan_{self.port}"

    def server_bind(self) -> None:
        """Bind, without asking any name server for a name of this machine."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def server_close(self) -> None:
        """End the events of all pages, and close."""
        self.ending.set()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Say nothing of a browser that has gone away in the middle of an answer."""
        import sys

        if not isinstance(sys.exc_info()[1], (ConnectionError, TimeoutError)):
            super().handle_error(request, client_address)


def _asset(name: str) -> bytes:
    return files("tollspan.cli.live").joinpath("page", name).read_bytes()


class _Handler(BaseHTTPRequestHandler):
    server: Server
    protocol_version = "HTTP/1.1"
    server_version = f"tollspan/{__version__}"
    sys_version = ""
    timeout = 60.0

    def do_GET(self) -> None:
        """Answer."""
        parts = urlsplit(self.path)
        asked = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if not self._is_ours(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "This is not a name of this server.")
        elif parts.path == "/" and self._is_token(asked.get("token", "")):
            self._let_in()
        elif not self._is_known():
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that `tollspan ui` has printed.")
        elif parts.path in self.server.assets:
            self._give(*self.server.assets[parts.path])
        elif parts.path == "/state":
            self._state(asked)
        elif parts.path == "/events":
            self._events(asked)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "There is nothing here.")

    do_HEAD = do_GET  # noqa: N815 - the name that the standard library looks for

    def _is_ours(self, host: str) -> bool:
        return host.lower() in {f"{name}:{self.server.port}" for name in (HOST, "localhost")}

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.server.token.encode())

    def _is_known(self) -> bool:
        """Return whether a request carries the token: in the cookie, or as a bearer's, which is for programs."""
        kind, _, token = self.headers.get("Authorization", "").partition(" ")
        if kind.lower() == "bearer":
            return self._is_token(token.strip())
        try:
            cookie = SimpleCookie(self.headers.get("Cookie", "")).get(self.server.cookie)
        except CookieError:
            return False
        return cookie is not None and self._is_token(cookie.value)

    def _let_in(self) -> None:
        """Exchange the token in the address for a cookie, and have the address forgotten."""
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/")
        self._end(b"")

    def _refuse(self, status: HTTPStatus, words: str) -> None:
        self._give(f"{words}\n".encode(), "text/plain; charset=utf-8", status)

    def _give(self, body: bytes, kind: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self._end(body)

    def _end(self, body: bytes) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # What is shown

    def _view(self, asked: dict[str, str]) -> View | None:
        """Return the view that a request asks for; refuse one that there is not."""
        span = asked.get("range", DEFAULT)
        if span not in SPANS:
            self._refuse(HTTPStatus.BAD_REQUEST, f"range is one of {', '.join(SPANS)}.")
            return None
        return View(self.server.path, self.server.settings, span, asked.get("session") or None)

    def _state(self, asked: dict[str, str]) -> None:
        view = self._view(asked)
        if view is not None:
            with contextlib.closing(view):
                self._give(_json(view.look() or {}), "application/json")

    def _events(self, asked: dict[str, str]) -> None:
        """Send the state whenever it changes, until the page goes away (HTML standard, "Server-sent events")."""
        view = self._view(asked)
        if view is None:
            return
        if not self.server.places.acquire(blocking=False):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_PAGES} pages are open already.")
            return
        self.close_connection = True
        try:
            with contextlib.closing(view):
                self.send_response(HTTPStatus.OK)
                self.send_header("Content-Type", "text/event-stream")
                for name, value in _HEADERS.items():
                    self.send_header(name, value)
                self.send_header("Connection", "close")
                self.end_headers()
                if self.command != "HEAD":
                    self._send_all(view)
        finally:
            self.server.places.release()

    def _send_all(self, view: View) -> None:
        due = time.monotonic() + HEARTBEAT
        for state in view.states(self.server.ending):
            if state is not None:
                self.wfile.write(b"data: " + _json(state) + b"\n\n")
            elif time.monotonic() >= due:
                self.wfile.write(b": nothing new\n\n")
            else:
                continue
            due = time.monotonic() + HEARTBEAT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the standard library has it
        """Say nothing: addresses are nobody's business, and the terminal is the user's."""


def _json(state: dict[str, Any]) -> bytes:
    return json.dumps(state, separators=(",", ":"), allow_nan=False).encode()


class View:
    """What one page shows: the board and the charts of a range.

    Args:
        path: The ledger.
        settings: As for `BoardReader`.
        span: The name of the range, of `SPANS`.
        session: Only the calls of this session.
    """

    def __init__(self, path: Path, settings: Settings, span: str, session: str | None) -> None:
        self._name = span
        self._span = SPANS[span]
        self._session = session
        self._path = path
        self._watch = BoardReader(path, PanelFilter(session=session, span=self._span), settings, step=self._span.step)
        self._problem: str | None = None

    def close(self) -> None:
        """Close the ledger."""
        self._watch.close()

    def look(self) -> dict[str, Any] | None:
        """Return the state; None where nothing has changed since the last look. A ledger's failure is part of it."""
        try:
            board = self._watch.look()
            sessions = [] if board is None else self._sessions()
        except LedgerError as error:
            if self._problem == str(error):
                return None
            self._problem = str(error)
            return {"problem": self._problem}
        if board is None:
            return None
        self._problem = None
        firsts = self._watch.first_tokens
        return {
            "board": data_of(board),
            "history": charts(self._span, board.at, self._watch.by_step(), firsts),
            "first_token": first_token(firsts),
            "sessions": sessions,
            "range": self._name,
            "session": self._session,
            "ledger": str(self._path),
        }

    def _sessions(self) -> list[str]:
        """Return the sessions of the range's days, the latest first."""
        ledger = self._watch.ledger
        if ledger is None:
            return []
        since = self._span.since(time.time_ns()) // DAY * DAY  # by whole days no row has to be read
        groups = ledger.groups(("session",), Where(since=since))
        named = [group for group in groups if group.key[0]]
        return [group.key[0] for group in sorted(named, key=lambda group: -(group.figures.last_at or 0))][:SESSIONS]

    def states(self, ending: threading.Event) -> Iterator[dict[str, Any] | None]:
        """Return the state when it has changed, and None at every look when it has not, until `ending`."""
        while not ending.is_set():
            yield self.look()
            ending.wait(EVERY)
