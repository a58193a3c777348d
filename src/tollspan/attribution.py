"""Attribution: `with tollspan.attribution(session=..., user=..., run=..., step=..., tags={...}) as scope`.

Values apply to every call made inside the block, in this thread or asyncio task and in tasks started from it;
`carry(function)` takes them into another thread. Blocks nest: an inner one adds to the outer one's values. `scope` has
the cost of the calls inside.

Values cross process boundaries as OpenTelemetry baggage, and only with `baggage=True` on one side and the setting
`trust_baggage` on the other. Our baggage keys start with `tollspan.`; `strip(header)` removes them from a `baggage`
header, and the hook does so for every request to a provider.
"""

from __future__ import annotations

import os
import sys
import threading
from contextvars import copy_context
from types import ModuleType
from typing import TYPE_CHECKING, Any, Final, ParamSpec, Self, TypeVar
from urllib.parse import unquote

from opentelemetry import baggage as otel_baggage
from opentelemetry.context import Context, attach, create_key, detach, get_current, get_value, set_value
from opentelemetry.trace import get_current_span

from tollspan.model.money import usd
from tollspan.model.tables import unknown
from tollspan.model.text import LONGEST_NAME, as_text
from tollspan.runtime.blocks import Blocks, Entry, around

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Mapping, MutableMapping
    from contextvars import Token
    from decimal import Decimal
    from types import TracebackType

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

    It may be entered again, also inside itself and in several threads at once: its sums go on.

    Attributes:
        values: the values by key, with those of the blocks around the place where it was entered last.
        calls: how many calls were made inside; denied and pending ones do not count.
        tokens: their input and output tokens.
        cost: what they have cost so far, in US dollars.
        unpriced: how many of them have no known cost; they are not in `cost`.
    """

    __slots__ = ("_baggage", "_entered", "_spend", "calls", "own_values", "tokens", "unpriced", "values")

    def __init__(self, values: Mapping[str, str], *, baggage: bool = False) -> None:
        """Prepare a block with `values`; `baggage` also sends them to other services."""
        self.values: Mapping[str, str] = dict(values)
        self.own_values = self.values
        self._baggage = baggage
        self._entered: list[_Inside] = []
        self._spend = 0
        self.calls = 0
        self.tokens = 0
        self.unpriced = 0

    @property
    def cost(self) -> Decimal:
        """Return the cost of the block's calls so far, in US dollars."""
        return usd(self._spend)

    def add(self, call: Call) -> None:
        """Add a call that was made inside to the sums."""
        with _counting:
            self._count(call)

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
        inside = _Inside(self)
        self._entered.append(inside)
        _blocks.enter(inside)
        self.values = _values_of(inside)
        if self._baggage:
            inside.attach(self.values)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not self._entered:
            return
        inside = _blocks.left_here(self._entered)
        self._entered.remove(inside)
        if _blocks.leave(inside):
            inside.detach()


class _Inside(Entry[Scope]):
    """One time that a block was entered, with the baggage that it has set.

    If it is left elsewhere, its baggage cannot be taken out of the context that has it. Then it is not read any more.
    """

    __slots__ = ("_attached", "_baggage_token", "_before", "_members")

    def __init__(self, scope: Scope) -> None:
        super().__init__(scope)
        self._baggage_token: Token[Context] | None = None
        self._before = self._attached = Context()
        self._members: Mapping[str, str] = {}

    def attach(self, values: Mapping[str, str]) -> None:
        """Set the values as baggage."""
        context = get_current()
        while isinstance(ended := get_value(_BLOCK, context), _Inside) and ended.is_left_in(context):
            context = ended.before
        self._before = context
        self._members = {BAGGAGE + key: value for key, value in values.items()}
        context = set_value(_BLOCK, self, context)
        for member, value in self._members.items():
            context = otel_baggage.set_baggage(member, value, context)
        self._attached = context
        self._baggage_token = attach(context)

    def detach(self) -> None:
        """Take the baggage out of this context, in which it was set."""
        if self._baggage_token is not None:
            detach(self._baggage_token)
            self._baggage_token = None

    def is_left_in(self, context: Context) -> bool:
        """Return whether a context is just the one that this block has set, and the block has ended elsewhere."""
        return self.ended and context is self._attached

    @property
    def before(self) -> Context:
        """Return the context in which the baggage was set."""
        return self._before

    @property
    def members(self) -> dict[str, str]:
        """Return the members of the baggage that blocks of this process have set, which apply."""
        earlier = get_value(_BLOCK, self._before)
        members = earlier.members if isinstance(earlier, _Inside) else {}
        return members if self.ended else {**members, **self._members}

    def remove_ended(self, members: dict[Any, Any]) -> None:
        """Take out of the members of a baggage what was set by this block, and those before, if they have ended."""
        before = otel_baggage.get_all(self._before)
        for member, value in self._members.items() if self.ended else ():
            if members.get(member) == value != before.get(member):
                members.pop(member)
                if member in before:
                    members[member] = before[member]
        if isinstance(earlier := get_value(_BLOCK, self._before), _Inside):
            earlier.remove_ended(members)


class _Baggage:
    """Whether baggage that this process has received is believed."""

    def __init__(self) -> None:
        self.is_trusted = False


_baggage: Final = _Baggage()


def trust_baggage(*, trusted: bool) -> None:
    """Set whether values that come as baggage are believed: whoever calls a service can send any.

    Args:
        trusted: the setting `trust_baggage`.
    """
    _baggage.is_trusted = trusted


_BLOCK: Final = create_key("tollspan-attribution")

_blocks: Final[Blocks[_Inside]] = Blocks("tollspan_attribution")
_last_entered: Final = _blocks.last_entered


def _values_of(inside: _Inside) -> Mapping[str, str]:
    """Return the values of a block and of those around it."""
    if inside.outer is None:
        return inside.owner.own_values
    values: dict[str, str] = {}
    for entry in reversed(tuple(around(inside))):
        values.update(entry.owner.own_values)
    return values


class Scopes(tuple[Scope, ...]):
    """Blocks inside each other."""

    __slots__ = ()

    def add(self, call: Call) -> None:
        """Add a call that was made inside to the sums of each."""
        for scope in self:
            scope.add(call)


def attribution(  # noqa: PLR0913 - one argument per kind of value
    *,
    user: str | None = None,
    session: str | None = None,
    run: str | None = None,
    step: str | None = None,
    agent: str | None = None,
    tags: Mapping[str, str | None] | None = None,
    baggage: bool = False,
) -> Scope:
    """Return a block that attributes the calls inside it, to be used in a `with` statement..

    Args:
        user: the user (`user.id` on spans).
        session: the conversation (`session.id` and `gen_ai.conversation.id`).
        run: the run of a program or an agent (`tollspan.run.id`).
        step: the step within the run (`tollspan.step`).
        agent: the agent's name (`gen_ai.agent.name`); by default that of the enclosing agent span.
        tags: other values by name; budgets and metrics know them as `tag.NAME`. None is no value: the tag is left out.
            A call has at most 64 values; the last tags are left out.
        baggage: also send the values with requests to other services, but never to a provider of models.

    Returns:
        The block. After it was entered it has the sums of its calls.
    """
    arguments = {"user": user, "session": session, "run": run, "step": step, "agent": agent}
    values = {key: kept(value) for key, value in arguments.items() if value is not None}
    values.update({f"tag.{kept(name)}": kept(value) for name, value in (tags or {}).items() if value is not None})
    return Scope(values, baggage=baggage)


def kept(value: object) -> str:
    """Return a value as calls have it: a text of at most `LONGEST` characters."""
    return as_text(str(value)[:LONGEST])


def current_scope() -> Scope | Scopes | None:
    """Return the current blocks, whose sums a call counts in; None if there are none."""
    inside = _last_entered() and _blocks.get()
    if inside is None or inside.outer is None:
        return None if inside is None else inside.owner
    return Scopes(entry.owner for entry in around(inside))


def current_attribution() -> dict[str, str]:
    """Return the current values: of the baggage, of the blocks around, and the name of the enclosing agent span."""
    inside, context = _last_entered() and _blocks.get(), get_current()
    if not context:  # no baggage, no span
        return {} if inside is None else _few(dict(_values_of(inside)))
    set_by = get_value(_BLOCK, context)
    members: Mapping[Any, Any] = set_by.members if isinstance(set_by, _Inside) else {}
    if _baggage.is_trusted:
        members = dict(otel_baggage.get_all(context))  # any code may have set these
        if isinstance(set_by, _Inside):
            set_by.remove_ended(members)
    values = {
        kept(key[len(BAGGAGE) :]): kept(value)
        for key, value in members.items()
        if isinstance(key, str) and key.startswith(BAGGAGE) and isinstance(value, (str, int, float))
    }
    if inside is not None:
        own = _values_of(inside)
        values = {**own, **{key: value for key, value in values.items() if key not in own}}
    if "agent" not in values:
        attributes = getattr(get_current_span(context), "attributes", None)
        name = attributes.get(AGENT) if attributes else None
        if isinstance(name, str) and name:
            values["agent"] = kept(name)
    return _few(values)


def _few(values: dict[str, str]) -> dict[str, str]:
    """Return at most `MOST` values: with more of them, a span would lose its model and its cost.

    What a block has set comes before what the baggage brings: whoever calls a service must not push that out.
    """
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
