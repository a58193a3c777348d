"""What the client's objects for a request and its response say, those of httpx and of httpx2 alike.

    names_of(request), body_of(request), hash_of(request), told_resend_count(request, headers)
    is_model_call(body, dialect, path), status_of(error), status_before(error), qualified(error)

A body that streams cannot be looked at: it says nothing, and nothing is raised.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Facts
from tollspan.model.text import as_text
from tollspan.wire.dialects import load
from tollspan.wire.dialects.fields import digits
from tollspan.wire.framing.document import parsed

if TYPE_CHECKING:
    from collections.abc import Callable

# fmt: off
_BODIES: Final = (
    "messages", "input", "prompt", "contents", "query", "documents", "texts", "content", "inputText", "requests",
    "file",
)
# fmt: on
"""Where requests keep what the model reads."""


def names_of(request: Any) -> frozenset[bytes]:
    """Return the names of a request's headers, in lower case; a look-up by name decodes all of them first."""
    return frozenset([name.lower() for name, _ in request.headers.raw])


def body_of(request: Any) -> dict[str, Any]:
    """Return the request's JSON object or form fields; {} where there are none that can be read undisturbed."""
    fields = getattr(request.stream, "fields", None)  # multipart: the parts are at hand, whatever the files are
    if isinstance(fields, list):
        values = ((field.name, getattr(field, "value", "")) for field in fields)
        return {name: value if type(value) is str else "" for name, value in values}
    try:
        content = request.content
    except Exception:  # noqa: BLE001 - a body that streams: RequestNotRead of either library
        return {}
    body = parsed(content)
    return body if type(body) is dict else {}


def hash_of(request: Any) -> int:
    """Return the hash of a request's body, to know the same one by; 0 where it streams."""
    try:
        return hash(request.content)
    except Exception:  # noqa: BLE001 - a body that streams
        return 0


_CLIENTS: Final = ("httpx", "httpx2")
_SENDING: Final = tuple(f"{name}._client" for name in _CLIENTS)
"""Modules in which a response is called `response` from when it came."""

_RETRIES: Final = b"x-stainless-retry-count"


def told_resend_count(request: Any, headers: frozenset[bytes]) -> int | None:
    """Return the retry number that the OpenAI and Anthropic SDKs (and their kin) send with each attempt."""
    if _RETRIES not in headers:
        return None
    return digits(request.headers[_RETRIES.decode()])


def is_model_call(body: dict[str, Any], dialect: str, path: str) -> bool:
    """Return whether a request to an unrecognized host looks like a model call; the path alone does not say.

    It names a model, and gives it something to read in the shape of its format. Chat completions and reranking
    may leave the model out: servers of one's own often have but one.
    """
    if dialect == "openai_responses" and _goes_on(body):
        return True
    reads = _READS.get(dialect, _reads_something)
    if not reads(body):
        return False
    return type(body.get("model")) is str or dialect in _MODELLESS or _names_model(dialect, path)


_MODELLESS: Final = frozenset({"openai_chat", "rerank"})


def _goes_on(body: dict[str, Any]) -> bool:
    """Return whether a request for a response names what is to be read, in place of giving it; a model may be in that.

    https://platform.openai.com/docs/api-reference/responses/create
    """
    prompt = body.get("prompt")
    return type(body.get("previous_response_id")) is str or (type(prompt) is dict and type(prompt.get("id")) is str)


def _reads_something(body: dict[str, Any]) -> bool:
    return any(key in body for key in _BODIES)


def _reads_messages(body: dict[str, Any]) -> bool:
    messages = body.get("messages")
    return type(messages) is list and all(type(item) is dict and "role" in item for item in messages)


def _reads_text(*keys: str) -> Callable[[dict[str, Any]], bool]:
    return lambda body: any(type(body.get(key)) in {str, list} for key in keys)


_READS: Final[dict[str, Callable[[dict[str, Any]], bool]]] = {
    "anthropic": _reads_messages,
    "openai_chat": _reads_messages,
    "openai_completions": _reads_text("prompt"),
    "openai_embeddings": _reads_text("input"),
    "openai_images": _reads_text("prompt"),
    "openai_responses": _reads_text("input"),
    "openai_speech": _reads_text("input"),
    "rerank": lambda body: type(body.get("query")) is str and _reads_text("documents", "texts")(body),
}
"""What a request of a format gives its model to read; of others any of `_BODIES`."""


def _names_model(dialect: str, path: str) -> bool:
    facts = Facts()
    load(dialect).read_path(facts, path)
    return facts.request_model is not None


def status_of(error: BaseException) -> int | None:
    """Return the HTTP status of the response that an exception carries."""
    try:
        status = error.response.status_code  # type: ignore[attr-defined]
    except Exception:  # noqa: BLE001 - it has none, or (RuntimeError, in httpx's style) says so in words of its own
        return None
    return status if type(status) is int else None


def status_before(error: BaseException) -> int | None:
    """Return the status of the response that a hook, or an auth flow, was given when it raised: the client has it.

    An exception of the client's own does not come of one, though there may be an answer that redirected.
    """
    if type(error).__module__.partition(".")[0] in _CLIENTS:
        return None
    status, inside, trace = None, False, error.__traceback__
    while trace is not None:
        frame, trace = trace.tb_frame, trace.tb_next
        if frame.f_globals.get("__name__") in _SENDING:
            inside = True
            found = getattr(frame.f_locals.get("response"), "status_code", None)
            status = found if type(found) is int else status
        elif inside:  # what a hook has sent itself is another request
            break
    return status


def qualified(error: BaseException) -> str:
    """Return the name of an exception's class, with its module."""
    kind = type(error)
    return as_text(kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}")
