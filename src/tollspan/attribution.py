"""Who a call is for: `with tollspan.attribution(session=..., user=..., run=..., step=..., tags={...}) as scope`.

Values hold for every call made inside, in this thread or asyncio task and in tasks started from it; `carry(function)`
takes them into another thread. Blocks nest: an inner one adds to the outer one's values. `scope` shows what the calls
inside have cost.

Across processes values travel as OpenTelemetry baggage, and only where `baggage=True` asks for it. Keys of ours start
with `tollspan.`; `strip(header)` takes them out of a `baggage` header, and the hook does so for every request to a
provider.
"""

from __future__ import annotations

import os
import sys
import threading
from contextvars import ContextVar, copy_context
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar
from urllib.parse import unquote

from opentelemetry import baggage as otel_baggage
from opentelemetry.context import attach, detach, get_current
from opentelemetry.trace import get_current_span

from tollspan.model.money import usd
from tollspan.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping
    from contextvars import Token
    from decimal import Decimal
    from types import TracebackType

    from opentelemetry.context import Context

    from tollspan.model.records import Call

Params = ParamSpec("Params")
Result = TypeVar("Result")

NAMES: Final = ("user", "session", "run", "step", "agent")
"""What a block may set, besides tags, whose keys are `tag.NAME`."""

BAGGAGE: Final = "tollspan."
"""What our baggage keys start with."""

AGENT: Final = "gen_ai.agent.name"
LONGEST: Final = 256
"""Characters that a value, or a tag's name, may have; more are cut."""

MOST: Final = 64
"""Values that a call may have: a span takes 128 attributes unless it is set up otherwise, and half of them are ours."""

_current: ContextVar[Scope | None] = ContextVar("tollspan_attribution", default=None)

_counting = threading.RLock()
"""Held for the few additions that a call makes to a block."""


def _fresh() -> None:
    """Take a new lock: the thread that held it does not live in a forked child."""
    global _counting  # noqa: PLW0603 - one per process
    _counting = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_fresh)


class Scope:
    """A block of attribution: its values, those of the blocks around it included, and what its calls have used.

    `cost` is in US dollars, `unpriced` the number of calls whose cost is not known and not in it.
    """

    __slots__ = (
        "_baggage",
        "_baggage_token",
        "_parent",
        "_spend",
        "_token",
        "calls",
        "tokens",
        "unpriced",
        "values",
    )

    def __init__(self, values: Mapping[str, str], *, baggage: bool = False) -> None:
        """Prepare a block with `values`, by key."""
        self.values: Mapping[str, str] = dict(values)
        self._baggage = baggage
        self._baggage_token: Token[Context] | None = None
        self._parent: Scope | None = None
        self._token: Token[Scope | None] | None = None
        self._spend = 0
        self.calls = 0
        self.tokens = 0
        self.unpriced = 0

    @property
    def cost(self) -> Decimal:
        """Return what the calls of the block have cost so far, in US dollars."""
        return usd(self._spend)

    def add(self, call: Call) -> None:
        """Count a call that was made inside, here and in the blocks around."""
        scope: Scope | None = self
        while scope is not None:
            with _counting:
                scope._count(call)  # noqa: SLF001 - of this class
            scope = scope._parent  # noqa: SLF001 - as above

    def _count(self, call: Call) -> None:
        if call.outcome == "denied" or call.pending:  # it was never sent, or counts when it is settled
            return
        self.calls += 1
        if not call.billable:
            return
        if call.usage is not None:
            self.tokens += (call.usage.input or 0) + (call.usage.output or 0)
        if call.cost.amount is None:
            self.unpriced += 1
        else:
            self._spend += call.cost.amount

    def __enter__(self) -> Self:
        self._parent = outer = _current.get()
        if outer is not None:
            self.values = {**outer.values, **self.values}
        self._token = _current.set(self)
        if self._baggage:
            context = get_current()
            for key, value in self.values.items():
                context = otel_baggage.set_baggage(BAGGAGE + key, value, context)
            self._baggage_token = attach(context)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._baggage_token is not None:
            detach(self._baggage_token)
            self._baggage_token = None
        if self._token is not None:
            try:
                _current.reset(self._token)
            except ValueError:  # left in another context than entered in: an async generator that was closed elsewhere
                _current.set(self._parent)
            self._token = None


def attribution(  # noqa: PLR0913 - one argument per kind of value
    *,
    user: str | None = None,
    session: str | None = None,
    run: str | None = None,
    step: str | None = None,
    agent: str | None = None,
    tags: Mapping[str, str] | None = None,
    baggage: bool = False,
) -> Scope:
    """Return who the calls inside the block are for.

    Args:
        user: whose call it is (`user.id` on spans).
        session: the conversation (`session.id` and `gen_ai.conversation.id`).
        run: the run of a program or an agent.
        step: the step within the run.
        agent: the agent's name; by default that of the enclosing agent span.
        tags: more, by name; budgets and metrics know them as `tag.NAME`. Of more than 64 values the last are left out.
        baggage: also send the values with requests to other services (never to a provider of models).
    """
    given = {"user": user, "session": session, "run": run, "step": step, "agent": agent}
    values = {key: kept(value) for key, value in given.items() if value is not None}
    values.update({f"tag.{kept(name)}": kept(value) for name, value in (tags or {}).items()})
    return Scope(values, baggage=baggage)


def kept(value: object) -> str:
    """Return a value as calls have it: as text, and not too long."""
    return as_text(str(value)[:LONGEST])


def current_scope() -> Scope | None:
    """Return the block that is in force, or None."""
    return _current.get()


def current_attribution() -> dict[str, str]:
    """Return the values in force: baggage from another process, the blocks around, the enclosing agent span's name."""
    scope, context = _current.get(), get_current()
    if not context:  # no baggage, no span
        return {} if scope is None else _few(dict(scope.values))
    members: Mapping[Any, Any] = otel_baggage.get_all(context)  # whatever anybody has put there
    found = {
        kept(key[len(BAGGAGE) :]): kept(value)
        for key, value in members.items()
        if isinstance(key, str) and key.startswith(BAGGAGE) and isinstance(value, (str, int, float))
    }
    if scope is not None:
        found.update(scope.values)
    if "agent" not in found:
        attributes = getattr(get_current_span(context), "attributes", None)
        name = attributes.get(AGENT) if attributes else None
        if isinstance(name, str) and name:
            found["agent"] = kept(name)
    return _few(found)


def _few(found: dict[str, str]) -> dict[str, str]:
    """Leave out what is more than a span has room for: there its model, its cost and all else would have to go."""
    if len(found) <= MOST:
        return found
    names = sorted(found, key=lambda key: key not in NAMES)  # the tags last, in their order
    return {key: found[key] for key in names[:MOST]}


def carry(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Return `function` with the attribution (and budgets, and spans) in force now, for another thread to call.

    `executor.submit(tollspan.carry(work), item)`. The result may be called any number of times, also at the same time.
    """
    context = copy_context()

    def carried(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        return context.copy().run(function, *args, **kwargs)

    return carried


def strip(header: str) -> str:
    """Return a `baggage` header without the members that are ours."""
    members = (member.strip() for member in header.split(","))
    return ",".join(member for member in members if not unquote(member).lstrip().startswith(BAGGAGE))


def strip_header(headers: MutableMapping[str, str]) -> None:
    """Take our baggage out of the headers of a request to a provider of models, which have some baggage."""
    if BAGGAGE in unquote(told := headers["baggage"]):
        headers["baggage"] = strip(told)


def without_baggage(context: Context) -> Context:
    """Return a context without our baggage, for requests that go to a provider of models."""
    for key in otel_baggage.get_all(context):
        if str(key).startswith(BAGGAGE):
            context = otel_baggage.remove_baggage(key, context)
    return context


class AttributionMiddleware:
    """ASGI middleware that sets the attribution of the calls of each request, from its headers or with a callable.

    Example:
        app = AttributionMiddleware(app, headers={"x-user-id": "user"}, values=lambda scope: {"session": ...})
    """

    def __init__(
        self,
        app: Callable[..., Awaitable[None]],
        headers: Mapping[str, str] | None = None,
        values: Callable[[MutableMapping[str, Any]], Mapping[str, str | None]] | None = None,
    ) -> None:
        """Wrap an ASGI application.

        Args:
            app: the application.
            headers: header name -> key (`user`, `session`, `run`, `step`, `agent` or `tag.NAME`). A header is what the
                client says: take it only from one that you trust.
            values: given the ASGI scope, gives values by key; None leaves one out. It goes over the headers.
        """
        self._app = app
        self._headers = {name.lower().encode("latin-1"): key for name, key in (headers or {}).items()}
        self._values = values
        for key in self._headers.values():
            _check_key(key)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle one connection."""
        if scope.get("type") not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        found = {
            self._headers[name]: value.decode("latin-1")[:LONGEST]
            for name, value in scope.get("headers", ())
            if name in self._headers and value
        }
        if self._values is not None:
            for key, value in self._values(scope).items():
                _check_key(key)
                if value is not None:
                    found[as_text(key)] = kept(value)
        with Scope(found):
            await self._app(scope, receive, send)


def _check_key(key: str) -> None:
    if key not in NAMES and not key.startswith("tag."):
        message = f"attribution has no {key!r}; accepted are {', '.join(NAMES)} and tag.NAME"
        raise ValueError(message)


class _Module(ModuleType):
    """`tollspan.attribution` is the name of this module and of its function: called, the module is the function."""

    __call__ = staticmethod(attribution)


sys.modules[__name__].__class__ = _Module
