"""A check of budgets against the ledger: models of which a budget admits no call, because its limit is too small."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.api.pricing import labels_now
from tollspan.budget.denials.denial import noun, rounded_up
from tollspan.budget.denials.explanation import refused_line
from tollspan.budget.policy.settings import budgets_of
from tollspan.cli.doctor.environment import Finding
from tollspan.ledger.conditions import DAY, Where
from tollspan.ledger.queries import Ledger
from tollspan.model.errors import LedgerError, SettingsError
from tollspan.model.records import Billable, Usage
from tollspan.model.text import many
from tollspan.prices import price

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from tollspan.budget.policy.budget import Budget
    from tollspan.cli.doctor.environment import Environment
    from tollspan.ledger.sums import Group
    from tollspan.model.refusal import RefusedCalls

RECENT: Final = 30 * DAY
"""Nanoseconds before now whose calls are examined."""

SHOWN: Final = 5
"""Models that are reported for one budget; the limit is what has to change, whatever the others are."""

_OF_A_MODEL: Final = ("provider", "model")


class _Usual(NamedTuple):
    """What the calls of a model use on average, and the most that one without an output limit may use.

    `requested` is the model's name in requests, which budgets match. `cost` and `most_cost` are atto-dollars, or
    None without a price.
    """

    provider: str
    model: str
    requested: str
    tokens: int
    cost: int | None
    most_tokens: int | None
    most_cost: int | None

    def amounts(self, unit: str) -> tuple[int | None, int | None]:
        """Return what a call uses on average, and what it may use, in the unit of a budget."""
        return (self.cost, self.most_cost) if unit == "usd" else (self.tokens, self.most_tokens)


def small_limits(env: Environment) -> Iterator[Finding]:
    """Report budgets whose limit no call of a model fits into that the ledger recorded in the last month."""
    try:
        budgets = [budget for budget in budgets_of(env.settings) if budget.limit.unit in {"usd", "tokens"}]
    except SettingsError:
        return  # another check reports it
    path = env.ledger
    if not budgets or path is None or not path.exists():
        return
    since = (int(env.now.timestamp()) * 10**9 - RECENT) // DAY * DAY
    try:
        with Ledger(path) as ledger:
            groups = [group for group in ledger.groups(["provider", "model"], Where(since=since)) if group.key[1]]
            usual = [_usual(env, ledger, group, since) for group in groups if group.figures.calls]
            refused = [
                (group, calls)
                for group in groups
                if group.figures.denied and not group.figures.calls
                for calls in ledger.refused(Where(since=since, provider=group.key[0], model=group.key[1]))
            ]
    except LedgerError:
        return  # another check reports it
    for budget in budgets:
        yield from _findings(budget, usual)
        for group, calls in refused:
            largest = calls.largest
            if largest.budget == budget.name and (largest.requested or 0) > budget.limit.amount:
                yield _refuses_all(group, calls)


def _refuses_all(group: Group, calls: RefusedCalls) -> Finding:
    provider, model = group.key
    return Finding(
        "budget_refuses_model",
        "problem",
        f"{many(group.figures.denied, 'call')} of {provider} {model} were refused in the last month, and none was sent",
        refused_line(replace(calls, largest=replace(calls.largest, remedy=None))),
        calls.largest.remedy or "Raise the limit.",
    )


def _usual(env: Environment, ledger: Ledger, group: Group, since: int) -> _Usual:
    (provider, model), figures = group.key, group.figures
    priced = figures.calls - figures.unpriced
    latest = ledger.calls(Where(since=since, provider=provider, model=model), 1)[0].call
    billable = Billable(usage=Usage(), price_providers=labels_now(latest, env.directory), model=model)
    tariff = env.table.tariff(billable, model, latest.request_model, env.now)
    most = None if tariff is None else tariff.row.max_output
    tokens_in, most_cost = figures.input // figures.calls, None
    if most is not None:
        largest = replace(billable, usage=Usage(input=tokens_in, output=most))
        most_cost = price(largest, env.table, env.now).amount
    return _Usual(
        provider=provider,
        model=model,
        requested=latest.request_model or model,
        tokens=figures.tokens // figures.calls,
        cost=figures.spend // priced if priced else None,
        most_tokens=None if most is None else tokens_in + most,
        most_cost=most_cost,
    )


def _findings(budget: Budget, models: Sequence[_Usual]) -> Iterator[Finding]:
    limit, unit = budget.limit.amount, budget.limit.unit
    shown = 0
    for model in models:
        usual, most = model.amounts(unit)
        if not _applies(budget, model) or shown == SHOWN:
            continue
        if usual is not None and usual > limit:
            yield _below_usual(budget, model, usual)
        elif budget.hard and not budget.fit and most is not None and most > limit:
            yield _below_bound(budget, model, most)
        else:
            continue
        shown += 1


def _applies(budget: Budget, model: _Usual) -> bool:
    """Return whether calls of a model can count towards a budget; what else it matches is not known here."""
    match = {key: patterns for key, patterns in budget.match.items() if key in _OF_A_MODEL}
    return replace(budget, match=match).fits({"provider": model.provider, "model": model.requested})


def _below_usual(budget: Budget, model: _Usual, usual: int) -> Finding:
    unit = budget.limit.unit
    verb = "costs" if unit == "usd" else "uses"
    why = "With hard = true every such call is refused." if budget.hard else "One such call uses the budget up."
    return Finding(
        "budget_below_call",
        "problem",
        f'a call of {model.provider} {model.model} usually {verb} {_shown(usual, unit)}, and budget "{budget.name}" '
        f"has a limit of {budget.limit}",
        why,
        "Raise the limit, or use a smaller model.",
    )


def _below_bound(budget: Budget, model: _Usual, most: int) -> Finding:
    unit = budget.limit.unit
    verb = "cost" if unit == "usd" else "use"
    return Finding(
        "budget_below_bound",
        "problem",
        f"a call of {model.provider} {model.model} without a limit on output tokens may {verb} {_shown(most, unit)}, "
        f'and budget "{budget.name}" has a limit of {budget.limit}',
        "With hard = true every such call is refused, however little it would use.",
        "Set a limit on output tokens in requests, such as max_tokens; or set fit = true or a higher limit.",
    )


def _shown(value: int, unit: str) -> str:
    return rounded_up(value, unit) + noun(unit)
