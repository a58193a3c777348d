"""Fetching a price file: which addresses, how much, how long; a real server on this machine."""

from __future__ import annotations

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING

import pytest

from tollspan.model.errors import PriceTableError
from tollspan.prices.download import Download, check, fetch

if TYPE_CHECKING:
    from collections.abc import Iterator

LIMIT = 100_000


class _Handler(BaseHTTPRequestHandler):
    """Answers each path in its own way."""

    stop: threading.Event

    def do_GET(self) -> None:
        """Download by the path."""
        match self.path:
            case "/file":
                if self.headers.get("If-None-Match") == '"v1"':
                    self._answer(304, {}, b"")
                else:
                    self._answer(200, {"ETag": '"v1"'}, b"{}")
            case "/huge":
                self._answer(200, {}, b"x" * (LIMIT + 1))
            case "/short":
                self._answer(200, {"Content-Length": "500"}, b"{")
            case "/slow":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(b"{")
                self.wfile.flush()
                self.stop.wait(30)
            case "/moved":
                self._answer(302, {"Location": "/file"}, b"")
            case "/moved-to-file":
                self._answer(302, {"Location": "file:///etc/hostname"}, b"")
            case "/moved-to-http":
                self._answer(302, {"Location": "http://prices.example/file"}, b"")
            case "/moved-for-ever":
                self._answer(302, {"Location": "/moved-for-ever"}, b"")
            case _:
                self._answer(404, {}, b"nothing here")

    def _answer(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.send_response(status)
        for name, value in {"Content-Length": str(len(body)), **headers}.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the standard library's name
        """Say nothing."""


@pytest.fixture
def server() -> Iterator[str]:
    """Return the address of a server on loopback."""
    stop = threading.Event()
    handler = type("Handler", (_Handler,), {"stop": stop})
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as served:
        thread = threading.Thread(target=served.serve_forever, args=(0.01,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{served.server_port}"
        stop.set()
        served.shutdown()
        thread.join(30)


def test_a_file_and_its_tag(server: str) -> None:
    """The file comes with its tag; who sends the tag back is told that nothing has changed."""
    assert fetch(f"{server}/file", "", LIMIT) == Download(b"{}", '"v1"')
    assert fetch(f"{server}/file", '"v1"', LIMIT) == Download(None, '"v1"')
    assert fetch(f"{server}/moved", "", LIMIT).data == b"{}"


@pytest.mark.parametrize(
    ("path", "says"),
    [
        ("/none", "the server answered 404"),
        ("/huge", "larger than 100000 bytes"),
        ("/short", "the download ended after 1 bytes"),
        ("/moved-to-file", "Redirection to url 'file:///etc/hostname' is not allowed"),
        ("/moved-to-http", "http URL: prices are fetched by https"),
        ("/moved-for-ever", "the server answered 302"),
        ("/slow", "download failed: "),
    ],
)
def test_what_is_refused(server: str, path: str, says: str) -> None:
    """Errors, sizes, endless waits and redirects to elsewhere end in one clear message."""
    with pytest.raises(PriceTableError) as told:
        fetch(server + path, "", LIMIT, patience=0.5 if path == "/slow" else 30)
    assert says in str(told.value)


def test_a_server_that_is_not_there() -> None:
    """Nothing listens on port 1: one line, no traceback of a socket."""
    with pytest.raises(PriceTableError, match="download failed"):
        fetch("http://127.0.0.1:1/file", "", LIMIT)


@pytest.mark.parametrize("url", ["https://prices.example/x", "http://localhost:8/x", "http://[::1]/x"])
def test_addresses_that_are_allowed(url: str) -> None:
    """Https anywhere, http on this machine."""
    check(url)


@pytest.mark.parametrize(
    "url",
    [
        "http://prices.example/x",
        "file:///etc/passwd",
        "ftp://prices.example/x",
        "prices.json",
        "https:///x",
        "data:,{}",
    ],
)
def test_addresses_that_are_not(url: str) -> None:
    """Everything else is refused before anything is opened."""
    with pytest.raises(PriceTableError, match="prices are fetched by https"):
        check(url)
