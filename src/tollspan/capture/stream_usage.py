"""Requests the usage of OpenAI-style streams, and removes the chunk that it comes in (setting `stream_usage`).

Such a stream reports its usage only if its request has `stream_options: {include_usage: true}`. If the provider's file
says that its hosts accept that (`auto`), or always (`always`), the flag is added to a request whose caller has set no
stream options. The usage then comes in one more chunk, whose `choices` are empty. Programs that index them would fail,
so the application does not get that chunk. Every other byte arrives as it was sent, in pieces of whole events.

A host that responds with 400 gets the original request once more; if it accepts that, the flag is not sent there again.
The flag is not added if the chunk could not be removed: if the client itself, or a hook, reads the body. In a response
that declares its length, which streams do not, the chunk stays, because all declared bytes must come.
"""

from __future__ import annotations

import functools
import json
import re
import zlib
from typing import TYPE_CHECKING, Any, Final

from tollspan.capture.requests import is_sealed
from tollspan.wire.framing.encoding import decoder_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator, Mapping
    from types import ModuleType

    from tollspan.model.records import Facts
    from tollspan.settings import StreamUsage
    from tollspan.wire.providers import Provider

FLAG: Final = b',"stream_options":{"include_usage":true}}'
_DIALECT: Final = "openai_chat"
_REFUSALS: Final = (400, 422)
_SUCCESS: Final = range(200, 300)


def may_ask(setting: StreamUsage, provider: Provider, dialect: str, facts: Facts, body: Mapping[str, Any]) -> bool:
    """Return whether the usage of a request's response may be requested."""
    if setting == "never" or dialect != _DIALECT or not facts.stream or "stream_options" in body:
        return False
    return body.get("stream") is True and (setting == "always" or provider.stream_usage)


# Which hosts support it


Key = tuple[str, int | None, str | None]
"""Host, port, model."""
_MOST_ROUNDS: Final = 10


class HostSupport:
    """Which hosts accept the flag, by host and model (a gateway may pass some models on and not others)."""

    MOST: Final = 1000

    def __init__(self) -> None:
        self._accepted: dict[Key, bool] = {}
        self._doubted: dict[Key, tuple[int, int]] = {}  # refusals with and without the flag; requests to skip

    def get(self, key: Key) -> bool | None:
        """Return whether a host accepts the flag, None if that is not known."""
        return self._accepted.get(key)

    def may_ask(self, key: Key) -> bool:
        """Return whether the next request may have the flag; counts that request."""
        rounds, skipped = self._doubted.get(key, (0, 0))
        if skipped:
            self._doubted[key] = rounds, skipped - 1
            return False
        return self._accepted.get(key) is not False

    def doubt(self, key: Key) -> None:
        """Note a refusal that was not because of the flag: each one in a row halves how often the flag is sent.

        Otherwise a host that refuses everything would get every request twice.
        """
        rounds, _ = self._doubted.get(key, (0, 0))
        if key not in self._doubted and len(self._doubted) >= self.MOST:
            self._doubted.pop(next(iter(self._doubted)), None)
        self._doubted[key] = rounds + 1, 2 ** min(rounds, _MOST_ROUNDS) - 1

    def put(self, key: Key, *, accepted: bool) -> None:
        """Remember whether a host accepts the flag; of too many hosts, the oldest is forgotten."""
        self._doubted.pop(key, None)
        if key not in self._accepted and len(self._accepted) >= self.MOST:
            self._accepted.pop(next(iter(self._accepted)), None)
        self._accepted[key] = accepted

    def clear(self) -> None:
        """Forget everything."""
        self._accepted.clear()
        self._doubted.clear()


HOST_SUPPORT: Final = HostSupport()

_EXCHANGED: Final = ("_content", "headers", "stream")
"""The attributes in which a request of either library keeps its body and its headers."""


class UsageRequest:
    """A request with the flag.

    The application's own object is sent, because transports, hooks and auth flows may know it, or write to it: its
    body, length and accepted encodings are exchanged while it is sent.
    """

    def __init__(self, lib: ModuleType, request: Any, model: str | None) -> None:
        """Exchange the body: the same with the flag, its length, and only encodings that can be redone."""
        self._lib = lib
        self._request = request
        self._key = (request.url.host, request.url.port, model)
        headers = [
            (name, _redoable(value) if name.lower() == b"accept-encoding" else value)
            for name, value in request.headers.raw
            if name.lower() != b"content-length"
        ]
        content = request.content.rstrip()[:-1] + FLAG
        flagged = lib.Request(request.method, request.url, headers=headers, content=content)
        self._stream = flagged.stream
        self._headers = dict(flagged.headers.items())
        self._original: dict[str, Any] | None = {name: vars(request)[name] for name in _EXCHANGED}
        vars(request).update({name: vars(flagged)[name] for name in _EXCHANGED})

    def is_refused(self, response: Any) -> bool:
        """Return whether the host may have refused the flag, so that the original request should be sent."""
        self._put_back()
        if response.status_code in _SUCCESS:
            HOST_SUPPORT.put(self._key, accepted=True)
        return response.status_code in _REFUSALS and HOST_SUPPORT.get(self._key) is None

    def is_repeated(self, response: Any) -> None:
        """Note the response to the original request: if it is accepted, the flag was the reason of the refusal."""
        if response.status_code not in _REFUSALS:
            HOST_SUPPORT.put(self._key, accepted=False)
        else:
            HOST_SUPPORT.doubt(self._key)

    def name_original(self, error: BaseException) -> None:
        """Restore the request, also in an error that names the request that a redirect made of it."""
        self._put_back()
        if (named := getattr(error, "_request", None)) is not None:  # `request` itself raises if there is none
            error.request = self._as_original(named)  # type: ignore[attr-defined]

    def _as_original(self, request: Any) -> Any:
        """Return the request that a redirect made of ours as it would be made of the application's."""
        if request is self._request:
            return request
        headers = self._request.headers
        if "accept-encoding" in headers:
            request.headers["accept-encoding"] = headers["accept-encoding"]
        if request.stream is not self._stream:
            return request
        if "content-length" in headers:
            request.headers["content-length"] = headers["content-length"]
        return self._lib.Request(
            request.method,
            request.url,
            headers=request.headers.raw,
            content=self._request.content,
            extensions=request.extensions,
        )

    def _put_back(self) -> None:
        """Restore the application's body and headers, with what an auth flow has written into them."""
        original, self._original = self._original, None
        if original is None:
            return
        now, headers = dict(self._request.headers.items()), original["headers"]
        for name, value in now.items():
            if self._headers.get(name) != value:
                headers[name] = value
        for name in self._headers.keys() - now.keys():
            headers.pop(name, None)
        vars(self._request).update(original)

    def hide(self, response: Any, failed: Callable[[BaseException], None]) -> None:
        """Remove from a response what the application did not request, and restore the request that it names.

        Args:
            response: what the client returned.
            failed: takes an exception of our own, after which the rest of the body is unchanged.
        """
        for each in (*response.history, response):  # after redirects the last response is to another request
            each.request = self._as_original(each.request)
        if response.next_request is not None:  # a redirect that the application may follow by itself
            response.next_request = self._as_original(response.next_request)
        if response.status_code not in _SUCCESS or response.is_closed:
            return
        if "event-stream" not in response.headers.get("content-type", "").lower():
            return
        if "content-length" in response.headers:
            return
        chunk_filter = _filter_for(response.headers.get("content-encoding", ""))
        if chunk_filter is not None:
            is_async = isinstance(response.stream, self._lib.AsyncByteStream)
            stream_type = _async_stream(self._lib) if is_async else _sync_stream(self._lib)
            response.stream = stream_type(response.stream, chunk_filter, failed)


def request_usage(lib: ModuleType, client: Any, request: Any, model: str | None) -> UsageRequest | None:
    """Add the flag to a request; return None if it must not change."""
    if client.event_hooks.get("response") or is_sealed(request.headers):
        return None
    if not request.content.rstrip().endswith(b"}") or b"\0" in request.content:  # JSON in UTF-16 or UTF-32
        return None
    if not HOST_SUPPORT.may_ask((request.url.host, request.url.port, model)):
        return None
    return UsageRequest(lib, request, model)


# Removing the chunk

_BLANK_LINE: Final = re.compile(rb"(?>\r\n|\n|\r){2}")
_EMPTY_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\]')
_MOST_HELD: Final = 64 * 1024
"""Bytes that a chunk of usage has at most: a longer event is passed on."""


class UsageChunkFilter:
    """Removes the chunk of usage from an event stream; `feed` returns the whole events so far, `close` the rest."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes; return those that can be passed on."""
        if not self._held and piece.endswith(b"\n\n") and piece.find(b"[]") < 0:
            return piece  # whole events, and none without choices: nearly every piece of nearly every stream
        text = self._held + piece
        passed: list[bytes] = []
        at, last = 0, _last_end(text, max(len(self._held) - _LONGEST_GAP + 1, 0), len(text))
        # Only around what the chunk must have is an event looked at: a compressed body may have millions of them.
        while last and (found := _EMPTY_CHOICES.search(text, at, last)) is not None:
            start = _last_end(text, at, found.start()) or at
            blank_line = _BLANK_LINE.search(text, found.end())
            if blank_line is None or _may_go_on(text, blank_line.end()):
                break
            end = blank_line.end()
            passed.append(text[at : start if _is_extra(text[start:end]) else end])
            at = end
        complete = max(at, last)
        passed.append(text[at:complete])
        self._held = text[complete:]
        if len(self._held) > _MOST_HELD:
            passed.append(self._held)
            self._held = b""
        return b"".join(passed)

    def close(self) -> bytes:
        """Return the rest: no more bytes come."""
        return b"" if _is_extra(self._held) else self._held

    def rest(self) -> bytes:
        """Return what is held back, unfiltered."""
        return self._held


_GAPS: Final = (b"\n\n", b"\r\n\r\n", b"\r\r", b"\n\r")
"""What a blank line ends with, and the line end before it."""
_LONGEST_GAP: Final = 4


def _last_end(text: bytes, start: int, stop: int) -> int:
    """Return where the last event ends between `start` and `stop`, its blank line included; 0 if none does."""
    last = 0
    for gap in _GAPS:
        end = text.rfind(gap, start, stop) + len(gap)
        if end >= len(gap) and _may_go_on(text, end):
            end = text.rfind(gap, start, end - 1) + len(gap)
        if end >= len(gap):
            last = max(last, end + (text[end - 1 : end + 1] == b"\r\n"))
    return last


def _may_go_on(text: bytes, end: int) -> bool:
    """Return whether a line end at the end of what was received may be the first half of a CRLF."""
    return end == len(text) and text.endswith(b"\r")


def _is_extra(event: bytes) -> bool:
    """Return whether an event is the chunk with the usage and without choices."""
    if b'"usage"' not in event or not _EMPTY_CHOICES.search(event):
        return False
    lines = (line.partition(b":") for line in event.splitlines())
    data = b"\n".join(value for field, _, value in lines if field == b"data")
    try:
        chunk = json.loads(data)
    except (ValueError, RecursionError):
        return False
    return type(chunk) is dict and chunk.get("choices") == [] and type(chunk.get("usage")) is dict


class EncodedChunkFilter:
    """Removes the chunk from a stream with a content encoding, which is decoded and encoded again for that."""

    def __init__(self, encoding: str, window: int) -> None:
        """Prepare for `encoding`, which zlib writes with `window` bits."""
        decode = decoder_for(encoding)
        self._decode: Callable[[bytes], bytes] = decode if decode is not None else bytes
        self._encoder = zlib.compressobj(wbits=window)
        self._filter = UsageChunkFilter()

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes; return those that can be passed on, flushed, so that they can be read at once."""
        text = self._filter.feed(self._decode(piece))
        return self._encoder.compress(text) + self._encoder.flush(zlib.Z_SYNC_FLUSH) if text else b""

    def close(self) -> bytes:
        """Return the rest, and the end of the encoding."""
        return self._encoder.compress(self._filter.close()) + self._encoder.flush()

    def rest(self) -> bytes:
        """Return what is held back, unfiltered and encoded."""
        return self._encoder.compress(self._filter.rest()) + self._encoder.flush(zlib.Z_SYNC_FLUSH)


_WINDOWS: Final = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""The encodings that zlib can write."""


def _redoable(accepted: bytes) -> bytes:
    """Return the part of an Accept-Encoding header whose encodings can be redone."""
    offers = [offer.strip() for offer in accepted.decode("ascii", "replace").split(",")]
    good = [offer for offer in offers if offer.partition(";")[0].strip().lower() in {*_WINDOWS, "identity"}]
    return (", ".join(good) or "identity").encode("ascii")


def _filter_for(encoding: str) -> UsageChunkFilter | EncodedChunkFilter | None:
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return UsageChunkFilter()
    return EncodedChunkFilter(encoding, _WINDOWS[encoding]) if encoding in _WINDOWS else None


class _Cleaned:
    """The common part of the two streams. After a failure of our own the rest of the stream is unchanged."""

    def __init__(
        self, inner: Any, chunk_filter: UsageChunkFilter | EncodedChunkFilter, failed: Callable[[BaseException], None]
    ) -> None:
        self._inner = inner
        self._filter: UsageChunkFilter | EncodedChunkFilter | None = chunk_filter
        self._failed = failed

    def __getattr__(self, name: str) -> Any:
        if name in {"_inner", "_filter", "_failed"}:  # not set yet: unpickled or copied half-way
            raise AttributeError(name)
        return getattr(self._inner, name)

    def _cleaned(self, piece: bytes) -> bytes:
        if self._filter is None:
            return piece
        try:
            return self._filter.feed(piece)
        except Exception as error:  # noqa: BLE001 - the safe boundary; the application finds broken bytes itself
            held = self._filter.rest()
            self._filter = None
            self._failed(error)
            return held + piece

    def _rest(self) -> bytes:
        chunk_filter, self._filter = self._filter, None
        if chunk_filter is None:
            return b""
        try:
            return chunk_filter.close()
        except Exception as error:  # noqa: BLE001 - the safe boundary, as above
            self._failed(error)
            return chunk_filter.rest()


# One subclass for each library, sync and async, as in the hook. The stream inside has read what is removed here.


@functools.cache
def _sync_stream(lib: Any) -> type:
    class CleanedStream(_Cleaned, lib.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            try:
                for piece in self._inner:
                    if cleaned := self._cleaned(piece):
                        yield cleaned
            except Exception:
                if rest := self._rest():
                    yield rest  # the part of an event that came before the connection broke
                raise
            if rest := self._rest():
                yield rest

        def close(self) -> None:
            self._inner.close()

    return CleanedStream


@functools.cache
def _async_stream(lib: Any) -> type:
    class AsyncCleanedStream(_Cleaned, lib.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            pieces = self._inner.__aiter__()
            try:
                async for piece in pieces:
                    if cleaned := self._cleaned(piece):
                        yield cleaned
            except Exception:
                if rest := self._rest():
                    yield rest  # the part of an event that came before the connection broke
                raise
            finally:
                await pieces.aclose()
            if rest := self._rest():
                yield rest

        async def aclose(self) -> None:
            await self._inner.aclose()

    return AsyncCleanedStream
