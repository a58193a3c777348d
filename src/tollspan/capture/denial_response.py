"""What the application gets in the place of the provider's response if a budget has refused a request.

It belongs to no client: the hook that sends the request makes its client's own response of it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.denials import responses
from tollspan.capture.view import DenialResponse

if TYPE_CHECKING:
    from tollspan.budget.denials.denial import Denial
    from tollspan.wire.dialects.replies import Reply

_OK: Final = 200


def denial_response(request: Any, denial: Denial, dialect: str, *, reply: Reply | None = None) -> DenialResponse:
    """Return the response: a reply, or else status 402 with an error in the provider's format.

    Args:
        request: what was refused.
        denial: why it was refused.
        dialect: the name of the provider's format.
        reply: a normal response, if one is wanted.
    """
    if reply is None:
        return error_response(request, denial, responses.error(dialect, denial.message))
    return _response(request, denial, _OK, {"content-type": reply.content_type}, reply.body)


def error_response(request: Any, denial: Denial, body: bytes) -> DenialResponse:
    """Return the response with status 402 and this body; the other arguments are those of `denial_response`."""
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    if denial.retry_after is not None:
        headers["retry-after"] = str(denial.retry_after)
    return _response(request, denial, responses.STATUS, headers, body)


def _response(request: Any, denial: Denial, status: int, headers: dict[str, str], body: bytes) -> DenialResponse:
    headers = {"x-tollspan-denied": denial.reason, **headers, "content-length": str(len(body))}
    return DenialResponse(request, status, headers, body)
