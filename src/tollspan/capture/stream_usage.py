"""Asks OpenAI-style streams for their usage, and takes out again what comes of it (setting `stream_usage`).

Such a stream tells its usage only if its request says `stream_options: {include_usage: true}`. Where the provider's
file says that its hosts accept that (`auto`), or everywhere (`always`), the flag is added to a request whose caller has
set no stream options. The usage then comes in one more chunk, whose `choices` are empty; programs that index them would
fail, so the application does not get to see it. Every other byte arrives as it was sent, in pieces of whole events.

A host that answers 400 gets the request once more, as it was; if that is accepted, the host is not asked again.
Nothing is asked where the chunk could not be taken out: where the body is read by the client itself, or by a hook. In
an answer that declares its length, which streams do not, the chunk stays: what is promised must come.
"""

from __future__ import annotations

import functools
import json
import re
import zlib
from typing import TYPE_CHECKING, Any, Final

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
_SEALS: Final = ("digest", "md5", "sha256", "signature")
_SEALING: Final = "aws4-hmac-"


def may_ask(setting: StreamUsage, provider: Provider, dialect: str, facts: Facts, body: Mapping[str, Any]) -> bool:
    """Return whether a request is one whose usage may be asked for."""
    if setting == "never" or dialect != _DIALECT or not facts.stream or "stream_options" in body:
        return False
    return body.get("stream") is True and (setting == "always" or provider.stream_usage)


# What hosts have made of it


Key = tuple[str, int | None, str | None]
"""Host, port, model."""
_MOST_ROUNDS: Final = 10


class HostSupport:
    """What hosts said to being asked, by host and model (a gateway may pass some models on and not others)."""

    MOST: Final = 1000

    def __init__(self) -> None:
        self._accepted: dict[Key, bool] = {}
        self._doubted: dict[Key, tuple[int, int]] = {}  # refusals with and without the flag, requests to leave as are

    def get(self, key: Key) -> bool | None:
        """Return whether a host accepts it; None where nobody knows."""
        return self._accepted.get(key)

    def may_ask(self, key: Key) -> bool:
        """Return whether to ask with the next request, which is counted by that."""
        rounds, unasked = self._doubted.get(key, (0, 0))
        if unasked:
            self._doubted[key] = rounds, unasked - 1
            return False
        return self._accepted.get(key) is not False

    def doubt(self, key: Key) -> None:
        """Take note of a refusal that was not for the flag: after each one more in a row it is asked half as often.

        Were it asked as often, a host that refuses everything would get everything twice.
        """
        rounds, _ = self._doubted.get(key, (0, 0))
        if key not in self._doubted and len(self._doubted) >= self.MOST:
            self._doubted.pop(next(iter(self._doubted)), None)
        self._doubted[key] = rounds + 1, 2 ** min(rounds, _MOST_ROUNDS) - 1

    def put(self, key: Key, *, accepted: bool) -> None:
        """Remember what a host said; the oldest is forgotten once there are too many."""
        self._doubted.pop(key, None)
        if key not in self._accepted and len(self._accepted) >= self.MOST:
            self._accepted.pop(next(iter(self._accepted)), None)
        self._accepted[key] = accepted

    def clear(self) -> None:
        """Forget everything."""
        self._accepted.clear()
        self._doubted.clear()


VERDICTS: Final = HostSupport()

_EXCHANGED: Final = ("_content", "headers", "stream")
"""What a request of either library keeps its body and its headers in."""


class UsageRequest:
    """A request that asks for usage too.

    It is the application's own object that is sent, for transports, hooks and auth flows may know it, or write to it:
    its body, length and accepted encodings are exchanged while it is on its way.
    """

    def __init__(self, lib: ModuleType, request: Any, model: str | None) -> None:
        """Exchange what is sent: the same but for the flag, the length, and encodings that can be redone."""
        self._lib = lib
        self._request = request
        self._key = (request.url.host, request.url.port, model)
        headers = [
            (name, _redoable(value) if name.lower() == b"accept-encoding" else value)
            for name, value in request.headers.raw
            if name.lower() != b"content-length"
        ]
        content = request.content.rstrip()[:-1] + FLAG
        made = lib.Request(request.method, request.url, headers=headers, content=content)
        self._stream = made.stream
        self._made = dict(made.headers.items())
        self._own: dict[str, Any] | None = {name: vars(request)[name] for name in _EXCHANGED}
        vars(request).update({name: vars(made)[name] for name in _EXCHANGED})

    def is_refused(self, response: Any) -> bool:
        """Return whether the flag may be what the host refuses, so that the request should be sent as it was."""
        self._put_back()
        if response.status_code in _SUCCESS:
            VERDICTS.put(self._key, accepted=True)
        return response.status_code in _REFUSALS and VERDICTS.get(self._key) is None

    def is_repeated(self, response: Any) -> None:
        """Take the answer to the application's own request: what it accepts, it did not refuse for anything else."""
        if response.status_code not in _REFUSALS:
            VERDICTS.put(self._key, accepted=False)
        else:
            VERDICTS.doubt(self._key)

    def name_original(self, error: BaseException) -> None:
        """Put the request back as it was, also into an error that names one that a redirect made of it."""
        self._put_back()
        if (named := getattr(error, "_request", None)) is not None:  # `request` itself raises where there is none
            error.request = self._as_asked(named)  # type: ignore[attr-defined]

    def _as_asked(self, request: Any) -> Any:
        """Return back to a request that a redirect made of ours what was the application's own."""
        if request is self._request:
            return request
        own = self._request.headers
        if "accept-encoding" in own:
            request.headers["accept-encoding"] = own["accept-encoding"]
        if request.stream is not self._stream:
            return request
        if "content-length" in own:
            request.headers["content-length"] = own["content-length"]
        return self._lib.Request(
            request.method,
            request.url,
            headers=request.headers.raw,
            content=self._request.content,
            extensions=request.extensions,
        )

    def _put_back(self) -> None:
        """Put the application's body and headers back, with what an auth flow has written into them."""
        own, self._own = self._own, None
        if own is None:
            return
        now, headers = dict(self._request.headers.items()), own["headers"]
        for name, value in now.items():
            if self._made.get(name) != value:
                headers[name] = value
        for name in self._made.keys() - now.keys():
            headers.pop(name, None)
        vars(self._request).update(own)

    def hide(self, response: Any, failed: Callable[[BaseException], None]) -> None:
        """Take out of the answer what the application did not ask for; let it name the application's request."""
        for answer in (*response.history, response):  # with redirects the last answer is to another request
            answer.request = self._as_asked(answer.request)
        if response.next_request is not None:  # a redirect that the application may follow by itself
            response.next_request = self._as_asked(response.next_request)
        if response.status_code not in _SUCCESS or response.is_closed:
            return
        if "event-stream" not in response.headers.get("content-type", "").lower():
            return
        if "content-length" in response.headers:
            return
        cut = _cut_for(response.headers.get("content-encoding", ""))
        if cut is not None:
            is_async = isinstance(response.stream, self._lib.AsyncByteStream)
            kind = _async_stream(self._lib) if is_async else _sync_stream(self._lib)
            response.stream = kind(response.stream, cut, failed)


def ask(lib: ModuleType, client: Any, request: Any, model: str | None) -> UsageRequest | None:
    """Have `request` ask for its usage; None where it must go out as it is."""
    if client.event_hooks.get("response") or _is_sealed(request.headers):
        return None
    if not request.content.rstrip().endswith(b"}") or b"\0" in request.content:  # JSON in UTF-16 or UTF-32
        return None
    if not VERDICTS.may_ask((request.url.host, request.url.port, model)):
        return None
    return UsageRequest(lib, request, model)


def _is_sealed(headers: Any) -> bool:
    """Return whether a header holds good for the very bytes of the body: its digest, a signature of it, its coding."""
    if "content-encoding" in headers or headers.get("authorization", "").lower().startswith(_SEALING):
        return True
    return any(seal in name for name in headers for seal in _SEALS)


# Taking the chunk out

_BLANK_LINE: Final = re.compile(rb"(?>\r\n|\n|\r){2}")
_EMPTY_CHOICES: Final = re.compile(rb'"choices"\s*:\s*\[\]')
_MOST_HELD: Final = 64 * 1024
"""Bytes that an event may have to be looked at; what is longer is no chunk of usage, and is passed on."""


class UsageChunkFilter:
    """Take the chunk of usage out of an event stream; `feed` gives the whole events so far, `close` the rest."""

    def __init__(self) -> None:
        self._held = b""

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes; give those that can be handed on."""
        if not self._held and piece.endswith(b"\n\n") and piece.find(b"[]") < 0:
            return piece  # whole events, and none without choices: nearly every piece of nearly every stream
        text = self._held + piece
        kept, at = [], 0
        for end in _ends(text, max(len(self._held) - _LONGEST_END + 1, 0)):
            if not _is_extra(text[at:end]):
                kept.append(text[at:end])
            at = end
        self._held = text[at:]
        if len(self._held) > _MOST_HELD:
            kept.append(self._held)
            self._held = b""
        return b"".join(kept)

    def close(self) -> bytes:
        """Return what is left when no more bytes come."""
        return b"" if _is_extra(self._held) else self._held

    def left(self) -> bytes:
        """Return what is held back, as it is: nothing more is to be taken out."""
        return self._held


_LONGEST_END: Final = 4


def _ends(text: bytes, start: int) -> Iterator[int]:
    """Return where events end, blank line included, from `start` on."""
    for found in _BLANK_LINE.finditer(text, start):
        if found.end() == len(text) and text.endswith(b"\r"):
            return  # perhaps the first half of a CRLF
        yield found.end()


def _is_extra(event: bytes) -> bool:
    """Return whether an event is the chunk that carries usage and no choice."""
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
    """Take the chunk out of a stream that is content-encoded, which has to be decoded and encoded anew for that."""

    def __init__(self, encoding: str, window: int) -> None:
        """Prepare for `encoding`, which zlib writes with `window` bits."""
        decode = decoder_for(encoding)
        self._decode: Callable[[bytes], bytes] = decode if decode is not None else bytes
        self._encoder = zlib.compressobj(wbits=window)
        self._cut = UsageChunkFilter()

    def feed(self, piece: bytes) -> bytes:
        """Take the next bytes; give those that can be handed on, flushed, so that they can be read at once."""
        text = self._cut.feed(self._decode(piece))
        return self._encoder.compress(text) + self._encoder.flush(zlib.Z_SYNC_FLUSH) if text else b""

    def close(self) -> bytes:
        """Return what is left, and the encoding's own end."""
        return self._encoder.compress(self._cut.close()) + self._encoder.flush()

    def left(self) -> bytes:
        """Return what is held back, as it is, encoded."""
        return self._encoder.compress(self._cut.left()) + self._encoder.flush(zlib.Z_SYNC_FLUSH)


_WINDOWS: Final = {"gzip": zlib.MAX_WBITS | 16, "x-gzip": zlib.MAX_WBITS | 16, "deflate": zlib.MAX_WBITS}
"""The encodings that zlib can write."""


def _redoable(accepted: bytes) -> bytes:
    """Return of an Accept-Encoding header what can be encoded anew."""
    offers = [offer.strip() for offer in accepted.decode("ascii", "replace").split(",")]
    good = [offer for offer in offers if offer.partition(";")[0].strip().lower() in {*_WINDOWS, "identity"}]
    return (", ".join(good) or "identity").encode("ascii")


def _cut_for(encoding: str) -> UsageChunkFilter | EncodedChunkFilter | None:
    encoding = encoding.strip().lower()
    if encoding in {"", "identity"}:
        return UsageChunkFilter()
    return EncodedChunkFilter(encoding, _WINDOWS[encoding]) if encoding in _WINDOWS else None


class _Cleaned:
    """What the two streams share. A failure of our own leaves the rest of the stream as it is."""

    def __init__(
        self, inner: Any, cut: UsageChunkFilter | EncodedChunkFilter, failed: Callable[[BaseException], None]
    ) -> None:
        self._inner = inner
        self._cut: UsageChunkFilter | EncodedChunkFilter | None = cut
        self._failed = failed

    def __getattr__(self, name: str) -> Any:
        if name in {"_inner", "_cut", "_failed"}:  # not made yet: unpickled or copied half-way
            raise AttributeError(name)
        return getattr(self._inner, name)

    def _cleaned(self, piece: bytes) -> bytes:
        if self._cut is None:
            return piece
        try:
            return self._cut.feed(piece)
        except Exception as error:  # noqa: BLE001 - the safe boundary; broken bytes are the application's to complain of
            held = self._cut.left()
            self._cut = None
            self._failed(error)
            return held + piece

    def _rest(self) -> bytes:
        cut, self._cut = self._cut, None
        if cut is None:
            return b""
        try:
            return cut.close()
        except Exception as error:  # noqa: BLE001 - the safe boundary, as above
            self._failed(error)
            return cut.left()


# One subclass for each library and kind, as in the transport. What is cut out was read by the stream inside.


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
                    yield rest  # what had come of an event before the connection broke
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
                    yield rest  # what had come of an event before the connection broke
                raise
            finally:
                await pieces.aclose()
            if rest := self._rest():
                yield rest

        async def aclose(self) -> None:
            await self._inner.aclose()

    return AsyncCleanedStream
