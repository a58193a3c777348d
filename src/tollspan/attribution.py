"""Attribution: `with tollspan.attribution(session=..., user=..., run=..., step=..., tags={...}) as scope`.

Values apply to every call made inside the block, in this thread or asyncio task and in tasks started from it;
`carry(function)` takes them into another thread. Blocks nest: an inner one adds to the outer one's values. `scope` has
the cost of the calls inside.

Values cross process boundaries as OpenTelemetry baggage, and only with `baggage=True`. Our baggage keys start with
`tollspan.`; `strip(header)` removes them from a `baggage` header, and the hook does so for every request to a provider.
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
from tollspan.model.tables import unknown
from tollspan.model.text import LONGEST_NAME, as_text

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
"""Keys of attribution, besides tags, whose keys are `tag.NAME`."""

BAGGAGE: Final = "tollspan."
"""Prefix of our baggage keys."""

AGENT: Final = "gen_ai.agent.name"
LONGEST: Final = LONGEST_NAME
"""Characters that a value or a tag's name may have; longer ones are cut."""

MOST: Final = 64
"""Values that a call may have: a span has at most 128 attributes by default, and half of them are for the call."""

_current: ContextVar[Scope | None] = ContextVar("tollspan_attribution", default=None)

_counting = threading.RLock()
"""Held while a call is added to a block."""


def _renew() -> None:
    """Take a new lock: the thread that held it does not exist in a forked child."""
    global _counting  # noqa: PLW0603 - one per process
    _counting = threading.RLock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)


class Scope:
    """A block of attribution: its values, with those of the blocks around it, and the sums of its calls.

    Attributes:
        values: the values by key.
        calls: how many calls were made inside; denied and pending ones do not count.
        tokens: their input and output tokens.
        cost: what they have cost so far, in US dollars.
        unpriced: how many of them have no known cost; they are not in `cost`.
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
        """Prepare a block with `values`; `baggage` also sends them to other services."""
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
        """Return the cost of the block's calls so far, in US dollars."""
        return usd(self._spend)

    def add(self, call: Call) -> None:
        """Add a call that was made inside to this block and to the blocks around it."""
        scope: Scope | None = self
        while scope is not None:
            with _counting:
                scope._count(call)  # noqa: SLF001 - of this class
            scope = scope._parent  # noqa: SLF001 - as above

    def _count(self, call: Call) -> None:
        if call.outcome == "denied" or call.pending:  # never sent, or counted when it is settled
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
            except (
                ValueError
            ):  # exited in another context than it was entered in: an async generator that was closed elsewhere
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
    """Return a block that attributes the calls inside it, to be used in a `with` statement..

    Args:
        user: the user (`user.id` on spans).
        session: the conversation (`session.id` and `gen_ai.conversation.id`).
        run: the run of a program or an agent (`tollspan.run.id`).
        step: the step within the run (`tollspan.step`).
        agent: the agent's name (`gen_ai.agent.name`); by default that of the enclosing agent span.
        tags: other values by name; budgets and metrics know them as `tag.NAME`. A call has at most 64 values; the last
            tags are left out.
        baggage: also send the values with requests to other services, but never to a provider of models.

    Returns:
        The block. After it was entered it has the sums of its calls.
    """
    arguments = {"user": user, "session": session, "run": run, "step": step, "agent": agent}
    values = {key: kept(value) for key, value in arguments.items() if value is not None}
    values.update({f"tag.{kept(name)}": kept(value) for name, value in (tags or {}).items()})
    return Scope(values, baggage=baggage)


def kept(value: object) -> str:
    """Return a value as calls have it: a text of at most `LONGEST` characters."""
    return as_text(str(value)[:LONGEST])


def current_scope() -> Scope | None:
    """Return the current block, or None."""
    return _current.get()


def current_attribution() -> dict[str, str]:
    """Return the current values: of the baggage, of the blocks around, and the name of the enclosing agent span."""
    scope, context = _current.get(), get_current()
    if not context:  # no baggage, no span
        return {} if scope is None else _few(dict(scope.values))
    members: Mapping[Any, Any] = otel_baggage.get_all(context)  # any code may have set these
    values = {
        kept(key[len(BAGGAGE) :]): kept(value)
        for key, value in members.items()
        if isinstance(key, str) and key.startswith(BAGGAGE) and isinstance(value, (str, int, float))
    }
    if scope is not None:
        values.update(scope.values)
    if "agent" not in values:
        attributes = getattr(get_current_span(context), "attributes", None)
        name = attributes.get(AGENT) if attributes else None
        if isinstance(name, str) and name:
            values["agent"] = kept(name)
    return _few(values)


def _few(values: dict[str, str]) -> dict[str, str]:
    """Return at most `MOST` values: with more of them, a span would lose its model and its cost."""
    if len(values) <= MOST:
        return values
    names = sorted(values, key=lambda key: key not in NAMES)  # the tags last, in their order
    return {key: values[key] for key in names[:MOST]}


def carry(function: Callable[Params, Result]) -> Callable[Params, Result]:
    """Return `function` with the current attribution, budgets and span, to be called in another thread.

        executor.submit(tollspan.carry(work), item)

    The returned function can be called any number of times, and in several threads at the same time.
    """
    context = copy_context()

    def carried(*args: Params.args, **kwargs: Params.kwargs) -> Result:
        return context.copy().run(function, *args, **kwargs)

    return carried


def strip(header: str) -> str:
    """Return a `baggage` header without our members."""
    members = (member.strip() for member in header.split(","))
    return ",".join(member for member in members if not unquote(member).lstrip().startswith(BAGGAGE))


def strip_header(headers: MutableMapping[str, str]) -> None:
    """Remove our members from the `baggage` header of a request to a provider of models; the header must exist."""
    if BAGGAGE in unquote(header_value := headers["baggage"]):
        headers["baggage"] = strip(header_value)


def without_baggage(context: Context) -> Context:
    """Return a context without our baggage, for a request to a provider of models."""
    for key in otel_baggage.get_all(context):
        if str(key).startswith(BAGGAGE):
            context = otel_baggage.remove_baggage(key, context)
    return context


class AttributionMiddleware:
    """ASGI middleware that attributes the calls of each request by its headers, or by a function.

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
            headers: header name -> key (`user`, `session`, `run`, `step`, `agent` or `tag.NAME`). The client sets its
                headers: use this only with clients that you trust.
            values: returns values by key for an ASGI scope; None leaves one out. They replace those of the headers.

        Raises:
            ValueError: a key of `headers` does not exist. A key of `values` that does not exist raises it later, in the
                request.
        """
        self._app = app
        self._headers = {name.lower().encode("latin-1"): key for name, key in (headers or {}).items()}
        self._values = values
        for key in self._headers.values():
            _check_key(key)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Any, send: Any) -> None:
        """Handle one connection; only HTTP requests and WebSockets are attributed."""
        if scope.get("type") not in {"http", "websocket"}:
            await self._app(scope, receive, send)
            return
        values = {
            self._headers[name]: value.decode("latin-1")[:LONGEST]
            for name, value in scope.get("headers", ())
            if name in self._headers and value
        }
        if self._values is not None:
            for key, value in self._values(scope).items():
                _check_key(key)
                if value is not None:
                    values[as_text(key)] = kept(value)
        with Scope(values):
            await self._app(scope, receive, send)


def _check_key(key: str) -> None:
    if key not in NAMES and not key.startswith("tag."):
        expected = f"one of {', '.join(NAMES)} and tag.NAME"
        message = f"attribution{unknown(key, NAMES, expected=expected)}"
        raise ValueError(message)


class _Module(ModuleType):
    """This module, callable: `tollspan.attribution` is the name of the module and of its function."""

    __call__ = staticmethod(attribution)


sys.modules[__name__].__class__ = _Module
