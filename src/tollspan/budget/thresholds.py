"""Warnings: once per share of a budget and period, for all who share its counter.

Whoever's call passes the share marks it in the store, and only the one who set the mark warns: by log, callbacks, an
event on the call's span, and a webhook.
"""

from __future__ import annotations

import logging
from collections import deque
from dataclasses import dataclass
from decimal import Decimal
from typing import TYPE_CHECKING, Final

from tollspan.budget.denial import amount
from tollspan.budget.stores import StoreError
from tollspan.budget.webhook import Webhook

if TYPE_CHECKING:
    from collections.abc import Callable

    from tollspan.budget.policy import Budget
    from tollspan.budget.stores import Level, Store

log = logging.getLogger("tollspan.budget")

KEPT: Final = 100


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned:
    """A share of a budget that was passed. `spent` and `limit` in the budget's unit, dollars as atto-dollars."""

    budget: str
    counter: str
    share: Decimal
    spent: int
    limit: int
    unit: str

    def __str__(self) -> str:
        """Give the warning for people."""
        spent, limit = amount(self.spent, self.unit), amount(self.limit, self.unit, limit=True)
        return f'Budget "{self.budget}" passed {self.share:.0%}: {spent} of {limit} spent ({self.counter})'


class Thresholds:
    """Gives warnings to whoever wants them."""

    def __init__(self, failed: Callable[[str, BaseException], None]) -> None:
        """Tell `failed` of callbacks that raise."""
        self._failed = failed
        self.callbacks: list[Callable[[Warned], None]] = []
        self.recent: deque[Warned] = deque(maxlen=KEPT)
        self._webhooks: dict[str, Webhook] = {}

    def passed(self, budget: Budget, key: str, added: int, level: Level, store: Store) -> None:
        """Warn of every share that the last charge of `added` has taken the counter past."""
        spent, _, limit = level
        if not limit:
            return
        shares = budget.warn_at or (Decimal(1),)
        for share in shares:
            at = limit * share
            if spent >= at and (spent - added < at or added <= 0) and self._first(store, key, share):
                self._warn(
                    budget,
                    Warned(
                        budget=budget.name, counter=key, share=share, spent=spent, limit=limit, unit=budget.limit.unit
                    ),
                )

    def _first(self, store: Store, key: str, share: Decimal) -> bool:
        try:
            return store.mark(key, f"{share.normalize():f}")
        except StoreError as error:
            self._failed("budget warning", error)
            return True  # twice is better than never

    def _warn(self, budget: Budget, warned: Warned) -> None:
        self.recent.append(warned)
        log.warning("%s", warned)
        for callback in tuple(self.callbacks):
            try:
                callback(warned)
            except Exception as error:  # noqa: BLE001 - a callback's own failure
                self._failed("budget warning", error)
        if budget.webhook is not None:
            hook = self._webhooks.get(budget.webhook)
            if hook is None:
                hook = self._webhooks[budget.webhook] = Webhook(budget.webhook, budget.webhook_secret, self._failed)
            hook.send(warned)
