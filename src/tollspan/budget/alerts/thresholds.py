"""Thresholds: one warning per share of a budget and period, for all processes that share its counter.

The first process that sees that a share is passed marks it in the store, and only the one that set the mark warns: in
the log, with callbacks, an event on the call's span, and a webhook. That need not be the call that passed the share:
no call charges what a killed process had reserved, and a limit can be set below what is spent.

A warning for a webhook is marked for a time at first, and forever when it is delivered. So what a process could not
deliver before its end, or was killed over, stays due for the next one that sees the share passed.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from contextlib import suppress
from decimal import Decimal
from functools import partial
from time import monotonic
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
CLAIM: Final = 600.0
"""Seconds that a process has to deliver a warning to a webhook: longer than all of its tries."""
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
            elif (mark not in self._marked or spent - added < threshold) and self._is_first(budget, store, mark, now):
                warning = BudgetWarning(
                    budget=budget.name, counter=key, share=share, spent=spent, limit=limit, unit=budget.limit.unit
                )
                self._warn(budget, warning, span, partial(self._sent, store, mark))

    def _is_first(self, budget: Budget, store: Store, mark: tuple[str, str], now: float) -> bool:
        self._marked[mark] = None
        if len(self._marked) > _MAX_MARKS:
            with suppress(KeyError):  # another thread may have removed the last one
                self._marked.popitem(last=False)
        try:
            return store.mark(*mark) if budget.webhook is None else store.mark(*mark, now, now + CLAIM)
        except StoreError as error:
            self._failed("budget warning", error)
            return True  # twice is better than never

    def _sent(self, store: Store, mark: tuple[str, str], delivered: bool) -> None:  # noqa: FBT001 - a callback
        """Keep the mark of a warning forever once its webhook has it; leave it to the next process otherwise."""
        try:
            if delivered:
                store.mark(*mark)
            else:
                store.unmark(*mark)
        except StoreError as error:
            self._failed("budget warning", error)  # the claim ends by itself

    def finish(self, timeout: float) -> None:
        """Wait at most `timeout` seconds until the webhooks have what is due."""
        deadline = monotonic() + timeout
        for webhook in list(self._webhooks.values()):
            webhook.finish(max(deadline - monotonic(), 0.0))

    def _warn(self, budget: Budget, warning: BudgetWarning, span: Any, sent: Callable[[bool], None]) -> None:
        self.recent.append(warning)
        log.warning("%s", warning)
        for send in (self._note_on(span), *self.callbacks, self._webhook(budget, sent)):
            try:
                if send is not None:
                    send(warning)
            except Exception as error:  # noqa: BLE001 - a callback's own failure
                self._failed("budget warning", error)

    def _note_on(self, span: Any) -> Callable[[BudgetWarning], None] | None:
        note = self.note
        return None if note is None else lambda warning: note(warning, span)

    def _webhook(self, budget: Budget, sent: Callable[[bool], None]) -> Callable[[BudgetWarning], None] | None:
        if budget.webhook is None:
            return None
        address = budget.webhook, budget.webhook_secret
        webhook = self._webhooks.get(address)
        if webhook is None:
            webhook = self._webhooks[address] = Webhook(*address, self._failed)
        return partial(webhook.send, done=sent)


def _mark(budget: Budget, share: Decimal, now: float) -> str:
    """Return the mark of a share: one for each period; a rolling period has one for each length."""
    text = f"{share.normalize():f}"
    length = budget.period.length
    return f"{text}@{int(now // length)}" if length else text
