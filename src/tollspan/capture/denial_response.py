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
    headers = {"x-tollspan-denied": denial.reason}
    if reply is not None:
        headers["content-type"] = reply.content_type
        status, body = 200, reply.body
    else:
        headers |= {"content-type": "application/json", "x-should-retry": "false"}
        if denial.retry_after is not None:
            headers["retry-after"] = str(denial.retry_after)
        status, body = responses.STATUS, responses.error(dialect, denial.message)
    headers["content-length"] = str(len(body))
    content = {"stream": lib.ByteStream(body)} if stream else {"content": body}
    response = lib.Response(status, headers=headers, request=request, **content)
    response.elapsed = timedelta(0)
    return response
