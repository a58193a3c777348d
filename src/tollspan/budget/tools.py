"""Paid tools: `@tollspan.tool(price="0.01 USD")` charges a function's calls to the budgets of model calls.

Each call is checked before the function runs, and gets a span `execute_tool NAME`. A budget that cannot pay raises
`BudgetExceeded`, for a function has no HTTP answer to give; a function that raises was paid for all the same.
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
    from tollspan.budget.request import Answer

Params = ParamSpec("Params")
Result = TypeVar("Result")

OPERATION: Final = "execute_tool"
PROVIDER: Final = "tool"
_NOTHING: Final = Cost(amount=0, quality="measured", rule="not billed")


def tool(*, price: str, name: str | None = None) -> Callable[[Callable[Params, Result]], Callable[Params, Result]]:
    """Charge each call of a function, sync or async.

    Args:
        price: of one call, such as "0.01 USD".
        name: the tool's name; the function's by default.

    Raises:
        SettingsError: the price is none.
    """
    amount = parse_limit(price, "tollspan.tool(price=...)")
    if amount.unit != "usd":
        raise SettingsError(f"tollspan.tool(price={price!r}): a price is in US dollars, such as 0.01 USD")

    def decorate(function: Callable[Params, Result]) -> Callable[Params, Result]:
        title = as_text(name or function.__name__)

        if inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def paid_async(*args: Params.args, **kwargs: Params.kwargs) -> Any:
                use = _Use(title, amount.amount)
                await use.begin_async()
                try:
                    result = await function(*args, **kwargs)
                except BaseException as error:
                    use.end(error)
                    raise
                use.end(None)
                return result

            return cast("Callable[Params, Result]", paid_async)

        @functools.wraps(function)
        def paid(*args: Params.args, **kwargs: Params.kwargs) -> Result:
            use = _Use(title, amount.amount)
            use.begin()
            try:
                result = function(*args, **kwargs)
            except BaseException as error:
                use.end(error)
                raise
            use.end(None)
            return result

        return paid

    return decorate


def _named(error: BaseException) -> str:
    return as_text(type(error).__qualname__)


class _Use:
    """One call of a paid tool, from its check to its record."""

    def __init__(self, name: str, amount: int) -> None:
        self._wiring = connected()  # None: nothing is metered, and nothing limited
        self._name, self._amount = name, amount
        self._id = new_id()
        self._scope, self._values = current_scope(), current_attribution()
        self._started_at, self._start = time_ns(), perf_counter_ns()
        self._span = None if self._wiring is None else self._wiring.start_span(name)

    def begin(self) -> None:
        """Ask the budgets. Raises BudgetExceeded."""
        if (guard := self._guard()) is None:
            return
        try:
            verdict = guard.check(self._asked())
        except BaseException as error:  # a signal's handler raised
            guard.withdraw(self._id)
            self._record("aborted", _named(error), _NOTHING, billable=False)
            raise
        self._heed(verdict)

    async def begin_async(self) -> None:
        """Ask the budgets, and let other tasks go on meanwhile. Raises BudgetExceeded."""
        if (guard := self._guard()) is None:
            return
        try:
            verdict = await check_aside(guard, self._asked())
        except BaseException as error:
            self._record("aborted", _named(error), _NOTHING, billable=False)
            raise
        self._heed(verdict)

    def _guard(self) -> Guard | None:
        return None if self._wiring is None else self._wiring.guard()

    def _heed(self, verdict: Answer) -> None:
        if isinstance(verdict, Denial):
            self._record("denied", ERROR_TYPE, _NOTHING, billable=False)
            raise BudgetExceeded(verdict.message, verdict.budget)

    def _asked(self) -> BudgetRequest:
        traits = {**self._values, "provider": PROVIDER, "operation": OPERATION, "model": self._name}
        ask = RequestShape(facts=Facts(OPERATION), prices=(), body={}, content=None, size=0, stated=self._amount)
        return BudgetRequest(attempt=self._id, traits=traits, ask=ask)

    def end(self, error: BaseException | None) -> None:
        """Record the use."""
        if self._wiring is None:
            return
        cost = Cost(amount=self._amount, source="local", quality="measured", rule="tool", computed=self._amount)
        self._record("ok" if error is None else "error", None if error is None else _named(error), cost)

    def _record(self, outcome: Any, error_type: str | None, cost: Cost, *, billable: bool = True) -> None:
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
        )
        if self._wiring is not None:
            self._wiring.record(call, self._span)
        if self._scope is not None:
            self._scope.add(call)
