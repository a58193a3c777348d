"""Requests that are sent on inside this process: an attempt within an attempt, of which only the inner one is billed.

A proxy within the process (an ASGI or WSGI application, a transport with its own client) sends on what it receives, and
may change names and ids on the way. Both requests pass a hooked client, but the provider bills one.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from tollspan.capture.requests import hash_of

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollspan.capture.exchange import Exchange


class Nested(Protocol):
    """An attempt that was sent while another one waited for its response."""

    exchange: Exchange


def sends_same(one: Exchange, other: Exchange) -> bool:
    """Return whether two attempts send the same body."""
    return hash_of(one.request) == hash_of(other.request) != 0


def is_sent_on(outer: Exchange, inner: Iterable[Nested]) -> bool:
    """Return whether one of the attempts inside sent this request on: then that attempt is billed.

    A request that is sent beside it, for example to ask a judge, has another response. A signal handler that sends what
    the interrupted code is just sending, and gets a response of the same size, is taken for a proxy too.
    """
    return any(_answers(outer, attempt.exchange) for attempt in inner)


def _answers(outer: Exchange, inner: Exchange) -> bool:
    mine, theirs = outer.facts, inner.facts
    if theirs.operation != mine.operation or inner.status != outer.status:
        return False
    if mine.usage is not None and mine.usage == theirs.usage:
        return True
    if mine.response_id is not None and theirs.response_id is not None:
        return mine.response_id == theirs.response_id
    return sends_same(outer, inner)
