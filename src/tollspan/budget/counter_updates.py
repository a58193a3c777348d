"""The counters that a call counts on, as updates for the stores.

`hold_all` fills a grant with what every budget of a call has to reserve. `of_blocks` and `of_configured` return updates
with an amount of 0, which read the counters, or charge them once the amount is set.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import TYPE_CHECKING

from tollspan.budget.denials.denial import unbounded, unpriced, unset
from tollspan.budget.policy.enforcement import SOFT
from tollspan.budget.stores import CounterUpdate
from tollspan.runtime.blocks import around

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from tollspan.budget.amounts import AmountsToReserve
    from tollspan.budget.denials.denial import Denial
    from tollspan.budget.policy.matching import Block, CompiledBudget
    from tollspan.budget.request import BudgetRequest, Grant
    from tollspan.budget.request_parts import Unbounded
    from tollspan.model.records import Call


def hold_all(  # noqa: PLR0913, PLR0917 - one call and all of its budgets
    grant: Grant,
    block: Block | None,
    budgets: Iterable[CompiledBudget],
    traits: Mapping[str, str],
    budget_request: BudgetRequest,
    amounts: AmountsToReserve,
    now: float,
) -> Denial | None:
    """Add what every budget has to reserve to the grant; return a denial if that is not known for one of them."""
    held, stream = grant.held, budget_request.stream
    for inside in around(block):
        for budget, key in inside.budgets:
            amount, least = amounts.to_reserve(budget)
            if (denial := _unknown(budget, amount, amounts.unbounded, traits)) is not None:
                return denial
            if budget.unit == "identical":
                key = _body_key(key, budget_request)  # noqa: PLW2901
            mode = budget.stream_mode if stream and not (least and budget.is_hard) else budget.mode
            update = CounterUpdate(key, budget.name, amount or 0, budget.limit, mode, least=least)
            held.append((budget.budget, update))
    grant.local = len(held)
    for budget in budgets:
        values = budget.values(traits) if budget.keyed_by else ()
        if values is None:
            if budget.budget.unset == "skip":
                continue
            return unset(budget.budget, traits)
        amount, least = amounts.to_reserve(budget)
        if (denial := _unknown(budget, amount, amounts.unbounded, traits)) is not None:
            return denial
        period = budget.active_period(now)
        key = period.keys.get(values) or budget.key(period, values)
        if budget.unit == "identical":
            key = _body_key(key, budget_request)
        mode = budget.stream_mode if stream and not (least and budget.is_hard) else budget.mode
        window = period.window
        update = CounterUpdate(
            key, budget.name, amount or 0, budget.limit, mode, window.slot, window.first, period.kept_until, least
        )
        held.append((budget.budget, update))
    return None


def _unknown(
    budget: CompiledBudget, amount: int | None, part: Unbounded | None, traits: Mapping[str, str]
) -> Denial | None:
    """Return the denial of a call whose cost is not known, or cannot be bounded although the budget is hard."""
    if amount is None and budget.refuses_unpriced:
        return unpriced(budget.budget, traits)
    if part is None or not budget.is_hard or budget.unit not in {"usd", "tokens"}:
        return None
    return unbounded(budget.budget, part)


def _body_key(key: str, budget_request: BudgetRequest) -> str:
    """Return the counter of one request body: a guard against loops counts each body separately."""
    return f"{key}/body={blake2b(budget_request.shape.content or b'', digest_size=12).hexdigest()}"


def without_amount(budget: CompiledBudget, values: tuple[str, ...], now: float) -> CounterUpdate:
    """Return the update of a budget's counter for these values, with an amount of 0."""
    period = budget.active_period(now)
    window = period.window
    return CounterUpdate(
        budget.key(period, values), budget.name, 0, budget.limit, SOFT, window.slot, window.first, period.kept_until
    )


def of_blocks(block: Block | None) -> Iterator[tuple[CompiledBudget, CounterUpdate]]:
    """Return the budgets of a block and those around it, innermost first, with updates whose amount is 0."""
    for inside in around(block):
        for budget, key in inside.budgets:
            yield budget, CounterUpdate(key, budget.name, 0, budget.limit, SOFT)


def of_configured(
    budgets: Iterable[CompiledBudget], traits: Mapping[str, str], now: float
) -> Iterator[tuple[CompiledBudget, CounterUpdate]]:
    """Return the budgets that have a counter for these traits, with updates whose amount is 0."""
    for budget in budgets:
        if budget.unit != "identical" and (values := budget.values(traits)) is not None:
            yield budget, without_amount(budget, values, now)


def traits_of(call: Call, defaults: Mapping[str, str]) -> dict[str, str]:
    """Return the traits of a record; `defaults` are the session and run of calls that set none."""
    traits = {**defaults, **call.attribution, "provider": call.provider, "operation": call.operation}
    if call.request_model is not None:
        traits["model"] = call.request_model
    if call.server_address is not None:
        traits["host"] = call.server_address
    return traits
