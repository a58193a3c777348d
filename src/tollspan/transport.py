"""The hook: `Client.send` and `AsyncClient.send` of httpx or httpx2, one wrapper given the module.

The application gets the same response objects, bytes, pieces and exceptions at the same time. A body that streams is
read through a stream of the library's own type around the one it had; each piece is read after it was handed over.
Sync and async differ only where they await.

`Client.send` is the narrowest place that every request passes, with whatever transport: mock, custom, aiohttp-backed.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import attach, detach, get_current

from tollspan.attempts import collected
from tollspan.attempts.attempt import Attempt, begin
from tollspan.attempts.batch import Exchange, follow, is_of_a_batch
from tollspan.attempts.fetch import Fetch, fetch_of
from tollspan.attempts.stream_usage import ask
from tollspan.attribution import BAGGAGE, has_baggage, strip, without_baggage
from tollspan.budget.cutting import followable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterator
    from contextvars import Token
    from types import ModuleType

    from opentelemetry.context import Context

    from tollspan.attempts.recorder import Recorder
    from tollspan.attempts.stream_usage import Question

_ORIGINAL: Final = "__tollspan_original__"

_installed: Final[dict[type, Callable[..., Any]]] = {}
"""Our function in force, by class. A mark on it would not do: `functools.wraps` copies that to others' wrappers."""


def wrap(lib: ModuleType, recorder: Recorder) -> None:
    """Meter every request of `lib` (httpx or httpx2); one that is wrapped already stays as it is."""
    if lib.Client in _installed:
        return
    collected.watch()
    lib.Client.send = _installed[lib.Client] = _sync_send(lib.Client.send, recorder, lib)
    lib.AsyncClient.send = _installed[lib.AsyncClient] = _async_send(lib.AsyncClient.send, recorder, lib)


def unwrap(lib: ModuleType) -> None:
    """Put back what `wrap` replaced; where somebody has wrapped that, theirs stays, and ours below does nothing."""
    collected.unwatch()
    for client in (lib.Client, lib.AsyncClient):
        ours = _installed.pop(client, None)
        if ours is not None and client.send is ours:
            client.send = getattr(ours, _ORIGINAL)


def is_wrapped(lib: ModuleType) -> bool:
    """Tell whether requests of `lib` reach us: our function is in force, alone or inside of others' that name it."""
    ours, send = _installed.get(lib.Client), lib.Client.send
    while ours is not None and send is not None:
        if send is ours:
            return True
        send = getattr(send, "__wrapped__", None)
    return False


def _begin(recorder: Recorder, request: Any) -> Attempt | Fetch | Exchange | None:
    try:
        found = _find(recorder, request, request.url.path)
        if found is not None and not isinstance(found, Attempt) and (context := _shield(recorder, request)) is not None:
            found.context = context
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("request", error)
        return None
    else:
        return found


def _find(recorder: Recorder, request: Any, path: str) -> Attempt | Fetch | Exchange | None:
    if request.method == "POST":
        found: Attempt | Fetch | None = begin(recorder, request, path)
    else:
        found = fetch_of(recorder, request, path) if recorder.orders else None
    return follow(recorder, request, path) if found is None and is_of_a_batch(path) else found


def _shield(recorder: Recorder, request: Any) -> Context | None:
    """Take our baggage from a request to a provider that is no model call; give the context to send it in, if another.

    A list of models, a file, a poll: attribution is the application's own affair there, too.
    """
    try:
        url = request.url
        providers = recorder.directory.of_host(url.host, url.port)
        if not providers:
            return None  # nearly all other traffic, told by what is looked up fastest
        headers, context = request.headers, get_current()
        # By name, all headers would be decoded first.
        told = headers["baggage"] if b"baggage" in [name.lower() for name, _ in headers.raw] else ""
        if not (has_baggage(context) or BAGGAGE in told):
            return None
        if not any(url.path.startswith(provider.path_prefix) for provider in providers):
            return None
        if told:
            headers["baggage"] = strip(told)
        return without_baggage(context)
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("baggage", error)
        return None


def _ask(
    recorder: Recorder, lib: ModuleType, client: Any, request: Any, attempt: Attempt | Fetch | Exchange
) -> Question | None:
    """Give the request that asks for usage too, to be sent in the application's place (`attempts/stream_usage.py`)."""
    if isinstance(attempt, Exchange) or not attempt.asks_usage:
        return None
    try:
        return ask(lib, client, request, attempt.facts.request_model)
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("stream_usage", error)
        return None


def _name_original(recorder: Recorder, asked: Question | None, error: BaseException) -> None:
    """See to it that an error names the application's request, where another was sent in its place."""
    if asked is None:
        return
    try:
        asked.name_original(error)
    except Exception as failure:  # noqa: BLE001 - the safe boundary
        recorder.failed("stream_usage", failure)


def _answered(
    recorder: Recorder, attempt: Attempt | Fetch | Exchange, response: Any, stream: type | None, asked: Question | None
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


def _sync_send(original: Callable[..., Any], recorder: Recorder, lib: ModuleType) -> Callable[..., Any]:
    stream_type = _sync_stream(lib)

    @functools.wraps(original)
    def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        attempt = _begin(recorder, request) if _installed.get(lib.Client) is send else None
        if attempt is None:
            if (context := _shield(recorder, request)) is None:
                return original(self, request, *args, **kwargs)
            token = attach(context)
            try:
                return original(self, request, *args, **kwargs)
            finally:
                detach(token)
        if recorder.guard is not None and isinstance(attempt, Attempt):
            from tollspan.attempts.admission import admit  # who made the guard has loaded it

            request = admit(recorder, attempt, request, lib, stream=bool(kwargs.get("stream")))
            if isinstance(request, lib.Response):
                return request
        token = attach(attempt.context)
        asked = _ask(recorder, lib, self, request, attempt) if kwargs.get("stream") else None
        try:
            response = original(self, request if asked is None else asked.request, *args, **kwargs)
            if asked is not None and asked.is_refused(response):
                response.close()
                response = original(self, request, *args, **kwargs)
                asked.is_repeated(response)
        except BaseException as error:
            attempt.broken(error)
            _name_original(recorder, asked, error)
            raise
        finally:
            detach(token)
        _answered(recorder, attempt, response, stream_type if kwargs.get("stream") else None, asked)
        return response

    setattr(send, _ORIGINAL, original)
    return send


def _async_send(original: Callable[..., Any], recorder: Recorder, lib: ModuleType) -> Callable[..., Any]:
    stream_type = _async_stream(lib)

    @functools.wraps(original)
    async def send(self: Any, request: Any, *args: Any, **kwargs: Any) -> Any:
        attempt = _begin(recorder, request) if _installed.get(lib.AsyncClient) is send else None
        if attempt is None:
            if (context := _shield(recorder, request)) is None:
                return await original(self, request, *args, **kwargs)
            shielded = attach(context)
            try:
                return await original(self, request, *args, **kwargs)
            finally:
                detach(shielded)
        if recorder.guard is not None and isinstance(attempt, Attempt):
            from tollspan.attempts.admission import admit_async  # as above

            request = await admit_async(recorder, attempt, request, lib, stream=bool(kwargs.get("stream")))
            if isinstance(request, lib.Response):
                return request
        token: Token[Context] | None = attach(attempt.context)
        asked = _ask(recorder, lib, self, request, attempt) if kwargs.get("stream") else None
        try:
            response = await original(self, request if asked is None else asked.request, *args, **kwargs)
            if asked is not None and asked.is_refused(response):
                await response.aclose()
                response = await original(self, request, *args, **kwargs)
                asked.is_repeated(response)
        except BaseException as error:
            attempt.broken(error)
            _name_original(recorder, asked, error)
            if isinstance(error, GeneratorExit) and get_current() is not attempt.context:
                token = None  # the collector closes a task's coroutine outside of the task's context
            raise
        finally:
            if token is not None:
                detach(token)
        _answered(recorder, attempt, response, stream_type if kwargs.get("stream") else None, asked)
        return response

    setattr(send, _ORIGINAL, original)
    return send


class _Metered:
    """What the two streams share: the stream that was there, its attempt, and whatever else that stream has."""

    def __init__(self, inner: Any, attempt: Attempt | Fetch | Exchange) -> None:
        self._inner = inner
        self._attempt = attempt

    def __getattr__(self, name: str) -> Any:
        if name in {"_inner", "_attempt"}:  # not made yet: unpickled or copied half-way
            raise AttributeError(name)
        return getattr(self._inner, name)  # httpx2 asks the stream for `elapsed`

    def __del__(self) -> None:
        # The response was collected unread. Its attempt ends here, so that the record is not lost.
        if (attempt := self.__dict__.get("_attempt")) is not None:
            collected.end(attempt.left)


def _note_cut(attempt: Attempt | Fetch | Exchange) -> None:
    """End an attempt whose stream a budget has cut; once its closing events are handed over, nobody may come back."""
    if attempt.follower is not None and attempt.follower.budget is not None:
        attempt.cut_off(attempt.follower.budget)


# Responses insist on streams of their library's own types, so there is one subclass for each library.


@functools.cache
def _sync_stream(lib: Any) -> type:  # noqa: C901 - one loop with its endings
    class MeteredStream(_Metered, lib.SyncByteStream):  # type: ignore[misc]
        def __iter__(self) -> Iterator[bytes]:
            attempt = self._attempt
            try:
                for piece in self._inner:
                    due = attempt.arrived(piece)
                    if (follower := attempt.follower) is None:
                        yield piece
                    else:
                        for part in follower.pass_on(piece):
                            _note_cut(attempt)
                            yield part
                        if follower.cut:
                            break
                    if due:
                        attempt.read()
                if attempt.follower is not None and (rest := attempt.follower.rest()):
                    yield rest
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
                collected.end(self._attempt.left)

    return MeteredStream


@functools.cache
def _async_stream(lib: Any) -> type:  # noqa: C901 - as its twin above
    class AsyncMeteredStream(_Metered, lib.AsyncByteStream):  # type: ignore[misc]
        async def __aiter__(self) -> AsyncIterator[bytes]:
            attempt = self._attempt
            pieces = self._inner.__aiter__()
            try:
                async for piece in pieces:
                    due = attempt.arrived(piece)
                    if (follower := attempt.follower) is None:
                        yield piece
                    else:
                        for part in follower.pass_on(piece):
                            _note_cut(attempt)
                            yield part
                        if follower.cut:
                            break
                    if due:
                        attempt.read()
                if attempt.follower is not None and (rest := attempt.follower.rest()):
                    yield rest
            except GeneratorExit:
                raise  # the application stopped; it closes the response
            except BaseException as error:
                attempt.broken(error)
                raise
            finally:
                if hasattr(pieces, "aclose"):
                    await pieces.aclose()
            attempt.done()

        async def aclose(self) -> None:
            try:
                await self._inner.aclose()
            finally:
                self._attempt.left()

    return AsyncMeteredStream
