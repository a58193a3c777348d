"""The denial of a call: which budget refused it, why, how much is left, when it renews, and what to do.

A budget can replace the message, because some applications must not show amounts. `responses` and the transport bring
the message to the application: as an HTTP response in the provider's format, a reply, or an exception.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from math import ceil
from shlex import quote
from typing import TYPE_CHECKING, Final

from tollspan.attribution import NAMES
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
    """A decision that a call is not sent.

    Attributes:
        budget: the budget's name; empty if the call was refused before any budget was checked.
        reason: exhausted (nothing is left), insufficient (less is left than the call may use), unpriced, unset, store,
            settings or failure.
        message: the text that the application gets.
        on_exceed: the budget's `on_exceed`, which says how the application gets it.
        retry_after: seconds until the budget renews; None if no clock renews it.
        waited: seconds that the call has waited for calls under way; None if it has not.
    """

    budget: str
    reason: str
    message: str
    on_exceed: str
    retry_after: int | None = None
    waited: float | None = None


def amount(value: int, unit: str, *, limit: bool = False) -> str:
    """Return an amount as text: spent dollars with 4 decimals, limits with 2 or more, other units as integers."""
    if unit != "usd":
        return f"{value:,}"
    return f"${plain(usd(value))}" if limit else f"${usd(value):.4f}"


def moment(seconds: float, budget: Budget) -> str:
    """Return a time in the budget's time zone: 2026-11-23 00:00 UTC."""
    return f"{datetime.fromtimestamp(seconds, budget.period.zone):%Y-%m-%d %H:%M %Z}"


def exhausted(  # noqa: PLR0913 - what the message says
    budget: Budget,
    state: CounterState,
    to_reserve: int,
    *,
    now: float,
    renews_at: float | None,
    bounded: bool,
    block: bool = False,
    holders: int | None = None,
    own: int = 0,
    waited: float | None = None,
    on_loop: bool = False,
) -> Denial:
    """Deny a call that would pass the limit: nothing is left, or less than the call may use.

    Args:
        budget: the budget.
        state: the state of its counter.
        to_reserve: the amount that the call has to reserve.
        now: the current time in Unix seconds.
        renews_at: when the budget renews; None if no clock renews it.
        bounded: whether the request limits its own output.
        block: whether the budget is that of a `with` block, which no command can change.
        holders: how many calls under way hold what is reserved; None if that is not known.
        own: what the calls hold of it that are under way in the call's own task or thread.
        waited: seconds that the call has waited for them; None if it has not.
        on_loop: whether it did not wait because that would have blocked an event loop.
    """
    unit = budget.limit.unit
    limit = state.limit if state.limit is not None else budget.limit.amount
    left = limit - state.spent
    renews = moment(renews_at, budget) if renews_at is not None and budget.period.kind != "rolling" else ""
    if budget.message is not None:
        spent, limit_text = amount(state.spent, unit), amount(limit, unit, limit=True)
        text = budget.message.format(name=budget.name, spent=spent, limit=limit_text, renews=renews)
    else:
        reason = _reason(state, to_reserve, limit, unit, _under_way(holders, waited))
        text = f'Budget "{budget.name}" refused this call: {reason}.'
        text += _why_at_once(own if waited is None else 0, unit, on_loop=on_loop)
        if left > 0 and not bounded and unit in {"usd", "tokens"}:
            text += " A limit on output tokens in the request lowers that."
        if not block:
            text += " " + _remedy(budget, renews, can_fit=to_reserve <= limit)
    wait = None if renews_at is None else max(ceil(renews_at - now), 1)
    reason = "exhausted" if left <= 0 else "insufficient"
    return Denial(budget=budget.name, reason=reason, message=text, on_exceed=budget.on_exceed, retry_after=wait)


_NOUNS: Final = {"usd": "", "identical": " identical calls"}
"""What follows an amount, by unit; the unit itself for others."""


def _reason(state: CounterState, to_reserve: int, limit: int, unit: str, under_way: str) -> str:
    """Return why a call does not fit: what it may use, what is left, and what calls under way have reserved of it."""
    left, total = limit - state.spent, amount(limit, unit, limit=True) + _NOUNS.get(unit, f" {unit}")
    if left <= 0:
        return f"it is exhausted, with {amount(state.spent, unit)} of {total} spent"
    text = f"{_down(left, unit)} of {total} {'is' if unit == 'usd' or left == 1 else 'are'} left"
    if state.reserved:
        text += f", {_up(state.reserved, unit)} of it reserved for {under_way}"
    if unit in {"usd", "tokens"}:
        text += f", and the call may {'cost' if unit == 'usd' else 'use'} up to {_up(to_reserve, unit)}"
    return text


def _under_way(holders: int | None, waited: float | None) -> str:
    """Return who holds a part of a budget, and how long the call waited for them: 3 calls under way."""
    number = "" if holders is None else f"{holders} "
    text = f"{number}call{'' if holders == 1 else 's'} under way"
    return text if waited is None else f"{text} (waited {waited:.1f} s for them)"


def _why_at_once(own: int, unit: str, *, on_loop: bool) -> str:
    """Return why a call did not wait for calls under way, if it is not the budget that says so."""
    if on_loop:
        return " The call did not wait, because that would block its event loop: use an async client."
    if own:
        return f" The call did not wait: {_up(own, unit)} is held by calls that are still open in its own task."
    return ""


def _remedy(budget: Budget, renews: str, *, can_fit: bool) -> str:
    """Return what to do; a reset does not help if the call does not fit into the whole limit."""
    name = quote(budget.name)
    text = f"Raise it with tollspan budget set {name} LIMIT"
    if can_fit:
        text += f", or reset it with tollspan budget reset {name}"
    if renews:
        return f"{text}; it renews at {renews}."
    return f"{text}; it recovers as time passes." if budget.period.kind == "rolling" else f"{text}."


_SHOWN: Final = 10**14
"""Atto-dollars in the last decimal that is shown."""


def _down(value: int, unit: str) -> str:
    """Return an amount rounded down: what is left is never shown as more than it is."""
    return amount(value // _SHOWN * _SHOWN if unit == "usd" else value, unit)


def _up(value: int, unit: str) -> str:
    """Return an amount rounded up: what does not fit is never shown as if it did."""
    return amount(-(-value // _SHOWN) * _SHOWN if unit == "usd" else value, unit)


def unpriced(budget: Budget, traits: Mapping[str, str]) -> Denial:
    """Deny a call whose model has no price."""
    model = f"{traits.get('provider', '?')} {traits.get('model', '?')}"
    text = (
        f'Budget "{budget.name}" refused this call: {model} has no price, so its cost is not known. Add a price under '
        '[[prices]], or set unpriced = "allow" or an assumed price for this budget.'
    )
    return _denial(budget, "unpriced", text)


def unset(budget: Budget, traits: Mapping[str, str]) -> Denial:
    """Deny a call that lacks a value which the budget is kept by."""
    missing = next((key for key in budget.per if not traits.get(key)), budget.per[0])
    text = (
        f'Budget "{budget.name}" refused this call: it is kept per {", ".join(budget.per)}, and the call has no '
        f"{missing}."
    )
    if missing.startswith("tag."):
        text += f' Set it with tollspan.attribution(tags={{"{missing.removeprefix("tag.")}": ...}}).'
    elif missing in NAMES:
        text += f" Set it with tollspan.attribution({missing}=...)."
    return _denial(budget, "unset", text)


def unchecked(budget: Budget, error: StoreError) -> Denial:
    """Deny a call because the store did not answer."""
    text = (
        f'Budget "{budget.name}" refused this call: the budget cannot be checked ({error}). Calls are refused until it '
        'can be; to allow them instead, set store_failure = "open" for this budget.'
    )
    return _denial(budget, "store", text)


def _denial(budget: Budget, reason: str, text: str) -> Denial:
    return Denial(budget=budget.name, reason=reason, message=text, on_exceed=budget.on_exceed)
