"""What is said when a budget does not let a call through: why, how much, when it renews, and what to do.

A denial says `message`, which can be replaced, for some must not show amounts. How it reaches the application (an HTTP
answer in the provider's own format, a reply, an exception) is `answers.py`'s and the transport's.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import ceil
from shlex import quote
from typing import TYPE_CHECKING, Final

from tollspan.budget.policy.budget import plain
from tollspan.model.errors import REFUSED
from tollspan.model.money import usd

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import CounterState, StoreError

ERROR_TYPE: Final = REFUSED
"""`error.type` of a denied call, and the code in the response that the application gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial:
    """A call that is not sent. `retry_after` is in seconds.

    `reason`: exhausted (nothing is left), insufficient (less than the call may use), unpriced, unset, store, settings
    or failure.
    """

    budget: str
    reason: str
    message: str
    on_exceed: str
    retry_after: int | None = None


def amount(value: int, unit: str, *, limit: bool = False) -> str:
    """Return an amount for people: spent dollars to 4 decimals, limits to 2 or more, other units whole."""
    if unit != "usd":
        return f"{value:,}"
    return f"${plain(usd(value))}" if limit else f"${usd(value):.4f}"


def moment(seconds: float, budget: Budget) -> str:
    """Return a moment in the budget's time zone: 2026-11-23 00:00 UTC."""
    return f"{datetime.fromtimestamp(seconds, budget.period.zone):%Y-%m-%d %H:%M %Z}"


def exhausted(  # noqa: PLR0913 - what the text says
    budget: Budget,
    level: CounterState,
    asked: int,
    *,
    now: float,
    renews_at: float | None,
    bounded: bool,
    block: bool = False,
) -> Denial:
    """Deny a call that would pass the limit: nothing is left, or less than the call may use.

    `bounded`: the request itself limits its output. `block`: the budget is that of a `with` block, which no command can
    raise.
    """
    unit = budget.limit.unit
    limit = level.limit if level.limit is not None else budget.limit.amount
    left = limit - level.spent
    spent, most = amount(level.spent, unit), amount(limit, unit, limit=True)
    rolling = budget.period.kind == "rolling"
    renews = moment(renews_at, budget) if renews_at is not None and not rolling else ""
    if budget.message is not None:
        text = budget.message.format(name=budget.name, spent=spent, limit=most, renews=renews)
    else:
        words = f" {'identical calls' if unit == 'identical' else unit}" if unit != "usd" else ""
        if left <= 0:
            text = f'Budget "{budget.name}" exhausted: {spent} of {most}{words} spent.'
        else:
            text = f'Budget "{budget.name}" has {_down(left, unit)} left of {most}{words}{_why(budget, level, asked)}.'
        if not block:
            text += " " + _what_to_do(budget, renews, fits=asked <= limit)
        if left > 0 and not bounded and unit in {"usd", "tokens"}:
            text += " A limit on output tokens in the request makes that less."
    wait = None if renews_at is None else max(ceil(renews_at - now), 1)
    reason = "exhausted" if left <= 0 else "insufficient"
    return Denial(budget=budget.name, reason=reason, message=text, on_exceed=budget.on_exceed, retry_after=wait)


def _why(budget: Budget, level: CounterState, asked: int) -> str:
    """Say why what is left is not enough: what calls under way have reserved, and what this one may use."""
    unit = budget.limit.unit
    text = f", {_up(level.reserved, unit)} of it reserved for calls under way" if level.reserved else ""
    if unit in {"usd", "tokens"}:
        text += f"; this call may {'cost' if unit == 'usd' else 'use'} up to {_up(asked, unit)}"
    return text


def _what_to_do(budget: Budget, renews: str, *, fits: bool) -> str:
    """Return what helps; a reset does not where the call would not fit into the whole limit."""
    name = quote(budget.name)
    text = f"Raise it with tollspan budget set {name} LIMIT"
    if fits:
        text += f", or reset it with tollspan budget reset {name}"
    if renews:
        return f"{text}; it renews at {renews}."
    return f"{text}; it frees itself as time passes." if budget.period.kind == "rolling" else f"{text}."


_SHOWN: Final = 10**14
"""Atto-dollars in the last decimal that is shown."""


def _down(value: int, unit: str) -> str:
    """Return an amount, or a little less: what is left is never shown as more than it is."""
    return amount(value // _SHOWN * _SHOWN if unit == "usd" else value, unit)


def _up(value: int, unit: str) -> str:
    """Return an amount, or a little more: what does not fit is never shown as if it did."""
    return amount(-(-value // _SHOWN) * _SHOWN if unit == "usd" else value, unit)


def unpriced(budget: Budget, traits: Mapping[str, str]) -> Denial:
    """Deny a call whose model has no price."""
    model = f"{traits.get('provider', '?')} {traits.get('model', '?')}"
    text = (
        f'Budget "{budget.name}" cannot tell what {model} costs: it has no price. Give it one with [[prices]], or set '
        'unpriced = "allow" or an assumed price for this budget.'
    )
    return _denial(budget, "unpriced", text)


def unset(budget: Budget) -> Denial:
    """Deny a call that lacks a value which the budget is kept by."""
    text = (
        f'Budget "{budget.name}" is kept per {", ".join(budget.per)}, and this call does not say which. Set it with '
        f"tollspan.attribution({budget.per[0].removeprefix('tag.')}=...)."
    )
    return _denial(budget, "unset", text)


def unchecked(budget: Budget, error: StoreError) -> Denial:
    """Deny a call because the store did not answer."""
    text = (
        f'Budget "{budget.name}" cannot be checked: {error}. Calls are refused until it can be; set '
        'store_failure = "open" for this budget to let them through instead.'
    )
    return _denial(budget, "store", text)


def _denial(budget: Budget, reason: str, text: str) -> Denial:
    return Denial(budget=budget.name, reason=reason, message=text, on_exceed=budget.on_exceed)
