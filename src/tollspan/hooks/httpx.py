"""The hook: `Client.send` and `AsyncClient.send` of httpx or httpx2, one wrapper given the module.

The application gets the same response objects, bytes, pieces and exceptions at the same time. A body that streams is
read through a stream of the library's own type around the one it had; each piece is read after it was handed over.
Sync and async differ only where they await.

`Client.send` is the narrowest place that every request passes, with whatever transport: mock, custom, aiohttp-backed.
"""

from __future__ import annotations

import functools
import sys
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, attach, detach, get_current

from tollspan.attribution import strip_header, without_baggage
from tollspan.budget.denials.stream_cut import followable
from tollspan.capture.attempt import Attempt, begin
from tollspan.capture.background_poll import BackgroundPoll, poll_of
from tollspan.capture.batch_exchange import BatchRequest, follow, is_of_a_batch
from tollspan.capture.requests import names_of
from tollspan.capture.stream_usage import ask
from tollspan.runtime import finalizers
from tollspan.wire.dialects import ENDINGS
from tollspan.wire.reader import READ_SIZE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable, Iterator
    from contextvars import Token
    from types import ModuleType

    from tollspan.budget.denials.stream_cut import Follower
    from tollspan.capture.recorder import Recorder
    from tollspan.capture.stream_usage import UsageRequest
    from tollspan.wire.providers import Directory

_Followed = Attempt | BackgroundPoll | BatchRequest | Context
"""What a request is sent under: what follows it, or, where nothing does, another context."""

_ORIGINAL: Final = "__tollspan_original__"
_OPTIONS: Final = frozenset({"stream", "auth", "follow_redirects"})
_POSITIONAL: Final = 2
"""What `Client.send` takes in all versions of both libraries: these by name, itself and a request before them."""

_LAST_WORDS: Final = {
    **{letter: tuple(word for word in ENDINGS if word[-1] == letter) for letter in {word[-1] for word in ENDINGS}},
    "/": tuple(f"{word}/" for word in ENDINGS),
}
"""What the paths of model calls end with at hosts that are nobody's, by the last letter: most other paths have none."""

_installed: Final[dict[type, Callable[..., Any]]] = {}
"""Our function in force, by class. A mark on it would not do: `functools.wraps` copies that to others' wrappers."""


def wrap(lib: ModuleType, recorder: Recorder) -> None:
    """Meter every request of `lib` (httpx or httpx2); one that is wrapped already stays as it is."""
    if lib.Client in _installed:
        return
    finalizers.watch()
    lib.Client.send = _installed[lib.Client] = _sync_send(lib.Client.send, recorder, lib)
    lib.AsyncClient.send = _installed[lib.AsyncClient] = _async_send(lib.AsyncClient.send, recorder, lib)


def unwrap(lib: ModuleType) -> None:
    """Put back what `wrap` replaced; where somebody has wrapped that, theirs stays, and ours below does nothing."""
    finalizers.unwatch()
    for name in ("Client", "AsyncClient"):
        client: Any = getattr(lib, name, None)  # none yet where it is being imported
        ours = _installed.pop(client, None)
        if ours is not None and client.send is ours:
            client.send = getattr(ours, _ORIGINAL)


def is_wrapped(lib: ModuleType) -> bool:
    """Return whether requests of `lib` reach us: our function is in force, alone or inside of others' that name it."""
    ours, send = _installed.get(lib.Client), lib.Client.send
    while ours is not None and send is not None:
        if send is ours:
            return True
        send = getattr(send, "__wrapped__", None)
    return False


def other_traffic(recorder: Recorder) -> Callable[[Any], bool]:
    """Return what tells nearly all requests that are no model calls, at hosts where no provider is; False says nothing.

    A URL's properties are calls, and each step here is dear to a request that has nothing to do with us. So this reads
    what they read, where hosts and paths are as they are sent; where a library has that no more, all is looked at.
    """
    unrecognized, pending = recorder.directory.unrecognized, recorder.pending_responses.pending

    def is_other(request: Any) -> bool:
        try:
            parts = request.url._uri_reference  # noqa: SLF001 - as just said
            path, port = parts.path or "/", parts.port
            return (
                (parts.host if port is None else (parts.host, port)) in unrecognized
                and (path[-1] not in _LAST_WORDS or not path.endswith(_LAST_WORDS[path[-1]]))
                and "atch" not in path  # see `is_of_a_batch`
                and "/files/" not in path
                and "%" not in path
                and not pending
            )
        except Exception:  # noqa: BLE001 - the safe boundary
            return False

    return is_other


def _begin(recorder: Recorder, request: Any) -> _Followed | None:
    """Return what a request is to be sent under; None where it is none of our business."""
    found: Attempt | BackgroundPoll | BatchRequest | None = None
    headers: frozenset[bytes] | None = None
    try:
        url = request.url
        host, port, path = url.host, url.port, url.path
        known = recorder.directory.find(host, port, path) if request.method == "POST" else None
        if known is not None:
            headers = names_of(request)
            found = begin(recorder, request, known, path, headers)
        elif recorder.pending_responses.pending:
            found = poll_of(recorder, request, path)
        if found is None and is_of_a_batch(path):
            found = follow(recorder, request, path)
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("request", error)
    try:
        if isinstance(found, Attempt) or _goes_to_provider(recorder.directory, request.url):
            return _without_baggage(request, found, headers or names_of(request))
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("baggage", error)
    return found


def _goes_to_provider(directory: Directory, url: Any) -> bool:
    """Return whether a provider is at a URL; where none is at its host, that is remembered for `other_traffic`."""
    path, providers = url.path, directory.of_host(url.host, url.port)
    if not providers:
        directory.leave_alone(url.raw_host.decode("ascii"), url.port)
    return any(path.startswith(provider.path_prefix) for provider in providers)


def _without_baggage(
    request: Any, found: Attempt | BackgroundPoll | BatchRequest | None, headers: frozenset[bytes]
) -> _Followed | None:
    """Take our baggage from a request to a provider; give its context, where that is another and nothing follows it.

    That is any request: a list of models, a file, a poll. Attribution is the application's own affair there, too.
    """
    if b"baggage" in headers:
        strip_header(request.headers)
    current = get_current()
    if not current:
        return found
    if found is not None:
        found.context = without_baggage(found.context)
        return found
    context = without_baggage(current)
    return None if context is current else context


def _ask(
    recorder: Recorder, lib: ModuleType, client: Any, request: Any, attempt: Attempt | BackgroundPoll | BatchRequest
) -> UsageRequest | None:
    """Have a request ask for its usage too, where it may (`capture/stream_usage.py`)."""
    if isinstance(attempt, BatchRequest) or not attempt.asks_usage:
        return None
    try:
        return ask(lib, client, request, attempt.facts.request_model)
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("stream_usage", error)
        return None


def _broken(
    recorder: Recorder,
    attempt: Attempt | BackgroundPoll | BatchRequest,
    asked: UsageRequest | None,
    error: BaseException,
) -> None:
    """End what follows a request, which is to be what it was where it asked for its usage."""
    if asked is not None:
        try:
            asked.name_original(error)
        except Exception as failure:  # noqa: BLE001 - the safe boundary
            recorder.failed("stream_usage", failure)
    attempt.broken(error)


def _answered(
    recorder: Recorder,
    attempt: Attempt | BackgroundPoll | BatchRequest,
    response: Any,
    stream: type | None,
    asked: UsageRequest | None,
) -> None:
    """Read what there is of a response: all of it, or, with `stream`, what comes when the application reads."""
    try:
        attempt.answered(response)
        if attempt.follower is not None and not followable(response.headers):
            attempt.follower = None
        if stream is not None and not response.is_closed:
            attempt.opened(response)
            response.stream = stream(response.stream, attempt)
        else:
            attempt.whole(response)
            attempt.done()
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("response", error)
        attempt.done()
    if asked is not None:
        try:
            asked.hide(response, functools.partial(recorder.failed, "stream_usage"))
        except Exception as error:  # noqa: BLE001 - the safe boundary
            recorder.failed("stream_usage", error)


# What other traffic passes of ours is one of these, and `is_other`. To hand on arguments whatever they are would cost
# it more than all else, so the libraries' own functions, whose arguments are known, have a front of their own.


def _sync_front(original: Callable[..., Any], recorder: Recorder, metered: Callable[..., Any]) -> Callable[..., Any]:
    """Return a function in the place of `original`: it hands other traffic on, and has all else `metered`."""
    is_other = other_traffic(recorder)

    def anything(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = original if is_other(request) else metered
        return chosen(self, request, *args, **kwargs)

    def known(self: Any, request: Any, *, stream: Any, auth: Any, follow_redirects: Any) -> Any:
        chosen = original if is_other(request) else metered
        return chosen(self, request, stream=stream, auth=auth, follow_redirects=follow_redirects)

    known.__kwdefaults__ = getattr(original, "__kwdefaults__", None)
    return _named(known if _takes_options(original) else anything, original)


def _async_front(original: Callable[..., Any], recorder: Recorder, metered: Callable[..., Any]) -> Callable[..., Any]:
    """Do as `_sync_front`."""
    is_other = other_traffic(recorder)

    async def anything(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = original if is_other(request) else metered
        return await chosen(self, request, *args, **kwargs)

    async def known(self: Any, request: Any, *, stream: Any, auth: Any, follow_redirects: Any) -> Any:
        chosen = original if is_other(request) else metered
        return await chosen(self, request, stream=stream, auth=auth, follow_redirects=follow_redirects)

    known.__kwdefaults__ = getattr(original, "__kwdefaults__", None)
    return _named(known if _takes_options(original) else anything, original)


def _takes_options(send: Callable[..., Any]) -> bool:
    """Return whether a function takes what the libraries' own do, and no more: what others put there may take more."""
    code, defaults = getattr(send, "__code__", None), getattr(send, "__kwdefaults__", None) or {}
    if code is None or code.co_flags & (CO_VARARGS | CO_VARKEYWORDS):
        return False
    return (code.co_argcount, code.co_kwonlyargcount) == (_POSITIONAL, len(_OPTIONS)) and set(defaults) == _OPTIONS


def _named(front: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Have `front` look like what it stands in front of."""
    functools.update_wrapper(front, original)
    setattr(front, _ORIGINAL, original)
    return front


# The twins differ only where they await.


def _sync_send(original: Callable[..., Any], recorder: Recorder, lib: ModuleType) -> Callable[..., Any]:
    stream_type, client = _sync_stream(lib), lib.Client

    def metered(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        found = _begin(recorder, request) if _installed.get(client) is send else None
        if found is None:
            return original(self, request, *args, **kwargs)
        if isinstance(found, Context):
            token = attach(found)
            try:
                return original(self, request, *args, **kwargs)
            finally:
                detach(token)
        stream = bool(kwargs.get("stream"))
        if recorder.guard is not None and isinstance(found, Attempt):
            request = recorder.admission.admit(recorder, found, request, lib, stream=stream)
            if isinstance(request, lib.Response):
                return request
        token = attach(found.context)
        asked = _ask(recorder, lib, self, request, found) if stream else None
        try:
            response = original(self, request, *args, **kwargs)
            if asked is not None and asked.is_refused(response):
                response.close()
                response = original(self, request, *args, **kwargs)
                asked.is_repeated(response)
        except BaseException as error:
            _broken(recorder, found, asked, error)
            raise
        finally:
            detach(token)
        _answered(recorder, found, response, stream_type if stream else None, asked)
        return response

    send = _sync_front(original, recorder, metered)
    return send


def _leave(context: Context, token: Token[Context]) -> None:
    """Leave a context, but where the collector closes a task's coroutine, which it does outside of the task's own."""
    if get_current() is context or sys.exc_info()[0] is not GeneratorExit:
        detach(token)


def _async_send(original: Callable[..., Any], recorder: Recorder, lib: ModuleType) -> Callable[..., Any]:
    stream_type, client = _async_stream(lib), lib.AsyncClient

    async def metered(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        found = _begin(recorder, request) if _installed.get(client) is send else None
        if found is None:
            return await original(self, request, *args, **kwargs)
        if isinstance(found, Context):
            shielded = attach(found)
            try:
                return await original(self, request, *args, **kwargs)
            finally:
                _leave(found, shielded)
        stream = bool(kwargs.get("stream"))
        if recorder.guard is not None and isinstance(found, Attempt):
            request = await recorder.admission.admit_async(recorder, found, request, lib, stream=stream)
            if isinstance(request, lib.Response):
                return request
        token = attach(found.context)
        asked = _ask(recorder, lib, self, request, found) if stream else None
        try:
            response = await original(self, request, *args, **kwargs)
            if asked is not None and asked.is_refused(response):
                await response.aclose()
                response = await original(self, request, *args, **kwargs)
                asked.is_repeated(response)
        except BaseException as error:
            _broken(recorder, found, asked, error)
            raise
        finally:
            _leave(found.context, token)
        _answered(recorder, found, response, stream_type if stream else None, asked)
        return response

    send = _async_front(original, recorder, metered)
    return send


class _Metered:
    """What the two streams share: the stream that was there, its attempt, and whatever else that stream has."""

    def __init__(self, inner: Any, attempt: Attempt | BackgroundPoll | BatchRequest) -> None:
        self._inner = inner
        self._attempt = attempt
        # Anthropic's SDK asks for this at each event; two objects would each have to raise that it is not there.
        self.stream_observer = getattr(inner, "stream_observer", None)

    def __getattr__(self, name: str) -> Any:
        if name in {"_inner", "_attempt"}:  # not made yet: unpickled or copied half-way
            raise AttributeError(name)
        return getattr(self._inner, name)  # httpx2 asks the stream for `elapsed`

    def __del__(self) -> None:
        # The response was collected unread. Its attempt ends here, so that the record is not lost.
        if (attempt := self.__dict__.get("_attempt")) is not None:
            finalizers.end(attempt.left)


def _parts(attempt: Attempt | BackgroundPoll | BatchRequest, piece: bytes) -> Iterable[bytes]:
    """Return what is handed over of a piece: all of it, or what is let pass where a budget may cut the stream."""
    return (piece,) if attempt.follower is None else _passed_on(attempt, attempt.follower, piece)


def _passed_on(attempt: Attempt, follower: Follower, piece: bytes) -> Iterator[bytes]:
    for part in follower.pass_on(piece):
        if follower.budget is not None:
            attempt.cut_off(follower.budget)  # once the closing events are handed over, nobody may come back
        yield part


def _is_cut(attempt: Attempt | BackgroundPoll | BatchRequest) -> bool:
    return attempt.follower is not None and attempt.follower.cut


def _rest(attempt: Attempt | BackgroundPoll | BatchRequest) -> tuple[bytes, ...]:
    """Return what was kept back of a stream that a budget may cut, where it ended by itself."""
    rest = attempt.follower.rest() if attempt.follower is not None else b""
    return (rest,) if rest else ()


# Responses insist on streams of their library's own types, so there is one subclass for each library.


@functools.cache
def _sync_stream(lib: Any) -> type:
    class MeteredStream(_Metered, lib.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            attempt = self._attempt
            flowing, flowed = attempt.flowing, 0
            try:
                for piece in self._inner:
                    if flowing is not None:
                        flowing.append(piece)
                        flowed += len(piece)
                        yield piece
                        if flowed >= READ_SIZE:
                            attempt.read()
                            flowing, flowed = attempt.flowing, 0
                        continue
                    attempt.arrived(piece)
                    yield from _parts(attempt, piece)
                    if _is_cut(attempt):
                        break
                    attempt.read()
                    flowing = attempt.flowing
                yield from _rest(attempt)
            except GeneratorExit:
                raise  # the application stopped; it closes the response
            except BaseException as error:
                attempt.broken(error)
                raise
            attempt.done()

        def close(self) -> None:
            try:
                self._inner.close()
            finally:
                # The collector gets here too: it closes a generator that was left in the middle, and that its response.
                finalizers.end(self._attempt.left)

    return MeteredStream


@functools.cache
def _async_stream(lib: Any) -> type:  # noqa: C901 - as its twin above
    class AsyncMeteredStream(_Metered, lib.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            attempt = self._attempt
            flowing, flowed = attempt.flowing, 0
            pieces = self._inner.__aiter__()
            try:
                async for piece in pieces:
                    if flowing is not None:
                        flowing.append(piece)
                        flowed += len(piece)
                        yield piece
                        if flowed >= READ_SIZE:
                            attempt.read()
                            flowing, flowed = attempt.flowing, 0
                        continue
                    attempt.arrived(piece)
                    for part in _parts(attempt, piece):
                        yield part
                    if _is_cut(attempt):
                        break
                    attempt.read()
                    flowing = attempt.flowing
                for part in _rest(attempt):
                    yield part
            except GeneratorExit:
                raise  # the application stopped; it closes the response
            except BaseException as error:
                attempt.broken(error)
                raise
            finally:
                if isinstance(pieces, AsyncGeneratorType):  # else it is not ours to close: it may be read on
                    await pieces.aclose()
            attempt.done()

        async def aclose(self) -> None:
            try:
                await self._inner.aclose()
            finally:
                self._attempt.left()

    return AsyncMeteredStream
