"""Notes on batches: what is reserved for each, kept where its counters are, so that any process can settle it."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Iterable

    from tollspan.model.records import Call

BATCH: Final = "batch"
"""The kind of these notes; they are kept by the id of the batch's record."""
RESULTS: Final = "results"
"""The kind of the notes that name the batch of a file of results, by provider and file."""
FILE: Final = "file"
"""The kind of the notes on what is in an uploaded file of requests, by provider and file."""


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
        read = (Entry._make(entry) for entry in entries)
        counters = tuple(entry._replace(models=tuple(entry.models)) for entry in read)
        return cls(attempt, name, until, tuple(models), counters, finished)
