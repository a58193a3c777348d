"""Fetch a price file over https, with limits: scheme, redirects, size, time.

Uses the standard library's client: httpx is what tollspan meters, and a price refresh is no LLM call.
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
"""A server that sends a byte now and then keeps the socket alive, not the patience."""


class Answer(NamedTuple):
    """What a fetch brought: `data` is None where the server says that nothing has changed."""

    data: bytes | None
    etag: str


class Fetch(Protocol):
    """What fetches a URL, given the tag of what is known already and the most bytes to read."""

    def __call__(self, url: str, etag: str, limit: int, /) -> Answer:
        """Fetch; raises PriceTableError."""


def fetch(url: str, etag: str, limit: int, *, patience: float = WHOLE_SECONDS) -> Answer:
    """Fetch a URL.

    Args:
        url: https, or http to this machine.
        etag: The tag of the copy at hand, empty for none.
        limit: The most bytes that are read.
        patience: The most seconds that all of it may take.

    Raises:
        PriceTableError: when the URL or a redirect is not allowed, the server cannot be reached or does not answer
            with 200 or 304, or what it sends is too large or too slow.
    """
    check(url)
    request = urllib.request.Request(url, headers={"Accept": "application/json", "User-Agent": "tollspan"})  # noqa: S310 - checked
    if etag:
        request.add_header("If-None-Match", etag)
    end = time.monotonic() + patience
    try:
        with _opener().open(request, timeout=min(SOCKET_SECONDS, patience)) as response:
            tag = response.headers.get("ETag") or ""
            return Answer(_body(response, limit, end), tag)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 304:  # noqa: PLR2004 - Not Modified
            return Answer(None, etag)
        raise PriceTableError(f"the server answered {error.code} {error.reason}") from None
    except (OSError, HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        raise PriceTableError(f"it cannot be fetched: {reason}") from None


def check(url: str) -> None:
    """Refuse a URL that is neither https nor http to this machine.

    Raises:
        PriceTableError: with what is accepted.
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
    """Read a body as it comes, within its limits."""
    pieces: list[bytes] = []
    size = 0
    while piece := response.read1(PIECE):  # what is there: a slow server must not be waited for inside
        size += len(piece)
        if size > limit:
            raise PriceTableError(f"it is larger than {limit} bytes")
        if time.monotonic() > end:
            raise PriceTableError("it takes too long")
        pieces.append(piece)
    if str(size) != response.headers.get("Content-Length", str(size)):
        raise PriceTableError(f"it ended after {size} bytes")
    return b"".join(pieces)


class _CheckedRedirects(urllib.request.HTTPRedirectHandler):
    """Follows a redirect only to where the URL itself might have pointed."""

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
    """Make a client that knows http and https, and neither file nor ftp."""
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
