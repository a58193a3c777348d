"""The response that the application gets in the place of the provider's if a budget has refused a request."""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Any

from tollspan.budget.denials import responses

if TYPE_CHECKING:
    from types import ModuleType

    from tollspan.budget.denials.denial import Denial
    from tollspan.wire.dialects.replies import Reply


def denial_response(  # noqa: PLR0913 - what a response is made of
    request: Any, lib: ModuleType, denial: Denial, dialect: str, *, reply: Reply | None = None, stream: bool
) -> Any:
    """Return the response: a reply, or else status 402 with an error in the provider's format.

    Args:
        request: what was refused.
        lib: the client's module, whose response is made.
        denial: why it was refused.
        dialect: the name of the provider's format.
        reply: a normal response, if one is wanted.
        stream: the application reads the response as a stream, so that it has to be unread.
    """
    if reply is None:
        return error_response(request, lib, denial, responses.error(dialect, denial.message), stream=stream)
    return _response(request, lib, denial, 200, {"content-type": reply.content_type}, reply.body, stream=stream)


def error_response(request: Any, lib: ModuleType, denial: Denial, body: bytes, *, stream: bool) -> Any:
    """Return the response with status 402 and this body; the other arguments are those of `denial_response`."""
    headers = {"content-type": "application/json", "x-should-retry": "false"}
    if denial.retry_after is not None:
        headers["retry-after"] = str(denial.retry_after)
    return _response(request, lib, denial, responses.STATUS, headers, body, stream=stream)


def _response(  # noqa: PLR0913, PLR0917 - the parts of a response
    request: Any, lib: ModuleType, denial: Denial, status: int, headers: dict[str, str], body: bytes, *, stream: bool
) -> Any:
    headers = {"x-tollspan-denied": denial.reason, **headers, "content-length": str(len(body))}
    content = {"stream": lib.ByteStream(body)} if stream else {"content": body}
    response = lib.Response(status, headers=headers, request=request, **content)
    response.elapsed = timedelta(0)
    return response
