"""Paid tools: `@tollspan.tool(price="0.01 USD")` charges a function's calls to the budgets of model calls.

Each call is checked before the function runs, and has a span `execute_tool NAME`. If a budget refuses it, the call
raises `BudgetExceeded`, because a function has no HTTP response. A function that raises is charged nevertheless.
"""

from __future__ import annotations

import functools
import inspect
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
    from collections.abc import Callable

    from tollspan.budget.guard import Guard
    from tollspan.budget.request import BudgetDecision
    from tollspan.model.refusal import Refusal

Params = ParamSpec("Params")
Result = TypeVar("Result")

OPERATION: Final = "execute_tool"
PROVIDER: Final = "tool"
_NOTHING: Final = Cost(amount=0, quality="measured", rule="not billed")


def tool(*, price: str, name: str | None = None) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
    """Charge each call of a function, sync or async.

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

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def paid_async(*args: Params.args, **kwargs: Params.kwargs) -> Any:
                call = _ToolCall(title, amount.amount)
                await call.begin_async()
                try:
                    result = await function(*args, **kwargs)
                except BaseException as error:
                    call.end(error)
                    raise
                call.end(None)
                return result

            return cast("Callable[Params, Result]", paid_async)

        @functools.wraps(function)
        def paid(*args: Params.args, **kwargs: Params.kwargs) -> Result:
            call = _ToolCall(title, amount.amount)
            call.begin()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                call.end(error)
                raise
            call.end(None)
            return result

        return paid

    return decorate


def _type_name(error: BaseException) -> str:
    return as_text(type(error).__qualname__)


class _ToolCall:
    """One call of a paid tool, from its check to its record."""

    def __init__(self, name: str, amount: int) -> None:
        self._runtime = connected()  # None: nothing is metered, and nothing limited
        self._name, self._amount = name, amount
        self._id = new_id()
        self._scope, self._values = current_scope(), current_attribution()
        self._started_at, self._start = time_ns(), perf_counter_ns()
        self._span = None if self._runtime is None else self._runtime.start_span(name)

    def begin(self) -> None:
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

    async def begin_async(self) -> None:
        """Check the budgets, and let other tasks run meanwhile. Raises BudgetExceeded."""
        if (guard := self._guard()) is None:
            return
        try:
            decision = await check_aside(guard, self._request())
        except BaseException as error:
            self._record("aborted", _type_name(error), _NOTHING, billable=False)
            raise
        self._apply(decision)

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

    def end(self, error: BaseException | None) -> None:
        """Record the call."""
        if self._runtime is None:
            return
        cost = Cost(amount=self._amount, source="local", quality="measured", rule="tool", computed=self._amount)
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
