"""Fetch a price file over https, with limits: scheme, redirects, size, time.

It uses the standard library's client, because tollspan meters httpx and a price refresh is not a model call.
"""

from __future__ import annotations

import time
import urllib.error
import urllib.request
from http.client import HTTPException
from ipaddress import ip_address
from typing import IO, TYPE_CHECKING, Final, NamedTuple, Protocol
from urllib.parse import urlsplit

from tollspan.model.errors import PriceTableError

if TYPE_CHECKING:
    from http.client import HTTPMessage, HTTPResponse

PIECE: Final = 64 * 1024
SOCKET_SECONDS: Final = 10.0
WHOLE_SECONDS: Final = 60.0
"""Limit of a whole download: a server that trickles bytes never reaches the socket's time-out."""


class Download(NamedTuple):
    """A downloaded file and its ETag; `data` is None if the server says that it has not changed."""

    data: bytes | None
    etag: str


class Fetch(Protocol):
    """A function that fetches a URL, given the ETag of the current copy and a limit in bytes."""

    def __call__(self, url: str, etag: str, limit: int, /) -> Download:
        """Fetch the URL; raise PriceTableError if that fails."""


def fetch(url: str, etag: str, limit: int, *, patience: float = WHOLE_SECONDS) -> Download:
    """Fetch a URL.

    Args:
        url: https, or http to this machine.
        etag: The ETag of the current copy, empty for none.
        limit: The most bytes to read.
        patience: The most seconds for the whole download.

    Raises:
        PriceTableError: The URL or a redirect is not allowed, the server cannot be reached or responds with another
            status than 200 or 304, or the body is too large or too slow.
    """
    check(url)
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "tollspan"})  # noqa: S310 - checked
    if etag:
        request.add_header("If-None-Match", etag)
    end = time.monotonic() + patience
    try:
        with _opener().open(request, timeout=min(SOCKET_SECONDS, patience)) as response:
            tag = response.headers.get("ETag") or ""
            return Download(_body(response, limit, end), tag)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 304:  # noqa: PLR2004 - Not Modified
            return Download(None, etag)
        raise PriceTableError(f"the server answered {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise PriceTableError(f"download failed: {reason}") from None


def check(url: str) -> None:
    """Check that a URL is https, or http to this machine.

    Raises:
        PriceTableError: It is neither.
    """
    parts = urlsplit(url)
    if parts.scheme == "https" and parts.hostname:
        return
    if parts.scheme == "http" and parts.hostname and _is_loopback(parts.hostname):
        return
    raise PriceTableError(f"{parts.scheme or 'no'} URL: prices are fetched by https, or by http from this machine")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _body(response: HTTPResponse, limit: int, end: float) -> bytes:
    """Read a body in pieces, within its limits."""
    pieces: list[bytes] = []
    size = 0
    while piece := response.read1(PIECE):  # what has arrived: a slow server must not block past the limit
        size += len(piece)
        if size > limit:
            raise PriceTableError(f"the file is larger than {limit} bytes")
        if time.monotonic() > end:
            raise PriceTableError("the download takes too long")
        pieces.append(piece)
    if str(size) != response.headers.get("Content-Length", str(size)):
        raise PriceTableError(f"the download ended after {size} bytes")
    return b"".join(pieces)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows redirects only to URLs that `check` allows."""

    def redirect_request(  # noqa: PLR0913, PLR0917 - the signature of the standard library
        self, req: urllib.request.Request, fp: IO[bytes], code: int, msg: str, headers: HTTPMessage, newurl: str
    ) -> urllib.request.Request | None:
        try:
            check(newurl)
        except PriceTableError:
            fp.close()
            raise
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _opener() -> urllib.request.OpenerDirector:
    """Return a client for http and https, but not for file and ftp."""
    opener = urllib.request.OpenerDirector()
    for handler in (
        urllib.request.ProxyHandler(),
        urllib.request.HTTPHandler(),
        urllib.request.HTTPSHandler(),
        urllib.request.HTTPDefaultErrorHandler(),
        urllib.request.HTTPErrorProcessor(),
        _CheckedRedirects(),
    ):
        opener.add_handler(handler)
    return opener
