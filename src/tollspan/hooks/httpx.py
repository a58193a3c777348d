"""The hook of httpx and httpx2: `wrap(module, recorder)` replaces `Client.send` and `AsyncClient.send`.

The application gets the same response objects, bytes, chunks and exceptions at the same time. A body that streams is
read through a stream of the library's own type, around the original one; each chunk is read after it was handed over.
The sync and the async half differ only where they await. What follows a request is decided in `capture/followed.py`.

`Client.send` is the narrowest point that every request passes, with any transport: mock, custom, aiohttp-backed.
"""

from __future__ import annotations

import functools
import sys
from datetime import timedelta
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import AsyncGeneratorType
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import Context, attach, detach, get_current

from tollspan.capture.attempt import Attempt
from tollspan.capture.batch_exchange import BatchRequest
from tollspan.capture.billed_usage import HTTPX
from tollspan.capture.followed import Unchecked, follow, held_back, is_cut, let_pass, other_traffic, unchecked_of
from tollspan.capture.stream_usage import request_usage
from tollspan.capture.view import DenialResponse
from tollspan.runtime import finalizers
from tollspan.wire.reader import READ_SIZE

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextvars import Token
    from types import ModuleType

    from tollspan.capture.followed import BodyFeed, FollowedRequest
    from tollspan.capture.recorder import Recorder
    from tollspan.capture.stream_usage import UsageRequest

_ORIGINAL: Final = "__tollspan_original__"
_OPTIONS: Final = frozenset({"stream", "auth", "follow_redirects"})
_POSITIONAL: Final = 2
"""The arguments of `Client.send` in all versions of both libraries: the client and a request, then these by name."""

_installed: Final[dict[type, Callable[..., Any]]] = {}
"""Our current function, by class. It cannot carry a mark instead: `functools.wraps` copies that to others' wrappers."""


def wrap(lib: ModuleType, recorder: Recorder) -> None:
    """Meter every request of `lib` (httpx or httpx2); do nothing if it is wrapped already."""
    if lib.Client in _installed:
        return
    finalizers.watch()
    lib.Client.send = _installed[lib.Client] = _sync_send(lib.Client.send, recorder, lib)
    lib.AsyncClient.send = _installed[lib.AsyncClient] = _async_send(lib.AsyncClient.send, recorder, lib)


def unwrap(lib: ModuleType) -> None:
    """Undo `wrap`. If another library has wrapped our function since, its wrapper stays, and ours does nothing."""
    finalizers.unwatch()
    for name in ("Client", "AsyncClient"):
        client: Any = getattr(lib, name, None)  # None while it is being imported
        ours = _installed.pop(client, None)
        if ours is not None and client.send is ours:
            client.send = getattr(ours, _ORIGINAL)


def is_wrapped(lib: ModuleType) -> bool:
    """Return whether requests of `lib` reach us: our function is current, or inside of wrappers that name it."""
    ours, send = _installed.get(lib.Client), lib.Client.send
    while ours is not None and send is not None:
        if send is ours:
            return True
        send = getattr(send, "__wrapped__", None)
    return False


def other_requests(recorder: Recorder) -> Callable[[Any], bool]:
    """Return a function that recognizes nearly all requests that are not for a provider (see `other_traffic`).

    The properties of a URL are calls, and each step counts for a request that is none of ours. So this reads what they
    read. In a library that does not have it, every request is looked at.
    """
    is_other = other_traffic(recorder)

    def is_other_request(request: Any) -> bool:
        try:
            parts = request.url._uri_reference  # noqa: SLF001 - as just said
            return is_other(parts.host, parts.port, parts.path or "/")
        except Exception:  # noqa: BLE001 - the safe boundary
            return False

    return is_other_request


def _request_usage(
    recorder: Recorder, lib: ModuleType, client: Any, request: Any, followed: FollowedRequest
) -> UsageRequest | None:
    """Make a stream's request ask for its usage if it may (see `capture/stream_usage.py`)."""
    if not followed.asks_usage or not isinstance(followed, Attempt):
        return None
    try:
        return request_usage(lib, client, request, followed.facts.request_model)
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("stream_usage", error)
        return None


def _failed_with(
    recorder: Recorder, followed: FollowedRequest, usage_request: UsageRequest | None, error: BaseException
) -> None:
    """End what follows a request; put the request back as it was if it asked for its usage."""
    if usage_request is not None:
        try:
            usage_request.name_original(error)
        except Exception as failure:  # noqa: BLE001 - the safe boundary
            recorder.failed("stream_usage", failure)
    followed.failed_with(error, HTTPX)


def _response_received(
    recorder: Recorder,
    followed: FollowedRequest,
    response: Any,
    stream: type | None,
    usage_request: UsageRequest | None,
) -> None:
    """Read a response: all of it or, with `stream`, its body as the application reads it."""
    try:
        followed.response_received(response)
        if stream is not None and not response.is_closed:
            response.stream = stream(response.stream, followed, followed.stream_opened(response))
        else:
            followed.read_body(response)
            followed.done()
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("response", error)
        followed.done()
    if usage_request is not None:
        try:
            usage_request.hide(response, functools.partial(recorder.failed, "stream_usage"))
        except Exception as error:  # noqa: BLE001 - the safe boundary
            recorder.failed("stream_usage", error)


def _replaced(lib: ModuleType, request: Any, content: bytes, *, path: str | None = None) -> Any:
    """Return the library's request that is sent in the place of `request` (see `view.Replace`)."""
    url = request.url if path is None else request.url.copy_with(raw_path=path.encode("ascii"))
    headers = [(name, value) for name, value in request.headers.raw if name.lower() != b"content-length"]
    return lib.Request(request.method, url, headers=headers, content=content, extensions=request.extensions)


_NO_TIME: Final = timedelta(0)
"""Made here, for at the end of an interpreter, CPython 3.13.0 crashes where one is made."""


def _own_response(lib: ModuleType, denial: DenialResponse, *, stream: bool) -> Any:
    """Return the library's response to a request that was not sent; `stream`: the application has yet to read it."""
    content = {"stream": lib.ByteStream(denial.body)} if stream else {"content": denial.body}
    response = lib.Response(denial.status, headers=denial.headers, request=denial.request, **content)
    response.elapsed = _NO_TIME
    return response


# Other traffic passes only one of these, and `is_other`. To pass on any arguments would cost it more than all the rest,
# so there is a second front for the libraries' own functions, whose arguments are known.


def _sync_front(original: Callable[..., Any], recorder: Recorder, metered: Callable[..., Any]) -> Callable[..., Any]:
    """Return the replacement of `original`: it passes other traffic on to that, and the rest to `metered`."""
    is_other = other_requests(recorder)

    def anything(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = original if is_other(request) else metered
        return chosen(self, request, *args, **kwargs)

    def known(self: Any, request: Any, *, stream: Any, auth: Any, follow_redirects: Any) -> Any:
        chosen = original if is_other(request) else metered
        return chosen(self, request, stream=stream, auth=auth, follow_redirects=follow_redirects)

    known.__kwdefaults__ = getattr(original, "__kwdefaults__", None)
    return _named(known if _takes_options(original) else anything, original)


def _async_front(original: Callable[..., Any], recorder: Recorder, metered: Callable[..., Any]) -> Callable[..., Any]:
    """Return the async replacement (see `_sync_front`)."""
    is_other = other_requests(recorder)

    async def anything(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        chosen = original if is_other(request) else metered
        return await chosen(self, request, *args, **kwargs)

    async def known(self: Any, request: Any, *, stream: Any, auth: Any, follow_redirects: Any) -> Any:
        chosen = original if is_other(request) else metered
        return await chosen(self, request, stream=stream, auth=auth, follow_redirects=follow_redirects)

    known.__kwdefaults__ = getattr(original, "__kwdefaults__", None)
    return _named(known if _takes_options(original) else anything, original)


def _takes_options(send: Callable[..., Any]) -> bool:
    """Return whether a function has exactly the parameters of the libraries' own; other wrappers may have more."""
    code, defaults = getattr(send, "__code__", None), getattr(send, "__kwdefaults__", None) or {}
    if code is None or code.co_flags & (CO_VARARGS | CO_VARKEYWORDS):
        return False
    return (code.co_argcount, code.co_kwonlyargcount) == (_POSITIONAL, len(_OPTIONS)) and set(defaults) == _OPTIONS


def _named(front: Callable[..., Any], original: Callable[..., Any]) -> Callable[..., Any]:
    """Make `front` look like the function that it replaces."""
    functools.update_wrapper(front, original)
    setattr(front, _ORIGINAL, original)
    return front


# The twins differ only where they await.


def _sync_send(original: Callable[..., Any], recorder: Recorder, lib: ModuleType) -> Callable[..., Any]:
    stream_type, client, replace = _sync_stream(lib), lib.Client, functools.partial(_replaced, lib)

    def metered(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        followed = follow(recorder, request) if _installed.get(client) is send else None
        if followed is None:
            return original(self, request, *args, **kwargs)
        if isinstance(followed, Context):
            token = attach(followed)
            try:
                return original(self, request, *args, **kwargs)
            finally:
                detach(token)
        stream = bool(kwargs.get("stream"))
        if isinstance(followed, Unchecked):
            denial = recorder.budget_gate.refuse_unchecked(recorder, followed, request)
            return _own_response(lib, denial, stream=stream)
        if recorder.guard is not None and isinstance(followed, (Attempt, BatchRequest)):
            checked = recorder.budget_gate.enforce_budgets
            try:
                request = checked(recorder, followed, request, replace)
            except Exception as error:  # noqa: BLE001 - the safe boundary; it refuses, because money is at stake
                unchecked = unchecked_of(followed, error)
                request = recorder.budget_gate.refuse_unchecked(recorder, unchecked, request)
            if isinstance(request, DenialResponse):
                return _own_response(lib, request, stream=stream)
        token = attach(followed.context)
        usage_request = _request_usage(recorder, lib, self, request, followed) if stream else None
        try:
            response = original(self, request, *args, **kwargs)
            if usage_request is not None and usage_request.is_refused(response):
                response.close()
                response = original(self, request, *args, **kwargs)
                usage_request.is_repeated(response)
        except BaseException as error:
            _failed_with(recorder, followed, usage_request, error)
            raise
        finally:
            detach(token)
        _response_received(recorder, followed, response, stream_type if stream else None, usage_request)
        return response

    send = _sync_front(original, recorder, metered)
    return send


def _leave(context: Context, token: Token[Context]) -> None:
    """Leave a context, unless the garbage collector closes a task's coroutine: it does that in another context."""
    if get_current() is context or sys.exc_info()[0] is not GeneratorExit:
        detach(token)


def _async_send(original: Callable[..., Any], recorder: Recorder, lib: ModuleType) -> Callable[..., Any]:
    stream_type, client, replace = _async_stream(lib), lib.AsyncClient, functools.partial(_replaced, lib)

    async def metered(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        followed = follow(recorder, request) if _installed.get(client) is send else None
        if followed is None:
            return await original(self, request, *args, **kwargs)
        if isinstance(followed, Context):
            shielded = attach(followed)
            try:
                return await original(self, request, *args, **kwargs)
            finally:
                _leave(followed, shielded)
        stream = bool(kwargs.get("stream"))
        if isinstance(followed, Unchecked):
            denial = recorder.budget_gate.refuse_unchecked(recorder, followed, request)
            return _own_response(lib, denial, stream=stream)
        if recorder.guard is not None and isinstance(followed, (Attempt, BatchRequest)):
            checked = recorder.budget_gate.enforce_budgets_async
            try:
                request = await checked(recorder, followed, request, replace)
            except Exception as error:  # noqa: BLE001 - the safe boundary; it refuses, because money is at stake
                unchecked = unchecked_of(followed, error)
                request = recorder.budget_gate.refuse_unchecked(recorder, unchecked, request)
            if isinstance(request, DenialResponse):
                return _own_response(lib, request, stream=stream)
        token = attach(followed.context)
        usage_request = _request_usage(recorder, lib, self, request, followed) if stream else None
        try:
            response = await original(self, request, *args, **kwargs)
            if usage_request is not None and usage_request.is_refused(response):
                await response.aclose()
                response = await original(self, request, *args, **kwargs)
                usage_request.is_repeated(response)
        except BaseException as error:
            _failed_with(recorder, followed, usage_request, error)
            raise
        finally:
            _leave(followed.context, token)
        _response_received(recorder, followed, response, stream_type if stream else None, usage_request)
        return response

    send = _async_front(original, recorder, metered)
    return send


class _Metered:
    """The common part of the two streams: the original stream, what follows its request, and what reads it."""

    def __init__(self, inner: Any, followed: FollowedRequest, feed: BodyFeed) -> None:
        self._inner = inner
        self._followed = followed
        self._feed = feed
        # Anthropic's SDK looks for this at each event; two objects would each have to raise that it is not there.
        self.stream_observer = getattr(inner, "stream_observer", None)

    def __getattr__(self, name: str) -> Any:
        if name in {"_inner", "_followed", "_feed"}:  # not set yet: unpickled or copied half-way
            raise AttributeError(name)
        return getattr(self._inner, name)  # httpx2 reads `elapsed` of the stream

    def __del__(self) -> None:
        # The response was collected unread. Its attempt ends here, so that the record is not lost.
        if (followed := self.__dict__.get("_followed")) is not None:
            finalizers.end(followed.abandoned)


# Responses accept only streams of their library's own types, so there is one subclass for each library.


@functools.cache
def _sync_stream(lib: Any) -> type:
    class MeteredStream(_Metered, lib.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            followed, feed = self._followed, self._feed
            flowing, flowed = feed.flowing, 0
            try:
                for piece in self._inner:
                    if flowing is not None:
                        flowing.append(piece)
                        flowed += len(piece)
                        yield piece
                        if flowed >= READ_SIZE:
                            feed.read()
                            flowing, flowed = feed.flowing, 0
                        continue
                    feed.chunk_received(piece)
                    yield from let_pass(followed, piece)
                    if is_cut(followed):
                        break
                    feed.read()
                    flowing = feed.flowing
                yield from held_back(followed)
            except GeneratorExit:
                raise  # the application stopped, and closes the response
            except BaseException as error:
                followed.failed_with(error, HTTPX)
                raise
            followed.done()

        def close(self) -> None:
            try:
                self._inner.close()
            finally:
                # The garbage collector comes here too: it closes an unfinished generator, which closes its response.
                finalizers.end(self._followed.abandoned)

    return MeteredStream


@functools.cache
def _async_stream(lib: Any) -> type:  # noqa: C901 - like its twin above
    class AsyncMeteredStream(_Metered, lib.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            followed, feed = self._followed, self._feed
            flowing, flowed = feed.flowing, 0
            pieces = self._inner.__aiter__()
            try:
                async for piece in pieces:
                    if flowing is not None:
                        flowing.append(piece)
                        flowed += len(piece)
                        yield piece
                        if flowed >= READ_SIZE:
                            feed.read()
                            flowing, flowed = feed.flowing, 0
                        continue
                    feed.chunk_received(piece)
                    for part in let_pass(followed, piece):
                        yield part
                    if is_cut(followed):
                        break
                    feed.read()
                    flowing = feed.flowing
                for part in held_back(followed):
                    yield part
            except GeneratorExit:
                raise  # the application stopped, and closes the response
            except BaseException as error:
                followed.failed_with(error, HTTPX)
                raise
            finally:
                if isinstance(pieces, AsyncGeneratorType):  # any other iterator is not ours to close: it may be read on
                    await pieces.aclose()
            followed.done()

        async def aclose(self) -> None:
            try:
                await self._inner.aclose()
            finally:
                self._followed.abandoned()

    return AsyncMeteredStream
