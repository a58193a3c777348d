"""The requests of a batch on the wire: `creation_of(path, body)` reads what creates it, `request_of(line)` one request.

The requests are in the body that creates the batch, or in a file that was uploaded before, one a line:

- OpenAI (and Azure, Groq...): `{"input_file_id": ...}`; lines are `{"custom_id", "url", "body"}`.
  https://platform.openai.com/docs/api-reference/batch/request-input
- Mistral: `{"input_files": [...], "model", "endpoint"}` or `{"requests": [{"body"}]}`; lines may leave the model out.
  https://docs.mistral.ai/capabilities/batch
- Anthropic: `{"requests": [{"custom_id", "params"}]}`. https://docs.anthropic.com/en/api/creating-message-batches
- Gemini: `{"batch": {"inputConfig": {"requests": {"requests": [...]}}}}` or `{"fileName"}` in the place of `requests`;
  a request is `{"request": ...}`, and the path names the model. https://ai.google.dev/gemini-api/docs/batch-api

Pure; never raises on unexpected input.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

from tollspan.wire.dialects import ROUTES
from tollspan.wire.dialects.fields import array, count, mapping, objects, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollspan.wire.dialects.dialect import Json

TIER: Final = "batch"
"""The service tier of every request and result, in the words of the APIs."""

HOUR: Final = 3600.0
_WINDOW: Final = 24 * HOUR
_GEMINI_WINDOW: Final = 48 * HOUR
"""Seconds after which a batch of Gemini expires; it aims at 24 hours."""
_UNITS: Final = {"h": HOUR, "d": 24 * HOUR, "m": 60.0}
_WINDOW_TEXT: Final = re.compile(r"(\d{1,4})([hdm])")
_GEMINI_MODEL: Final = re.compile(r"/models/([^/:]+)(?::|%3A)(batchGenerateContent|asyncBatchEmbedContent)$")


@dataclass(frozen=True, slots=True, kw_only=True)
class Creation:
    """What a request to create a batch says.

    Attributes:
        dialect: the format of the batch's requests, unless they say otherwise; it is that of a refusal, too.
        model: the model of requests that name none.
        lines: the requests in the body.
        files: the ids of the files that have the requests.
        window: the seconds after which the batch expires.
    """

    dialect: str
    model: str | None = None
    lines: tuple[Json, ...] = ()
    files: tuple[str, ...] = ()
    window: float = _WINDOW


@dataclass(frozen=True, slots=True)
class BatchedRequest:
    """One request of a batch: its format, its model if it names one, and the body that it would have alone."""

    dialect: str
    model: str | None
    body: Json


def creation_of(path: str, body: Any) -> Creation | None:
    """Return what creates a batch, None if neither the path nor the body says that of itself.

    Args:
        path: the path of the request.
        body: its JSON value.
    """
    if match := _GEMINI_MODEL.search(path):
        return _gemini_creation(match, body)
    if type(body) is not dict:
        return None
    if path.rstrip("/").endswith("/messages/batches"):
        lines = objects(body, "requests")
        return Creation(dialect="anthropic", lines=tuple(lines)) if any("params" in line for line in lines) else None
    if "/batch/jobs" in path:
        return _mistral_creation(body)
    if (file := text(body, "input_file_id")) is None:
        return None
    return Creation(
        dialect=dialect_at(text(body, "endpoint")), files=(file,), window=_seconds(text(body, "completion_window"))
    )


def unreadable(path: str) -> Creation:
    """Return what is known of a request to create a batch whose body cannot be read."""
    if "/messages/" in path:
        return Creation(dialect="anthropic")
    return Creation(dialect="gemini") if _GEMINI_MODEL.search(path) else Creation(dialect="openai_chat")


def _gemini_creation(match: re.Match[str], body: Any) -> Creation:
    given = mapping(body, "batch") if type(body) is dict else {}
    given = mapping(given, "inputConfig") or mapping(given, "input_config")
    file = text(given, "fileName") or text(given, "file_name")
    return Creation(
        dialect="gemini" if match[2] == "batchGenerateContent" else "gemini_embeddings",
        model=match[1],
        lines=tuple(objects(mapping(given, "requests"), "requests")),
        files=() if file is None else (file.removeprefix("files/"),),
        window=_GEMINI_WINDOW,
    )


def _mistral_creation(body: Json) -> Creation:
    hours = count(body, "timeout_hours")
    return Creation(
        dialect=dialect_at(text(body, "endpoint")),
        model=text(body, "model"),
        lines=tuple(objects(body, "requests")),
        files=tuple(file for file in array(body, "input_files") if type(file) is str),
        window=_WINDOW if hours is None else hours * HOUR,
    )


def _seconds(window: str | None) -> float:
    match = _WINDOW_TEXT.fullmatch(window or "")
    return _WINDOW if match is None else int(match[1]) * _UNITS[match[2]]


def dialect_at(endpoint: str | None) -> str:
    """Return the format of the requests to an endpoint; that of chat completions if it is not known."""
    routes: Iterable[Any] = ROUTES if endpoint else ()
    return next((route.dialect for route in routes if route.path.search(endpoint)), "openai_chat")


def request_of(line: Any, creation: Creation | None = None) -> BatchedRequest | None:
    """Return the request in a line of a file or an element of a body, None if there is none.

    Args:
        line: its JSON value.
        creation: what creates the batch; None while only the file is known.
    """
    if type(line) is not dict:
        return None
    if params := mapping(line, "params"):
        return BatchedRequest("anthropic", text(params, "model"), params)
    if body := mapping(line, "body"):
        url = text(line, "url")
        dialect = dialect_at(url) if url is not None or creation is None else creation.dialect
        return BatchedRequest(dialect, text(body, "model"), body)
    if body := mapping(line, "request"):
        dialect = "gemini_embeddings" if "content" in body else "gemini"
        return BatchedRequest(dialect, (text(body, "model") or "").removeprefix("models/") or None, body)
    return None
