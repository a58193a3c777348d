"""The denial of a call: which budget refused it, why, how much is left, when it renews, and what to do.

A denial has the facts that are kept with the call (`Refusal`) and the message that the application gets. A budget can
replace the message, because some applications must not show amounts. `responses` and the transport bring the message
to the application: as an HTTP response in the provider's format, a reply, or an exception.

What to do depends on where the budget is counted: a command that cannot change it is not recommended.
"""

from __future__ import annotations

from dataclasses import dataclass, fields, replace
from datetime import datetime
from math import ceil
from shlex import quote
from typing import TYPE_CHECKING, Final

from tollspan.attribution import NAMES
from tollspan.budget.policy.budget import plain
from tollspan.model.errors import REFUSED
from tollspan.model.money import usd
from tollspan.model.refusal import Refusal
from tollspan.model.text import many

if TYPE_CHECKING:
    from collections.abc import Mapping

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.request_parts import Unbounded
    from tollspan.budget.stores import CounterState, CounterUpdate, StoreError

ERROR_TYPE: Final = REFUSED
"""`error.type` of a denied call, and the code in the response that the application gets."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Denial(Refusal):
    """A decision that a call is not sent: why (see `Refusal`), and how the application gets that.

    Attributes:
        message: the text that the application gets.
        on_exceed: the budget's `on_exceed`, which says how the application gets it.
        retry_after: seconds until the budget renews; None if no clock renews it.
    """

    message: str
    on_exceed: str
    retry_after: int | None = None

    @property
    def refusal(self) -> Refusal:
        """Return the facts that are kept with the call."""
        return Refusal(**{name: getattr(self, name) for name in _FACTS})


_FACTS: Final = tuple(item.name for item in fields(Refusal))


@dataclass(frozen=True, slots=True, kw_only=True)
class CounterAddress:
    """Where the counter of a budget that refuses a call is, which decides what can be done about it.

    Attributes:
        key: the name of the counter.
        store: the value of `--store` with which a command reaches the counter; empty if commands find it by themselves,
            None if no command can change it.
        block: whether the budget is that of a `with` block.
        holders: how many calls under way hold the counter's reservations; None = not known.
    """

    key: str
    store: str | None = None
    block: bool = False
    holders: int | None = None


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
    address: CounterAddress,
    *,
    now: float,
    renews_at: float | None,
    bounded: bool,
    own: int = 0,
    waited: float | None = None,
    on_loop: bool = False,
    subject: str = "call",
    batches: tuple[int, tuple[str, ...]] = (0, ()),
) -> Denial:
    """Deny a call that would pass the limit: nothing is left, or less than the call may use.

    Args:
        budget: the budget.
        state: the state of its counter.
        to_reserve: the amount that the call has to reserve.
        address: where the counter is.
        now: the current time in Unix seconds.
        renews_at: when the budget renews; None if no clock renews it.
        bounded: whether the request limits its own output.
        own: what the calls hold of it that are under way in the call's own task or thread.
        waited: seconds that the call has waited for calls under way; None if it did not.
        on_loop: whether it did not wait because that would have blocked an event loop.
        subject: what is denied: a call or a batch.
        batches: the amount that batches have reserved, and their names.
    """
    limit = state.limit if state.limit is not None else budget.limit.amount
    renews = moment(renews_at, budget) if renews_at is not None and budget.period.kind != "rolling" else ""
    refusal = Refusal(
        budget=budget.name,
        reason="exhausted" if limit <= state.spent else "insufficient",
        counter=address.key,
        unit=budget.limit.unit,
        requested=to_reserve,
        left=max(limit - state.spent, 0),
        limit=limit,
        held=state.reserved,
        holders=address.holders if state.reserved else None,
        waited=waited,
    )
    at_once = _why_at_once(own if waited is None else 0, budget.limit.unit, on_loop=on_loop)
    refusal = replace(
        refusal, remedy=at_once + _remedy(budget, refusal, address, renews, subject=subject, bounded=bounded)
    )
    wait = None if renews_at is None else max(ceil(renews_at - now), 1)
    reason = _reason(refusal, state.spent, subject, batches, expected=not budget.hard)
    text = f'Budget "{budget.name}" refused this {subject}: {reason}. {refusal.remedy}'
    if budget.message is not None:
        spent, total = amount(state.spent, budget.limit.unit), amount(limit, budget.limit.unit, limit=True)
        text = budget.message.format(name=budget.name, spent=spent, limit=total, renews=renews)
    return _denial(budget, refusal, text, wait)


_BOUNDED: Final = ("usd", "tokens")
"""The units in which a call uses less if its output is limited."""

_LOOP: Final = "The same request was sent before: end the loop that repeats it."
_BOUND: Final = "Set a limit on output tokens in {}, such as max_tokens."


def _reason(refusal: Refusal, spent: int, subject: str, batches: tuple[int, tuple[str, ...]], *, expected: bool) -> str:
    """Return why something does not fit: what it needs, what is left, and what is reserved of that.

    `expected`: a call needs what such calls usually use, and not the most that it may use.
    """
    limit, unit, left = refusal.limit or 0, refusal.unit or "", refusal.left or 0
    total = amount(limit, unit, limit=True) + noun(unit)
    if not left:
        return f"it is exhausted, with {_spent(spent, unit)} of {total} spent"
    text = f"{rounded_down(left, unit)} of {total} {'is' if unit == 'usd' or left == 1 else 'are'} left"
    held, (in_batches, names) = refusal.held or 0, batches
    in_batches = min(in_batches, held)
    if held > in_batches:
        text += f", {rounded_up(held - in_batches, unit)} of it reserved for {under_way(refusal)}"
    if in_batches:
        shown = ", ".join(names[:_BATCHES_SHOWN]) + (" and others" if len(names) > _BATCHES_SHOWN else "")
        word = "batch" if len(names) == 1 else "batches"
        text += f", {rounded_up(in_batches, unit)} of it reserved for the {word} {shown}"
    if unit in _BOUNDED:
        verb, most = "cost" if unit == "usd" else "use", rounded_up(refusal.requested or 0, unit)
        needs = "is expected to" if expected and subject == "call" else "may"
        text += f", and the {subject} {needs} {verb} up to {most}"
    elif subject == "batch":
        text += f", and the batch has {many(refusal.requested or 0, 'request')}"
    return text


_BATCHES_SHOWN: Final = 3
"""Batches whose names are shown."""


def _spent(value: int, unit: str) -> str:
    """Return an amount that is spent; one above zero is never shown as zero."""
    return "<$0.0001" if unit == "usd" and 0 < value < _SHOWN // 2 else amount(value, unit)


def under_way(refusal: Refusal) -> str:
    """Return who holds a part of a budget: 3 calls under way; and how long the refused call waited for them."""
    text = "calls under way" if refusal.holders is None else many(refusal.holders, "call") + " under way"
    return text if not refusal.waited else f"{text} (waited {refusal.waited:.1f} s for them)"


def noun(unit: str) -> str:
    """Return what follows an amount, by unit: nothing for dollars, which have a sign."""
    return {"usd": "", "identical": " identical calls"}.get(unit, f" {unit}")


def _remedy(  # noqa: PLR0913 - as above
    budget: Budget, refusal: Refusal, address: CounterAddress, renews: str, *, subject: str, bounded: bool
) -> str:
    """Return what to do about a call, or a batch, that does not fit."""
    can_fit = (refusal.requested or 0) <= (refusal.limit or 0)
    raised = _raise_limit(budget, address, renews, can_fit=can_fit)
    if refusal.unit == "identical":
        return f"{_LOOP} {raised}"
    if not refusal.left or bounded or refusal.unit not in _BOUNDED:
        return raised
    return f"{_BOUND.format('the request' if subject == 'call' else 'its requests')} {raised}"


def _why_at_once(own: int, unit: str, *, on_loop: bool) -> str:
    """Return why a call did not wait for calls under way, if it is not the budget that says so."""
    if on_loop:
        return "The call did not wait, because that would block its event loop: use an async client. "
    if own:
        return f"The call did not wait: {rounded_up(own, unit)} is held by calls that are still open in its own task. "
    return ""


def _raise_limit(budget: Budget, address: CounterAddress, renews: str, *, can_fit: bool) -> str:
    """Return how to raise the limit here; a reset does not help if the call does not fit into the whole limit."""
    if address.block:
        return "Raise the limit of the tollspan.budget block around it."
    if address.store is None:
        text = "Raise the limit where it is configured, and restart the program"
    else:
        name, store = quote(budget.name), f" --store {quote(address.store)}" if address.store else ""
        text = f"Raise the budget with tollspan budget set {name} LIMIT{store}"
        if can_fit:
            text += f", or reset it with tollspan budget reset {name}{store}"
    if renews:
        return f"{text}; it renews at {renews}."
    return f"{text}; it recovers as time passes." if budget.period.kind == "rolling" else f"{text}."


_SHOWN: Final = 10**14
"""Atto-dollars in the last decimal that is shown."""


def rounded_down(value: int, unit: str) -> str:
    """Return an amount rounded down: what is left is never shown as more than it is."""
    return amount(value // _SHOWN * _SHOWN if unit == "usd" else value, unit)


def rounded_up(value: int, unit: str) -> str:
    """Return an amount rounded up: what does not fit is never shown as if it did."""
    return amount(-(-value // _SHOWN) * _SHOWN if unit == "usd" else value, unit)


def unpriced(budget: Budget, traits: Mapping[str, str]) -> Denial:
    """Deny a call whose model has no price."""
    model = f"{traits.get('provider', '?')} {traits.get('model', '?')}"
    return _without_amounts(
        budget,
        "unpriced",
        f"{model} has no price, so its cost is not known",
        'Add a price under [[prices]], or set unpriced = "allow" or an assumed price for this budget.',
    )


def unbounded(budget: Budget, part: Unbounded) -> Denial:
    """Deny a call whose cost cannot be bounded, because of a part of its request: the budget is `hard`."""
    return _without_amounts(
        budget,
        "unbounded",
        f"it is hard, and the cost of {part.what} cannot be bounded before it is sent",
        f"{part.remedy}, or set hard = false for this budget.",
    )


def unknown_batch(budget: Budget, source: str) -> Denial:
    """Deny a batch whose requests are not known, so that it has no upper bound."""
    return _without_amounts(
        budget,
        "unknown",
        f"it is hard, and what is in {source} is not known, because it was not uploaded by a program that tollspan "
        "meters with the same budget store",
        "Upload it again from such a program, or put the requests into the request that creates the batch where the "
        "provider accepts that.",
        subject="batch",
    )


def unset(budget: Budget, traits: Mapping[str, str]) -> Denial:
    """Deny a call that lacks a value which the budget is kept by."""
    missing = next((key for key in budget.per if not traits.get(key)), budget.per[0])
    if missing.startswith("tag."):
        remedy = f'Set it with tollspan.attribution(tags={{"{missing.removeprefix("tag.")}": ...}}).'
    elif missing in NAMES:
        remedy = f"Set it with tollspan.attribution({missing}=...)."
    else:
        remedy = f'Set unset = "shared" for this budget: a call cannot be given a {missing}.'
    per = ", ".join(budget.per)
    return _without_amounts(budget, "unset", f"it is kept per {per}, and the call has no {missing}", remedy)


def unchecked(budget: Budget, update: CounterUpdate, error: StoreError) -> Denial:
    """Deny a call because the store did not answer; what is left of the limit is not known."""
    remedy = 'Calls are refused until it can be; to allow them instead, set store_failure = "open" for this budget.'
    text = f'Budget "{budget.name}" refused this call: the budget cannot be checked ({error}). {remedy}'
    refusal = Refusal(
        budget=budget.name,
        reason="store",
        counter=update.key,
        unit=budget.limit.unit,
        requested=update.amount,
        limit=budget.limit.amount,
        remedy=remedy,
    )
    return _denial(budget, refusal, text)


def refused(reason: str, message: str, remedy: str) -> Denial:
    """Deny a call before any budget is checked: the settings cannot be read, or tollspan's own check failed."""
    return Denial(budget="", reason=reason, remedy=remedy, message=f"{message} {remedy}", on_exceed="block")


def _without_amounts(budget: Budget, reason: str, why: str, remedy: str, *, subject: str = "call") -> Denial:
    refusal = Refusal(budget=budget.name, reason=reason, unit=budget.limit.unit, remedy=remedy)
    return _denial(budget, refusal, f'Budget "{budget.name}" refused this {subject}: {why}. {remedy}')


def _denial(budget: Budget, refusal: Refusal, message: str, retry_after: int | None = None) -> Denial:
    facts = {name: getattr(refusal, name) for name in _FACTS}
    return Denial(**facts, message=message, on_exceed=budget.on_exceed, retry_after=retry_after)
