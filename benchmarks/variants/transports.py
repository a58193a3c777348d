"""The network, in memory: a transport that answers at once, so that only the client and what meters it cost.

transport(httpx2) -> an object for `Client(transport=...)` and `AsyncClient(transport=...)` of that library
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from benchmarks.variants.answers import answer_to

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from types import ModuleType

    from benchmarks.variants.answers import Answer

_USUAL: Final = [
    (b"date", b"Sun, 22 Nov 2026 00:00:00 GMT"),
    (b"x-request-id", b"req_made"),
    (b"x-ratelimit-limit-requests", b"10000"),
    (b"x-ratelimit-remaining-requests", b"9999"),
]


class _Pieces:
    """A body that comes piece by piece, to either kind of client."""

    def __init__(self, pieces: tuple[bytes, ...]) -> None:
        self._pieces = pieces

    def __iter__(self) -> Iterator[bytes]:
        yield from self._pieces

    async def __aiter__(self) -> AsyncIterator[bytes]:
        for piece in self._pieces:
            yield piece

    def close(self) -> None:
        """Close nothing."""

    async def aclose(self) -> None:
        """Close nothing."""


def transport(lib: ModuleType) -> Any:
    """Return a transport of httpx or httpx2 that answers every request from memory."""
    pieces: Any = type("Pieces", (_Pieces, lib.SyncByteStream, lib.AsyncByteStream), {})
    headers: dict[int, list[tuple[bytes, bytes]]] = {}

    def respond(request: Any) -> Any:
        answer = answer_to(request.content)
        known = headers.get(id(answer))
        if known is None:
            known = headers[id(answer)] = _headers(answer)
        return lib.Response(200, headers=known, stream=pieces(answer.pieces))

    async def respond_later(request: Any) -> Any:
        return respond(request)

    methods = {
        "handle_request": lambda _, request: respond(request),
        "handle_async_request": lambda _, request: respond_later(request),
    }
    return type("Memory", (lib.BaseTransport, lib.AsyncBaseTransport), methods)()


def _headers(answer: Answer) -> list[tuple[bytes, bytes]]:
    headers = [*_USUAL, (b"content-type", answer.content_type.encode())]
    if answer.encoding is not None:
        headers.append((b"content-encoding", answer.encoding.encode()))
    if len(answer.pieces) == 1:
        headers.append((b"content-length", str(len(answer.pieces[0])).encode()))
    return headers
