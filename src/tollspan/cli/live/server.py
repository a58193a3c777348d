"""`tollspan ui`: live spend on a page in the browser of this machine, like `tollspan top`, with charts.

Access: the server listens only on the loopback interface. The Host of a request must be its name, which excludes
foreign names that resolve to this machine. A request must also carry the token of this start. The token is a part of
the printed address; the server exchanges it for a cookie that scripts cannot read and other sites cannot send, and
redirects to an address without it. Paths come from a fixed table and never become file names. The server only reads.
"""

from __future__ import annotations

import contextlib
import hmac
import json
import secrets
import socket
import tempfile
import threading
import time
import webbrowser
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final
from urllib.parse import parse_qs, urlencode, urlsplit

import click

from tollspan.cli.ledger_options import with_ledger
from tollspan.cli.live.board import BoardReader, PanelFilter
from tollspan.cli.live.board_json import data_of
from tollspan.cli.live.history import DEFAULT, SPANS, charts, first_token
from tollspan.ledger.conditions import DAY, Where
from tollspan.model.errors import LedgerError
from tollspan.settings import load
from tollspan.version import __version__

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tollspan.settings import Settings

HOST: Final = "127.0.0.1"
EVERY: Final = 0.25
"""Seconds between two looks at the ledger, and between two events at least."""

HEARTBEAT: Final = 15.0
"""Seconds without an event after which a comment is sent, to notice a page that was closed."""

MOST_PAGES: Final = 16
"""Pages that receive events at the same time."""

SESSIONS: Final = 50
"""Sessions in the list of the page."""

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
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="The port to listen on.  [default: a free one]")
@click.option("--open/--no-open", "show", default=False, help="Open the page in the browser.  [default: off]")
def ui(path: Path, port: int, *, show: bool) -> None:
    r"""Show live spend on a local web page.

    The page needs no network: the package contains all of it. Only this machine can open it, and only with the printed
    address. Press Ctrl-C to quit.

    \b
    Examples:
      tollspan ui --open
      tollspan ui --port 8080
      ssh -L 8080:127.0.0.1:8080 server     # then tollspan ui --port 8080 there, and open the address here
    """
    try:
        server = Server(path, load(), port)
    except OSError as error:
        raise click.ClickException(
            f"cannot listen on port {port}: {error.strerror}; --port 0 picks a free one"
        ) from None
    click.echo(f"tollspan ui: {server.url}")
    click.echo(f"  ledger {path}; only this machine can open the page; press Ctrl-C to quit")
    with contextlib.suppress(KeyboardInterrupt), _opened(server.url) if show else contextlib.nullcontext():
        server.serve_forever(poll_interval=EVERY)
    server.server_close()


class Server(ThreadingHTTPServer):
    """The server of the page for one ledger.

    Args:
        path: The ledger; it need not exist yet.
        settings: They name the budget store, and the tags whose values are shown even at zero.
        port: The port to listen on; 0 picks a free one.

    Raises:
        OSError: the port is not available.
    """

    daemon_threads = True
    allow_reuse_address = True

    def __init__(self, path: Path, settings: Settings, port: int = 0) -> None:
        self.ending = threading.Event()  # first: if a later line fails, `server_close` needs it
        super().__init__((HOST, port), _Handler)
        self.path = path
        self.settings = settings
        self.token = secrets.token_urlsafe(24)
        self.assets = {url_path: (_asset(name), media_type) for url_path, (name, media_type) in _ASSETS.items()}
        self.free_pages = threading.BoundedSemaphore(MOST_PAGES)

    @property
    def port(self) -> int:
        """Return the port that the server listens on."""
        return int(self.server_address[1])

    @property
    def url(self) -> str:
        """Return the address to open, with the token."""
        return f"http://{HOST}:{self.port}/?{urlencode({'token': self.token})}"

    @property
    def cookie(self) -> str:
        """Return the name of the cookie. It contains the port, because browsers share cookies between ports."""
        return f"tollspan_{self.port}"

    def server_bind(self) -> None:
        """Bind the socket without a DNS query, which the standard library makes for the name of the host."""
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = HOST, self.server_address[1]

    def server_close(self) -> None:
        """End the event streams of all pages, and close the socket."""
        self.ending.set()
        super().server_close()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Report an error, except for a browser that closed its connection during a response."""
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
        """Respond to a request."""
        parts = urlsplit(self.path)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if not self._is_our_host(self.headers.get("Host", "")):
            self._refuse(HTTPStatus.MISDIRECTED_REQUEST, "The Host header does not name this server.")
        elif parts.path == "/" and self._is_token(query.get("token", "")):
            self._set_cookie()
        elif not self._has_token():
            self._refuse(HTTPStatus.FORBIDDEN, "Open the address that `tollspan ui` has printed.")
        elif parts.path in self.server.assets:
            self._send(*self.server.assets[parts.path])
        elif parts.path == "/state":
            self._state(query)
        elif parts.path == "/events":
            self._events(query)
        else:
            self._refuse(HTTPStatus.NOT_FOUND, "Not found.")

    do_HEAD = do_GET  # noqa: N815 - the standard library looks for this name

    def _is_our_host(self, host: str) -> bool:
        return host.lower() in {f"{name}:{self.server.port}" for name in (HOST, "localhost")}

    def _is_token(self, text: str) -> bool:
        return hmac.compare_digest(text.encode(), self.server.token.encode())

    def _has_token(self) -> bool:
        """Return whether the request carries the token: in the cookie, or, from programs, as a bearer token."""
        scheme, _, token = self.headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self._is_token(token.strip())
        return any(self._is_token(value) for value in self._cookies())

    def _cookies(self) -> Iterator[str]:
        """Return the values of our cookie.

        Browsers send the cookies of all programs on this machine, in forms that `http.cookies` refuses as a whole.
        """
        for header in self.headers.get_all("Cookie", ()):
            for pair in header.split(";"):
                name, equals, value = pair.partition("=")
                if equals and name.strip() == self.server.cookie:
                    yield value.strip()

    def _set_cookie(self) -> None:
        """Exchange the token in the address for a cookie, and redirect to the address without the token."""
        self.send_response(HTTPStatus.SEE_OTHER)
        self.send_header("Location", "/")
        self.send_header("Set-Cookie", f"{self.server.cookie}={self.server.token}; HttpOnly; SameSite=Strict; Path=/")
        self._end(b"")

    def _refuse(self, status: HTTPStatus, message: str) -> None:
        self._send(f"{message}\n".encode(), "text/plain; charset=utf-8", status)

    def _send(self, body: bytes, media_type: str, status: HTTPStatus = HTTPStatus.OK) -> None:
        self.send_response(status)
        self.send_header("Content-Type", media_type)
        self._end(body)

    def _end(self, body: bytes) -> None:
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    # The state of the page

    def _view(self, query: dict[str, str]) -> View | None:
        """Return the requested view; respond with 400 and return None if its range is unknown."""
        span = query.get("range", DEFAULT)
        if span not in SPANS:
            self._refuse(HTTPStatus.BAD_REQUEST, f"range must be one of {', '.join(SPANS)}.")
            return None
        return View(self.server.path, self.server.settings, span, query.get("session") or None)

    def _state(self, query: dict[str, str]) -> None:
        view = self._view(query)
        if view is not None:
            with contextlib.closing(view):
                self._send(_json(view.look() or {}), "application/json")

    def _events(self, query: dict[str, str]) -> None:
        """Send the state whenever it changes, until the page is closed (HTML standard, "Server-sent events")."""
        view = self._view(query)
        if view is None:
            return
        if not self.server.free_pages.acquire(blocking=False):
            self._refuse(HTTPStatus.SERVICE_UNAVAILABLE, f"{MOST_PAGES} pages are already open. Close one of them.")
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
            self.server.free_pages.release()

    def _send_all(self, view: View) -> None:
        due = time.monotonic() + HEARTBEAT
        for state in view.states(self.server.ending):
            if state is not None:
                self.wfile.write(b"data: " + _json(state) + b"\n\n")
            elif time.monotonic() >= due:
                self.wfile.write(b": no change\n\n")
            else:
                continue
            due = time.monotonic() + HEARTBEAT

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - as the standard library has it
        """Log nothing: addresses are private, and the terminal belongs to the user."""


def _json(state: dict[str, Any]) -> bytes:
    return json.dumps(state, separators=(",", ":"), allow_nan=False).encode()


@contextlib.contextmanager
def _opened(address: str) -> Iterator[None]:
    """Open an address in the browser, by way of a file that only this user can read.

    The arguments of a browser's process can be read by every user of the machine, and the address holds the token.
    """
    with tempfile.NamedTemporaryFile("w", prefix="tollspan-", suffix=".html", encoding="utf-8") as file:
        file.write(f'<!doctype html><meta http-equiv="refresh" content="0; url={address}"><title>tollspan</title>')
        file.flush()
        webbrowser.open(Path(file.name).as_uri())
        yield


class View:
    """The data of one page: the board and the charts of a range.

    Args:
        path: The ledger.
        settings: As for `BoardReader`.
        span: The name of the range, a key of `SPANS`.
        session: Only the calls of this session; None means all.
    """

    def __init__(self, path: Path, settings: Settings, span: str, session: str | None) -> None:
        self._name = span
        self._span = SPANS[span]
        self._session = session
        self._path = path
        self._reader = BoardReader(path, PanelFilter(session=session, span=self._span), settings, step=self._span.step)
        self._problem: str | None = None

    def close(self) -> None:
        """Close the ledger."""
        self._reader.close()

    def look(self) -> dict[str, Any] | None:
        """Return the state, or None if nothing has changed since the last look. A failure of the ledger is a state."""
        try:
            board = self._reader.look()
            sessions = [] if board is None else self._sessions()
        except LedgerError as error:
            if self._problem == str(error):
                return None
            self._problem = str(error)
            return {"problem": self._problem}
        if board is None:
            return None
        self._problem = None
        firsts = self._reader.first_tokens
        return {
            "board": data_of(board),
            "history": charts(self._span, board.at, self._reader.by_step(), firsts),
            "first_token": first_token(firsts),
            "sessions": sessions,
            "range": self._name,
            "session": self._session,
            "ledger": str(self._path),
        }

    def _sessions(self) -> list[str]:
        """Return the sessions in the days of the range, the latest first."""
        ledger = self._reader.ledger
        if ledger is None:
            return []
        since = self._span.since(time.time_ns()) // DAY * DAY  # for whole days, the totals suffice
        groups = ledger.groups(("session",), Where(since=since))
        named = [group for group in groups if group.key[0]]
        return [group.key[0] for group in sorted(named, key=lambda group: -(group.figures.last_at or 0))][:SESSIONS]

    def states(self, ending: threading.Event) -> Iterator[dict[str, Any] | None]:
        """Yield the state if it has changed, else None, at each look until `ending` is set."""
        while not ending.is_set():
            yield self.look()
            ending.wait(EVERY)
