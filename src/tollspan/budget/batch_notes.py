"""Notes on batches: what is reserved for each, kept where its counters are, so that any process can settle it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

from tollspan.budget.stores import StoreError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from tollspan.budget.observations import Observations
    from tollspan.budget.stores import Store
    from tollspan.model.records import Call

BATCH: Final = "batch"
"""The kind of these notes; they are kept by the id of the batch's record."""
RESULTS: Final = "results"
"""The kind of the notes that name the batch of a file of results, by provider and file."""
FILE: Final = "file"
"""The kind of the notes on what is in an uploaded file of requests, by provider and file."""


_UNREAD: Final = "what batches have reserved could not be read; no call was affected"
REFRESH_EVERY: Final = 1.0
"""Seconds that is remembered what other processes have reserved."""


class Entry(NamedTuple):
    """What a batch has reserved on one counter.

    Attributes:
        budget: the name of the budget.
        unit: the unit of its limit.
        key: the counter.
        slot: the slot of the counter.
        kept_until: when the counter may be deleted, in Unix seconds; None = never.
        amount: the amount that was reserved.
        each: the most that one of the requests may use; None if that is not known.
        models: the models whose requests count here; empty = all.
        drawn: what the results that were read have cost.
        released: what was released besides, because fewer requests than ordered can cost anything.
    """

    budget: str
    unit: str
    key: str
    slot: int
    kept_until: float | None
    amount: int
    each: int | None = None
    models: tuple[str, ...] = ()
    drawn: int = 0
    released: int = 0

    @property
    def left(self) -> int:
        """Return what is still reserved."""
        return max(self.amount - self.drawn - self.released, 0)

    def has(self, call: Call, models: Iterable[str]) -> bool:
        """Return whether a result counts here; `models` are those of the batch.

        A result names the model that served it, which is often the requested name with a date behind it.
        """
        if not self.models:
            return True
        names = [name for name in (call.request_model, call.response_model) if name]
        requested = [model for model in models if any(name.startswith(model) for name in names)]
        return not requested or max(requested, key=len) in self.models


class Note(NamedTuple):
    """What is reserved for a batch in one store.

    Attributes:
        attempt: the id of the reservation.
        name: the batch's name at its provider.
        until: when the note may be deleted, in Unix seconds.
        models: the requested models.
        entries: the counters.
        finished: whether nothing is reserved any more.
    """

    attempt: str
    name: str
    until: float
    models: tuple[str, ...]
    entries: tuple[Entry, ...]
    finished: bool = False

    @property
    def text(self) -> str:
        """Return the note as a text, which `of` reads."""
        return json.dumps(self, separators=(",", ":"))

    @classmethod
    def of(cls, text: str) -> Note:
        """Return the note that a text was made of."""
        attempt, name, until, models, entries, finished = json.loads(text)
        read = (Entry(*entry) for entry in entries)
        counters = tuple(entry._replace(models=tuple(entry.models)) for entry in read)
        return cls(attempt, name, until, tuple(models), counters, finished)


class BatchNotes:
    """The notes on batches of some stores.

    Attributes:
        stores: the stores, each once.
    """

    def __init__(self, stores: tuple[Store, ...], observed: Observations, clock: Callable[[], float]) -> None:
        """Keep notes in `stores`, of which the last is the one that processes share; `clock` returns Unix time."""
        self.stores = stores
        self._observed = observed
        self._clock = clock
        self._held: dict[str, tuple[int, tuple[str, ...]]] | None = None
        self._held_at = 0.0

    def read(self, store: Store, batch_id: str) -> Note | None:
        """Return the note on a batch, None if there is none. Raises StoreError."""
        text = store.noted(BATCH, batch_id, self._clock())
        return None if text is None else Note.of(text)

    def write(self, store: Store, batch_id: str, note: Note) -> None:
        """Keep a note on a batch. Raises StoreError."""
        store.note(BATCH, batch_id, note.text, note.until, self._clock())
        self._held = None

    def write_results(self, store: Store, batch_id: str, files: Sequence[str], text: str) -> None:
        """Note something of the files of results of a batch, if the store has reserved for it. Raises StoreError."""
        note = self.read(store, batch_id)
        if note is None or note.finished:
            return
        for file in files:
            store.note(RESULTS, file, text, note.until, self._clock())

    def of_results(self, file: str) -> str | None:
        """Return what is noted of a file of results; None if nothing is, or the store does not answer."""
        try:
            return self.stores[-1].noted(RESULTS, file, self._clock())
        except StoreError as error:
            self._observed.store_failed(error, _UNREAD)
            return None

    def on_counter(self, key: str) -> tuple[int, tuple[str, ...]]:
        """Return the amount that batches have reserved on a counter, and the names of these batches.

        What other processes have reserved is known as of a second ago, because many calls may be refused at once.
        """
        now = self._clock()
        if self._held is None or not self._held_at <= now < self._held_at + REFRESH_EVERY:
            self._held, self._held_at = self._read_held(now), now
        return self._held.get(key, (0, ()))

    def _read_held(self, now: float) -> dict[str, tuple[int, tuple[str, ...]]]:
        """Return what batches have reserved, by counter; nothing if a store does not answer."""
        held: dict[str, tuple[int, tuple[str, ...]]] = {}
        try:
            texts = [text for store in self.stores for text in store.notes(BATCH, now).values()]
        except StoreError as error:
            self._observed.store_failed(error, _UNREAD)
            return held
        for note in map(Note.of, texts):
            for entry in () if note.finished else note.entries:
                if entry.left:
                    amount, names = held.get(entry.key, (0, ()))
                    held[entry.key] = amount + entry.left, (*names, note.name)
        return held
