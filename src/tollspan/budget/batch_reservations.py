"""Reservations of batches: made before a batch is created, settled as its results are read, by whichever process.

    guard.check_batch(order)                 # before it is sent: a Grant, a Denial, or None if no budget applies
    batches.created(attempt, batch_id, name) # the provider has created it; `batches.refused(attempt)` if not
    batches.settle(calls)                    # results, each at its cost; returns the results of other batches
    batches.keep_at_most(batch_id, requests) # it has ended: only so many requests can still cost anything
    batches.finish(batch_id)                 # all results are read, or there are none

The lease lasts as long as the provider may work on the batch, and a day longer for reading. If the results are not read
by then, the reservation is spent, and each result that is read later corrects that.

Each result takes its cost out of the reservation; what is left stays reserved until all are read, so that the order of
the results does not matter. A batch counts in the period in which it was created.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.batch_notes import BatchNotes, Note
from tollspan.budget.batch_orders import COUNTING, BatchGrant, held
from tollspan.budget.charges import charge_of
from tollspan.budget.denials.denial import Denial
from tollspan.budget.policy.budget import Budget, Limit
from tollspan.budget.policy.enforcement import SOFT
from tollspan.budget.policy.periods import parse_period
from tollspan.budget.stores import LEASE_REMEMBERED, Charge, CounterUpdate, StoreError
from tollspan.model.ids import new_id

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from tollspan.budget.batch_notes import Entry
    from tollspan.budget.batch_orders import BatchOrder
    from tollspan.budget.observations import Observations
    from tollspan.budget.policy.matching import Block, CompiledBudgets
    from tollspan.budget.settlements import Settlements
    from tollspan.budget.stores import Store
    from tollspan.model.records import Call

_LATER: Final = "what batches have cost is settled later; no call was affected"
MAX_REMEMBERED: Final = 4096
"""Budgets, by name, and created batches, by attempt, that are remembered."""


class BatchReservations:
    """Settles what is reserved for batches, in this process's memory and in the store.

    Attributes:
        budgets: the configured budgets.
        notes: the notes on batches, in memory and in the store.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of a guard that it works with
        self,
        local: Store,
        store: Store,
        budgets: CompiledBudgets,
        settlements: Settlements,
        observed: Observations,
        clock: Callable[[], float],
    ) -> None:
        """Find blocks in `local` and configured budgets in `store`; `clock` returns Unix time in seconds."""
        self._observed = observed
        self._local = local
        self._store = store
        self.budgets = budgets
        self.notes = BatchNotes((local,) if store is local else (local, store), observed, clock)
        self._settlements = settlements
        self._clock = clock
        self._known: dict[str, Budget] = {}
        self._created: dict[str, None] = {}

    # Creation

    def hold(
        self, order: BatchOrder, block: Block | None, traits: Mapping[str, str], now: float
    ) -> BatchGrant | Denial:
        """Return what a batch has to reserve (see `batch_orders.held`)."""
        grant = held(order, block, self.budgets, traits, now)
        if not isinstance(grant, Denial):
            for budget, _ in grant.held:
                self._remember(budget)
        return grant

    def _remember(self, budget: Budget) -> None:
        """Remember a budget, because it may be that of a block, which is over when results are read."""
        self._known[budget.name] = budget
        if len(self._known) > MAX_REMEMBERED:
            self._known.pop(next(iter(self._known)), None)

    def refused(self, attempt: str) -> None:
        """Release what is reserved: the provider has refused the batch, not because it had created it before."""
        if attempt in self._created:
            self._settlements.under_way.pop(attempt, None)
        else:
            self._settlements.release(attempt)

    def created(self, attempt: str, batch_id: str, name: str) -> None:
        """Note what is reserved for a batch that the provider has created.

        Args:
            attempt: the id of the reservation.
            batch_id: the id of the record of the batch.
            name: its name at the provider.
        """
        self._created[attempt] = None
        if len(self._created) > MAX_REMEMBERED:
            self._created.pop(next(iter(self._created)), None)
        grant = self._settlements.under_way.pop(attempt, None)
        if not isinstance(grant, BatchGrant):
            return
        until = self._clock() + (grant.lease or 0.0) + LEASE_REMEMBERED
        parts = ((self._local, grant.held[: grant.local]), (self._store, grant.held[grant.local :]))
        for store, counters in parts:
            if counters:
                entries = tuple(grant.entry(budget, update) for budget, update in counters)
                note = Note(attempt, name, until, grant.models, entries)
                self._retry(partial(self._note_creation, store, batch_id, note))

    def _note_creation(self, store: Store, batch_id: str, note: Note) -> None:
        known, now = self.notes.read(store, batch_id), self._clock()
        if known is None:
            drawn = [entry._replace(drawn=entry.amount * (entry.unit == "identical")) for entry in note.entries]
            charges = [_charge(entry, entry.drawn) for entry in drawn if entry.drawn]
            if charges:  # one request has created it
                store.settle_part(note.attempt, "created", charges, [charge.amount for charge in charges], now)
            self.notes.write(store, batch_id, note._replace(entries=tuple(drawn)))
        elif known.attempt != note.attempt or known.finished:  # the provider has returned a batch that it had already
            store.settle(note.attempt, (), now)

    # Results

    def settle(self, calls: Sequence[Call]) -> list[Call]:
        """Charge the results of batches for which something is reserved; return the other calls."""
        batches: dict[str, list[Call]] = {}
        others = []
        for call in calls:
            if call.settles is None or call.pending:
                others.append(call)
            else:
                batches.setdefault(call.settles, []).append(call)
        for batch_id, results in batches.items():
            if not self._settle_batch(batch_id, results):
                others += results
        return others

    def _settle_batch(self, batch_id: str, results: list[Call]) -> bool:
        """Charge results of one batch, and return whether something was reserved for it."""
        try:
            reserved = [store for store in self.notes.stores if self.notes.read(store, batch_id) is not None]
        except StoreError as error:
            self._observed.store_failed(error, _LATER)
            self._later(partial(self._settle_late, batch_id, results))
            return True
        for store in reserved:
            self._retry(partial(self._settle_in, store, batch_id, new_id(), results))
        return bool(reserved)

    def _settle_late(self, batch_id: str, results: list[Call]) -> None:
        """Charge results whose batch could not be looked up before. Raises StoreError."""
        reserved = [store for store in self.notes.stores if self.notes.read(store, batch_id) is not None]
        for store in reserved:
            self._retry(partial(self._settle_in, store, batch_id, new_id(), results))
        for call in () if reserved else results:
            self._settlements.settle(call, None)

    def _settle_in(self, store: Store, batch_id: str, part: str, results: list[Call]) -> None:
        note = self.notes.read(store, batch_id)
        if note is None or note.finished:
            return
        entries, counters, charges = [], [], []
        for entry in note.entries:
            budget = self._budget(entry)
            reserved = int(entry.unit in COUNTING)
            amount = sum(
                charge_of(budget, entry.key, entry.slot, reserved, call).amount
                for call in results
                if entry.unit != "identical" and entry.has(call, note.models)
            )
            entries.append(entry._replace(drawn=entry.drawn + amount))
            if amount:
                charges.append(_charge(entry, amount))
                counters.append((budget, _update(budget, entry)))
        if charges:
            self._settlements.settle_part(store, note.attempt, part, counters, charges)
            self.notes.write(store, batch_id, note._replace(entries=tuple(entries)))

    # The end

    def keep_at_most(self, batch_id: str, requests: int) -> None:
        """Release what a batch has reserved beyond what this number of its requests may cost: it has ended."""
        for store in self.notes.stores:
            self._retry(partial(self._shrink, store, batch_id, requests))

    def _shrink(self, store: Store, batch_id: str, requests: int) -> None:
        """Shrink the reservation of a batch, once."""
        note = self.notes.read(store, batch_id)
        if note is None or note.finished:
            return
        entries, charges, released = [], [], []
        for entry in note.entries:
            most = entry.amount if entry.each is None and requests else requests * (entry.each or 0)
            surplus = 0 if entry.released else max(entry.amount - most, 0)
            entries.append(entry._replace(released=entry.released + surplus))
            if surplus:
                charges.append(_charge(entry, 0))
                released.append(surplus)
        if charges:
            store.settle_part(note.attempt, "ended", charges, released, self._clock())
            self.notes.write(store, batch_id, note._replace(entries=tuple(entries)))

    def note_results(self, batch_id: str, files: Sequence[str], text: str) -> None:
        """Note by which files the results of a batch are read, for processes that have not looked it up.

        Args:
            batch_id: the id of the record of the batch.
            files: the names of the files, each with its provider.
            text: what to note.
        """
        for store in self.notes.stores:
            self._retry(partial(self.notes.write_results, store, batch_id, files, text))

    def finish(self, batch_id: str) -> None:
        """Release what is still reserved for a batch: all its results are read, or there are none."""
        for store in self.notes.stores:
            self._retry(partial(self._finish_in, store, batch_id))

    def _finish_in(self, store: Store, batch_id: str) -> None:
        note = self.notes.read(store, batch_id)
        if note is not None and not note.finished:
            store.settle(note.attempt, (), self._clock())
            self.notes.write(store, batch_id, note._replace(finished=True))

    def _retry(self, work: Callable[[], None]) -> None:
        """Do work in a store, again in the background if the store fails."""
        try:
            work()
        except StoreError as error:
            self._observed.store_failed(error, _LATER)
            self._later(work)

    def _later(self, work: Callable[[], None]) -> None:
        settler = self._settlements.settler
        settler.later(partial(settler.retry, work))

    def _budget(self, entry: Entry) -> Budget:
        """Return the budget of an entry; one that is not configured here is known by its unit only."""
        for budget in self.budgets.all:
            if budget.name == entry.budget:
                return budget.budget
        known = self._known.get(entry.budget)
        unit: Any = entry.unit
        return known or Budget(name=entry.budget, limit=Limit(amount=0, unit=unit), period=parse_period("total"))


def _charge(entry: Entry, amount: int) -> Charge:
    return Charge(entry.key, entry.slot, amount)


def _update(budget: Budget, entry: Entry) -> CounterUpdate:
    """Return what is reserved on the counter of an entry, as an update with the budget's limit."""
    limit = budget.limit.amount or None  # 0 = of a budget that is not configured here
    return CounterUpdate(entry.key, entry.budget, entry.left, limit, SOFT, entry.slot, kept_until=entry.kept_until)
