"""Thresholds: one warning per share of a budget and period, for all processes that share its counter.

The first process that sees that a share is passed marks it in the store, and only the one that set the mark warns: in
the log, with callbacks, an event on the call's span, and a webhook. That need not be the call that passed the share:
no call charges what a killed process had reserved, and a limit can be set below what is spent.
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

MAX_RECENT: Final = 100
_MAX_MARKS: Final = 4096
"""Marks that are remembered; for others the store is read again."""


class Thresholds:
    """Warns of shares that are passed.

    Attributes:
        callbacks: called with each warning.
        note: adds a warning to the span of the call that it came with; None = does not.
        recent: the last warnings.
    """

    def __init__(self, failed: Callable[[str, BaseException], None]) -> None:
        """Call `failed` with the exceptions of callbacks."""
        self._failed = failed
        self.callbacks: list[Callable[[BudgetWarning], None]] = []
        self.note: Callable[[BudgetWarning, Any], None] | None = None
        self.recent: deque[BudgetWarning] = deque(maxlen=MAX_RECENT)
        self._marked: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._webhooks: dict[tuple[str, str | None], Webhook] = {}

    def passed(  # noqa: PLR0913, PLR0917 - one charge
        self, budget: Budget, key: str, added: int, state: CounterState, store: Store, now: float, span: Any
    ) -> None:
        """Warn of every share that a counter has passed.

        Args:
            budget: the budget.
            key: the counter.
            added: the amount that was charged last.
            state: the state of the counter after that.
            store: the store of the counter.
            now: the current time in Unix seconds.
            span: the span of the call that was charged.
        """
        spent, _, limit = state
        if not limit:
            return
        for share in budget.warn_at or (Decimal(1),):
            threshold = limit * share
            mark = key, _mark(budget, share, now)
            if spent < threshold:
                self._marked.pop(mark, None)  # reset since, or the limit was raised
            elif (mark not in self._marked or spent - added < threshold) and self._is_first(store, mark):
                warning = BudgetWarning(
                    budget=budget.name, counter=key, share=share, spent=spent, limit=limit, unit=budget.limit.unit
                )
                self._warn(budget, warning, span)

    def _is_first(self, store: Store, mark: tuple[str, str]) -> bool:
        self._marked[mark] = None
        if len(self._marked) > _MAX_MARKS:
            with suppress(KeyError):  # another thread may have removed the last one
                self._marked.popitem(last=False)
        try:
            return store.mark(*mark)
        except StoreError as error:
            self._failed("budget warning", error)
            return True  # twice is better than never

    def _warn(self, budget: Budget, warning: BudgetWarning, span: Any) -> None:
        self.recent.append(warning)
        log.warning("%s", warning)
        for send in (self._note_on(span), *self.callbacks, self._webhook(budget)):
            try:
                if send is not None:
                    send(warning)
            except Exception as error:  # noqa: BLE001 - a callback's own failure
                self._failed("budget warning", error)

    def _note_on(self, span: Any) -> Callable[[BudgetWarning], None] | None:
        note = self.note
        return None if note is None else lambda warning: note(warning, span)

    def _webhook(self, budget: Budget) -> Callable[[BudgetWarning], None] | None:
        if budget.webhook is None:
            return None
        address = budget.webhook, budget.webhook_secret
        webhook = self._webhooks.get(address)
        if webhook is None:
            webhook = self._webhooks[address] = Webhook(*address, self._failed)
        return webhook.send


def _mark(budget: Budget, share: Decimal, now: float) -> str:
    """Return the mark of a share: one for each period; a rolling period has one for each length."""
    text = f"{share.normalize():f}"
    length = budget.period.length
    return f"{text}@{int(now // length)}" if length else text
