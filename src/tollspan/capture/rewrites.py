"""Requests with another model, or with a lower limit of output tokens, in the place of those that an application sends.

    with_model(attempt, request, replace, model) -> the request, or None if neither its body nor its path names a model
    can_limit(attempt, request)                  -> whether `with_limit` can lower its limit
    with_limit(attempt, request, replace, limit) -> the request

Only a body that is a JSON object is rewritten, and a limit is never put into a signed one. A client's `auth` signs what
is sent, after this.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from tollspan.capture.requests import is_sealed
from tollspan.wire.dialects.fields import text

if TYPE_CHECKING:
    from tollspan.capture.attempt import Attempt
    from tollspan.capture.view import Replace


def with_model(attempt: Attempt, request: Any, replace: Replace, model: str) -> Any | None:
    """Return the request with another model in its JSON body or path; None if neither names a model."""
    requested = attempt.facts.request_model
    body = _json_object(request)
    if body is None or body != attempt.body:
        return None
    if requested is not None and text(body, "model") == requested:
        return replace(request, _encoded({**body, "model": model}))
    path = request.url.raw_path.decode("ascii")
    if requested is not None and f"/{requested}:" in path:
        return replace(request, request.content, path=path.replace(f"/{requested}:", f"/{model}:"))
    return None


def can_limit(attempt: Attempt, request: Any) -> bool:
    """Return whether a request can be sent with a lower limit of output tokens."""
    if attempt.exchange.dialect.limit_output is None or is_sealed(request.headers):
        return False
    return "X-Amz-Signature" not in request.url.params and _json_object(request) is not None


def with_limit(attempt: Attempt, request: Any, replace: Replace, limit: int) -> Any:
    """Return a request that `can_limit` has found, with this limit of output tokens.

    Raises:
        ValueError: its limit cannot be changed.
    """
    exchange, body = attempt.exchange, _json_object(request)
    change = exchange.dialect.limit_output
    if body is None or change is None:
        raise ValueError("the output limit of this request cannot be changed")
    limited = change(body, limit, exchange.provider.name, attempt.facts.request_model or "")
    return replace(request, _encoded(limited))


def _json_object(request: Any) -> dict[str, Any] | None:
    """Return a request's content if it is a JSON object, not the fields of a form, and not a stream."""
    if getattr(request.stream, "fields", None) is not None:
        return None
    try:
        body = json.loads(request.content)
    except Exception:  # noqa: BLE001 - a body that streams (RequestNotRead of either library), or is not JSON
        return None
    return body if type(body) is dict else None


def _encoded(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()  # ASCII, because a lone surrogate has no UTF-8
