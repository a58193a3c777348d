"""Lowers the limit of output tokens in a request: `limit_at` makes the function for the field of one format.

A limit that is set is lowered where it stands, under each of its names; one that is not set is added under the first.
The request's own object is never changed: the application may send it again.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tollspan.wire.dialects.dialect import LimitOutput


def limit_at(*names: str, inside: tuple[str, ...] = ()) -> LimitOutput:
    """Return the function for a field with these names.

    Args:
        names: the names of the field; the first is the one that is added.
        inside: the names of the object that has it, in the same way; none = the field is in the request itself.
    """

    def limit_output(body: dict[str, Any], limit: int, provider: str, model: str, /) -> dict[str, Any]:
        del provider, model
        if not inside:
            return with_field(body, limit, *names)
        at = next((name for name in inside if type(body.get(name)) is dict), inside[0])
        options = body.get(at)
        return {**body, at: with_field(options if type(options) is dict else {}, limit, *names)}

    return limit_output


def with_field(options: dict[str, Any], limit: int, *names: str) -> dict[str, Any]:
    """Return options with the field set to the limit, under the names that it has, else under the first."""
    present = [name for name in names if options.get(name) is not None] or names[:1]
    return {**options, **dict.fromkeys(present, limit)}
