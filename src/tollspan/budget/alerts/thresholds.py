"""Warnings: once per share of a budget and period, for all who share its counter.

Whoever sees first that a share is passed marks it in the store, and only the one who set the mark warns: by log,
callbacks, an event on the call's span, and a webhook. That need not be the call that passed it: what a killed process
had reserved is charged by nobody's call, and a limit can be set below what is spent.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from contextlib import suppress
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.alerts.warning import BudgetWarning
from tollspan.budget.alerts.webhook import Webhook
from tollspan.budget.stores import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.policy.budget import Budget
    from tollspan.budget.stores import CounterState, Store

log = logging.getLogger("tollspan.budget")

KEPT: Final = 100
_MARKS: Final = 4096
"""Marks that are remembered; of others the store is asked again."""


class Thresholds:
    """Gives warnings to whoever wants them."""

    def __init__(self, failed: Callable[[str, BaseException], None]) -> None:
        """Tell `failed` of callbacks that raise."""
        self._failed = failed
        self.callbacks: list[Callable[[BudgetWarning], None]] = []
        self.note: Callable[[BudgetWarning, Any], None] | None = None
        """Puts a warning on the span of the call that it came with."""
        self.recent: deque[BudgetWarning] = deque(maxlen=KEPT)
        self._marked: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._webhooks: dict[tuple[str, str | None], Webhook] = {}

    def passed(  # noqa: PLR0913, PLR0917 - one charge
        self, budget: Budget, key: str, added: int, level: CounterState, store: Store, now: float, span: Any
    ) -> None:
        """Warn of every share that a counter is past, after a charge of `added` at `now`."""
        spent, _, limit = level
        if not limit:
            return
        for share in budget.warn_at or (Decimal(1),):
            at = limit * share
            mark = key, _mark(budget, share, now)
            if spent < at:
                self._marked.pop(mark, None)  # reset, or set to more, since
            elif (mark not in self._marked or spent - added < at) and self._first(store, mark):
                warned = BudgetWarning(
                    budget=budget.name, counter=key, share=share, spent=spent, limit=limit, unit=budget.limit.unit
                )
                self._warn(budget, warned, span)

    def _first(self, store: Store, mark: tuple[str, str]) -> bool:
        self._marked[mark] = None
        if len(self._marked) > _MARKS:
            with suppress(KeyError):  # another thread may have taken the last one
                self._marked.popitem(last=False)
        try:
            return store.mark(*mark)
        except StoreError as error:
            self._failed("budget warning", error)
            return True  # twice is better than never

    def _warn(self, budget: Budget, warned: BudgetWarning, span: Any) -> None:
        self.recent.append(warned)
        log.warning("%s", warned)
        for tell in (self._note_on(span), *self.callbacks, self._webhook(budget)):
            try:
                if tell is not None:
                    tell(warned)
            except Exception as error:  # noqa: BLE001 - a callback's own failure
                self._failed("budget warning", error)

    def _note_on(self, span: Any) -> Callable[[BudgetWarning], None] | None:
        note = self.note
        return None if note is None else lambda warned: note(warned, span)

    def _webhook(self, budget: Budget) -> Callable[[BudgetWarning], None] | None:
        if budget.webhook is None:
            return None
        address = budget.webhook, budget.webhook_secret
        hook = self._webhooks.get(address)
        if hook is None:
            hook = self._webhooks[address] = Webhook(*address, self._failed)
        return hook.send


def _mark(budget: Budget, share: Decimal, now: float) -> str:
    """Return the mark of a share: one for each period; a rolling one has one for each length."""
    text = f"{share.normalize():f}"
    length = budget.period.length
    return f"{text}@{int(now // length)}" if length else text
