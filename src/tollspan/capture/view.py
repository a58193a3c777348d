"""What this package and the hooks say to each other without the classes of any client.

It imports nothing of budgets, so that a program without them does not load their code.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol


class Replace(Protocol):
    """Makes a request of the client's own class that is sent in the place of another; each hook has one."""

    def __call__(self, request: Any, content: bytes, *, path: str | None = None) -> Any:
        """Return `request` with another body, its length and, unless it is None, another raw path and query."""
        ...


@dataclass(frozen=True, slots=True)
class DenialResponse:
    """The response to a request that was not sent; the hook makes its client's own response of it.

    Attributes:
        request: what was refused, in the client's own class; a budget may have changed its model before.
        status: 402, or 200 for a reply.
        headers: by name, in lower case; `content-length` is that of the body.
        body: not compressed, and whole also if the application reads it as a stream.
    """

    request: Any
    status: int
    headers: dict[str, str]
    body: bytes
