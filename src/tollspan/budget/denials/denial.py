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
from tollspan.model.text import many

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
        reason: exhausted (nothing is left), insufficient (less is left than the call may use), unpriced, unknown (the
            requests of a batch are not known), unset, store, settings or failure.
        message: the text that the application gets.
        on_exceed: the budget's `on_exceed`, which says how the application gets it.
        retry_after: seconds until the budget renews; None if no clock renews it.
    """

    budget: str
    reason: str
    message: str
    on_exceed: str
    retry_after: int | None = None


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
    subject: str = "call",
    batches: tuple[int, tuple[str, ...]] = (0, ()),
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
        subject: what is denied: a call or a batch.
        batches: the amount that batches have reserved, and their names.
    """
    unit = budget.limit.unit
    limit = state.limit if state.limit is not None else budget.limit.amount
    left = limit - state.spent
    renews = moment(renews_at, budget) if renews_at is not None and budget.period.kind != "rolling" else ""
    if budget.message is not None:
        spent, limit_text = amount(state.spent, unit), amount(limit, unit, limit=True)
        text = budget.message.format(name=budget.name, spent=spent, limit=limit_text, renews=renews)
    else:
        text = f'Budget "{budget.name}" refused this {subject}: '
        text += f"{_reason(state, to_reserve, limit, unit, subject, batches)}."
        if left > 0 and not bounded and unit in {"usd", "tokens"}:
            where = "the request" if subject == "call" else "its requests"
            text += f" A limit on output tokens in {where} lowers that."
        if not block:
            text += " " + _remedy(budget, renews, can_fit=to_reserve <= limit)
    wait = None if renews_at is None else max(ceil(renews_at - now), 1)
    reason = "exhausted" if left <= 0 else "insufficient"
    return Denial(budget=budget.name, reason=reason, message=text, on_exceed=budget.on_exceed, retry_after=wait)


_NOUNS: Final = {"usd": "", "identical": " identical calls"}
"""What follows an amount, by unit; the unit itself for others."""


def _reason(  # noqa: PLR0913, PLR0917 - as above
    state: CounterState, to_reserve: int, limit: int, unit: str, subject: str, batches: tuple[int, tuple[str, ...]]
) -> str:
    """Return why something does not fit: what it may use, what is left, and what is reserved of that."""
    left, total = limit - state.spent, amount(limit, unit, limit=True) + _NOUNS.get(unit, f" {unit}")
    if left <= 0:
        return f"it is exhausted, with {amount(state.spent, unit)} of {total} spent"
    text = f"{_down(left, unit)} of {total} {'is' if unit == 'usd' or left == 1 else 'are'} left"
    in_batches, names = batches
    in_batches = min(in_batches, state.reserved)
    if state.reserved > in_batches:
        text += f", {_up(state.reserved - in_batches, unit)} of it reserved for calls under way"
    if in_batches:
        shown = ", ".join(names[:_BATCHES_SHOWN]) + (" and others" if len(names) > _BATCHES_SHOWN else "")
        text += f", {_up(in_batches, unit)} of it reserved for the {'batch' if len(names) == 1 else 'batches'} {shown}"
    if unit in {"usd", "tokens"}:
        text += f", and the {subject} may {'cost' if unit == 'usd' else 'use'} up to {_up(to_reserve, unit)}"
    elif subject == "batch":
        text += f", and the batch has {many(to_reserve, 'request')}"
    return text


_BATCHES_SHOWN: Final = 3
"""Batches whose names are shown."""


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


def unknown_batch(budget: Budget, source: str) -> Denial:
    """Deny a batch whose requests are not known, so that it has no upper bound."""
    text = (
        f'Budget "{budget.name}" refused this batch: it is hard, and what is in {source} is not known, because it was '
        "not uploaded by a program that tollspan meters with the same budget store. Upload it again from such a "
        "program, or put the requests into the request that creates the batch where the provider accepts that."
    )
    return _denial(budget, "unknown", text)


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
