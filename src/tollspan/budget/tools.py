"""Paid tools: `@tollspan.tool(price="0.01 USD")` charges a function's calls to the budgets of model calls.

Each call is checked before the function runs, and has a span `execute_tool NAME`. If a budget refuses it, the call
raises `BudgetExceeded`, because a function has no HTTP response. A function that raises is charged nevertheless. A
generator runs, and is charged, from its first item on; one that is closed before its end is `aborted`.
"""

from __future__ import annotations

import functools
import inspect
from contextlib import suppress
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final, ParamSpec, TypeVar, cast

from tollspan.attribution import current_attribution, current_scope
from tollspan.budget.bounds import RequestShape
from tollspan.budget.denials.denial import ERROR_TYPE, Denial
from tollspan.budget.guard import check_aside
from tollspan.budget.policy.budget import parse_limit
from tollspan.budget.request import BudgetRequest
from tollspan.budget.runtime import connected
from tollspan.model.call_record import call_record
from tollspan.model.errors import BudgetExceeded, SettingsError
from tollspan.model.ids import new_id
from tollspan.model.records import Cost, Facts, Usage
from tollspan.model.text import as_text

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Generator

    from tollspan.budget.guard import Guard
    from tollspan.budget.request import BudgetDecision
    from tollspan.model.refusal import Refusal

Params = ParamSpec("Params")
Result = TypeVar("Result")

OPERATION: Final = "execute_tool"
PROVIDER: Final = "tool"
_NOTHING: Final = Cost(amount=0, quality="measured", rule="not billed")


def tool(*, price: str, name: str | None = None) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
    """Charge each call of a function or generator, sync or async.

    Args:
        price: the price of one call, such as "0.01 USD".
        name: the tool's name; by default the function's.

    Raises:
        SettingsError: the price is invalid.
    """
    amount = parse_limit(price, "tollspan.tool(): price")
    if amount.unit != "usd":
        raise SettingsError(f"tollspan.tool(price={price!r}): the price must be in US dollars, such as 0.01 USD")

    def decorate(function: Callable[Params, Result]) -> Callable[Params, Result]:
        title = as_text(name or function.__name__)
        if inspect.isgeneratorfunction(function):
            return cast("Callable[Params, Result]", _paid_generator(function, title, amount.amount))
        if inspect.isasyncgenfunction(function):
            return cast("Callable[Params, Result]", _paid_async_generator(function, title, amount.amount))
        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def paid_async(*args: Params.args, **kwargs: Params.kwargs) -> Any:
                async with _ToolCall(title, amount.amount):
                    return await function(*args, **kwargs)

            return cast("Callable[Params, Result]", paid_async)

        @functools.wraps(function)
        def paid(*args: Params.args, **kwargs: Params.kwargs) -> Result:
            with _ToolCall(title, amount.amount):
                return function(*args, **kwargs)

        return paid

    return decorate


def _paid_generator(
    function: Callable[..., Generator[Any, Any, Any]], title: str, amount: int
) -> Callable[..., Generator[Any, Any, Any]]:
    @functools.wraps(function)
    def paid(*args: Any, **kwargs: Any) -> Generator[Any, Any, Any]:
        with _ToolCall(title, amount):
            return (yield from function(*args, **kwargs))

    return paid


def _paid_async_generator(
    function: Callable[..., AsyncGenerator[Any, Any]], title: str, amount: int
) -> Callable[..., AsyncGenerator[Any, Any]]:
    @functools.wraps(function)
    async def paid(*args: Any, **kwargs: Any) -> AsyncGenerator[Any, Any]:
        async with _ToolCall(title, amount):
            items = function(*args, **kwargs)
            with suppress(StopAsyncIteration):
                item = await anext(items)
                while True:  # as `yield from` does, which async generators do not have
                    try:
                        sent = yield item
                    except GeneratorExit:
                        await items.aclose()
                        raise
                    except BaseException as error:  # noqa: BLE001 - it is the generator's to handle
                        item = await items.athrow(error)
                    else:
                        item = await items.asend(sent)

    return paid


def _type_name(error: BaseException) -> str:
    return as_text(type(error).__qualname__)


class _ToolCall:
    """One call of a paid tool, from its check to its record: `with` or `async with` what it does."""

    def __init__(self, name: str, amount: int) -> None:
        self._runtime = connected()  # None: nothing is metered, and nothing limited
        self._name, self._amount = name, amount
        self._id = new_id()
        self._scope, self._values = current_scope(), current_attribution()
        self._started_at, self._start = time_ns(), perf_counter_ns()
        self._span = None if self._runtime is None else self._runtime.start_span(name)

    def __enter__(self) -> None:
        """Check the budgets. Raises BudgetExceeded."""
        if (guard := self._guard()) is None:
            return
        try:
            decision = guard.check(self._request())
        except BaseException as error:  # a signal handler may have raised it
            guard.withdraw(self._id)
            self._record("aborted", _type_name(error), _NOTHING, billable=False)
            raise
        self._apply(decision)

    async def __aenter__(self) -> None:
        """Check the budgets, and let other tasks run meanwhile. Raises BudgetExceeded."""
        if (guard := self._guard()) is None:
            return
        try:
            decision = await check_aside(guard, self._request())
        except BaseException as error:
            self._record("aborted", _type_name(error), _NOTHING, billable=False)
            raise
        self._apply(decision)

    async def __aexit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        self.__exit__(kind, error, traceback)

    def _guard(self) -> Guard | None:
        return None if self._runtime is None else self._runtime.guard()

    def _apply(self, decision: BudgetDecision) -> None:
        if isinstance(decision, Denial):
            self._record("denied", ERROR_TYPE, _NOTHING, billable=False, refusal=decision.refusal)
            raise BudgetExceeded(decision.message, decision.budget)

    def _request(self) -> BudgetRequest:
        traits = {**self._values, "provider": PROVIDER, "operation": OPERATION, "model": self._name}
        shape = RequestShape(facts=Facts(OPERATION), prices=(), body={}, content=None, size=0, stated=self._amount)
        return BudgetRequest(attempt=self._id, traits=traits, shape=shape)

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        """Record the call: `error` is what ended it; a generator that is closed before its end has none of its own."""
        if self._runtime is None:
            return
        cost = Cost(amount=self._amount, source="local", quality="measured", rule="tool", computed=self._amount)
        if isinstance(error, GeneratorExit):
            self._record("aborted", "aborted", cost)
        else:
            self._record("ok" if error is None else "error", None if error is None else _type_name(error), cost)

    def _record(
        self,
        outcome: Any,
        error_type: str | None,
        cost: Cost,
        *,
        billable: bool = True,
        refusal: Refusal | None = None,
    ) -> None:
        facts = Facts(OPERATION)
        facts.request_model = self._name
        call = call_record(
            facts,
            call_id=self._id,
            operation_id=self._id,
            provider=PROVIDER,
            started_at=self._started_at,
            duration=(perf_counter_ns() - self._start) / 1e9,
            attribution=self._values,
            usage=Usage() if billable else None,
            cost=cost,
            outcome=outcome,
            error_type=error_type,
            billable=billable,
            refusal=refusal,
        )
        if self._runtime is not None:
            if refusal is not None:
                self._runtime.refused(refusal)
            self._runtime.record(call, self._span)
        if self._scope is not None:
            self._scope.add(call)
