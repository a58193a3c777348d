"""What follows a request through a client: the seam between the hooks and this package.

    follow(recorder, request) -> a `FollowedRequest`, a context to send the request in, `Unchecked`, or None
    other_traffic(recorder)   -> a quick test that nearly all requests pass which are not for a provider

A hook calls `follow` before the request is sent, sends it in the `context` of what it gets, and then calls
`response_received`, either `read_body` or `stream_opened`, and exactly one of `done`, `abandoned` and `failed_with`;
later calls of these do nothing. Of a stream, each chunk is first `let_pass`, then read by the `BodyFeed`.

If this package fails before the budgets were checked, the request is not sent where there is a budget (`Unchecked`),
and not followed where there is none.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any, Final, NamedTuple, Protocol

from opentelemetry.context import Context, get_current

from tollspan.attribution import strip_header, without_baggage
from tollspan.capture.attempt import Attempt, begin
from tollspan.capture.background_poll import poll_of
from tollspan.capture.batch_exchange import batch_request_of, is_of_a_batch
from tollspan.capture.requests import names_of
from tollspan.wire.dialects import ENDINGS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

    from tollspan.budget.denials.stream_cut import Follower
    from tollspan.capture.batch_exchange import BatchRequest
    from tollspan.capture.billed_usage import ClientErrors
    from tollspan.capture.recorder import Recorder
    from tollspan.wire.dialects import Route
    from tollspan.wire.providers import Directory, Provider


class BodyFeed(Protocol):
    """Reads a body that streams."""

    @property
    def flowing(self) -> list[bytes] | None:
        """The chunks that wait to be read; None while each chunk is passed to `chunk_received` and read at once."""
        ...

    def chunk_received(self, piece: bytes) -> None:
        """Take the time of a chunk, before the application gets it."""
        ...

    def read(self) -> None:
        """Read what the application has got."""
        ...


class FollowedRequest(Protocol):
    """A request that is followed: an attempt, the poll of a pending response, or a request about a batch."""

    context: Context

    @property
    def asks_usage(self) -> bool:
        """Whether the request may be changed to ask for its usage (see `stream_usage`)."""
        ...

    @property
    def follower(self) -> Follower | None:
        """Looks at each chunk of a stream that a budget may cut."""
        ...

    def response_received(self, response: Any) -> None:
        """Read the status and the headers."""
        ...

    def stream_opened(self, response: Any) -> BodyFeed:
        """Return what reads the body as the application does."""
        ...

    def read_body(self, response: Any) -> None:
        """Read a body that the client has already read."""
        ...

    def done(self) -> None:
        """End it: the body was read to its end."""
        ...

    def abandoned(self) -> None:
        """End it: the body was closed, or collected, before its end."""
        ...

    def failed_with(self, error: BaseException, errors: ClientErrors) -> None:
        """End it: the client (`errors` names its classes), or the application in the middle of a body, raised one."""
        ...


class Unchecked(NamedTuple):
    """A request that must not be sent: reading it has failed, so its budgets could not be checked.

    Attributes:
        error: the failure.
        dialect: the format of the request; empty if it is not known.
    """

    error: Exception
    dialect: str


_UPLOAD: Final = "/files"
"""The end of the paths that files are uploaded to (see `batch_files`)."""

_ENDS: Final = (*ENDINGS, _UPLOAD)
_LAST_WORDS: Final = {
    **{letter: tuple(word for word in _ENDS if word[-1] == letter) for letter in {word[-1] for word in _ENDS}},
    "/": tuple(f"{word}/" for word in ENDINGS),
}
"""The ends of paths of model calls and uploads at unrecognized hosts, by their last letter: most others have none."""


def other_traffic(recorder: Recorder) -> Callable[[str, int | None, str], bool]:
    """Return a function of host, port and path that recognizes nearly all requests that are not for a provider.

    It returns False for a request that has to be looked at, which may turn out to be none of ours. Host and path are as
    they are sent, and the path is not empty.
    """
    unrecognized, pending = recorder.directory.unrecognized, recorder.pending_responses.pending

    def is_other(host: str, port: int | None, path: str) -> bool:
        return (
            (host if port is None else (host, port)) in unrecognized
            and (path[-1] not in _LAST_WORDS or not path.endswith(_LAST_WORDS[path[-1]]))
            and "atch" not in path  # see `is_of_a_batch`
            and "/files/" not in path
            and "%" not in path
            and not pending
        )

    return is_other


def follow(recorder: Recorder, request: Any) -> FollowedRequest | Context | Unchecked | None:
    """Return what follows a request that is about to be sent; None if nothing does.

    A context, if nothing follows it but it goes to a provider, is the one to send it in: without our baggage.
    """
    followed: FollowedRequest | None = None
    known: tuple[Provider, Route] | None = None
    headers: frozenset[bytes] | None = None
    try:
        url = request.url
        host, port, path = url.host, url.port, url.path
        known = recorder.directory.find(host, port, path) if request.method == "POST" else None
        if known is not None:
            headers = names_of(request)
            followed = begin(recorder, request, known, path, headers)
        elif recorder.pending_responses.pending:
            followed = poll_of(recorder, request, path)
        if followed is None and is_of_a_batch(path):
            followed = batch_request_of(recorder, request, path)
        elif followed is None and recorder.guard is not None and path.endswith(_UPLOAD):
            followed = recorder.budget_gate.upload_of(recorder, request, path)
    except Exception as error:  # noqa: BLE001 - the safe boundary; where money is at stake it refuses
        if _is_limited(recorder, request):
            return Unchecked(error, known[1].dialect if known is not None else "")
        recorder.failed("request", error)
    try:
        if isinstance(followed, Attempt) or _goes_to_provider(recorder.directory, request.url):
            return _without_baggage(request, followed, headers or names_of(request))
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("baggage", error)
    return followed


def _is_limited(recorder: Recorder, request: Any) -> bool:
    """Return whether budgets may limit a request that could not be read; nothing is spent where something is read."""
    if recorder.guard is None:
        return False
    try:
        return recorder.guard.limits and request.method not in _READ_ONLY
    except Exception:  # noqa: BLE001 - as in `follow`; at the end of the interpreter nothing is left to ask
        return True


def unchecked_of(followed: Attempt | BatchRequest, error: Exception) -> Unchecked:
    """Return a request as one whose budgets could not be checked, and end it: checking them has failed."""
    if not isinstance(followed, Attempt):
        return Unchecked(error, "")
    with contextlib.suppress(Exception):  # what keeps it from ending is less than what it is refused for
        followed.withdraw(error)
    return Unchecked(error, followed.exchange.dialect.name)


_READ_ONLY: Final = frozenset({"GET", "HEAD", "OPTIONS", "DELETE"})


def _goes_to_provider(directory: Directory, url: Any) -> bool:
    """Return whether a provider is at a URL; a host without one is remembered for `other_traffic`."""
    path, providers = url.path, directory.of_host(url.host, url.port)
    if not providers:
        directory.leave_alone(url.raw_host.decode("ascii"), url.port)
    return any(path.startswith(provider.path_prefix) for provider in providers)


def _without_baggage(
    request: Any, followed: FollowedRequest | None, headers: frozenset[bytes]
) -> FollowedRequest | Context | None:
    """Take our baggage from a request to a provider; return its context if that changes and nothing follows it.

    This holds for any request: a list of models, a file, a poll. The attribution is no business of a provider.
    """
    if b"baggage" in headers:
        strip_header(request.headers)
    current = get_current()
    if not current:
        return followed
    if followed is not None:
        followed.context = without_baggage(followed.context)
        return followed
    context = without_baggage(current)
    return None if context is current else context


# A stream that a budget may cut


def let_pass(followed: FollowedRequest, piece: bytes) -> Iterable[bytes]:
    """Return what the application gets of a chunk: all of it, unless a budget may cut the stream."""
    return (piece,) if followed.follower is None else _let_pass(followed, followed.follower, piece)


def _let_pass(followed: FollowedRequest, follower: Follower, piece: bytes) -> Iterator[bytes]:
    for part in follower.pass_on(piece):
        if follower.budget is not None and isinstance(followed, Attempt):
            followed.cut_off(follower.budget)  # before the closing events: after them the application may not come back
        yield part


def is_cut(followed: FollowedRequest) -> bool:
    """Return whether a budget has cut the stream, so that it ends here."""
    return followed.follower is not None and followed.follower.cut


def held_back(followed: FollowedRequest) -> tuple[bytes, ...]:
    """Return what was held back of a stream that ended before a budget cut it."""
    rest = followed.follower.rest() if followed.follower is not None else b""
    return (rest,) if rest else ()
