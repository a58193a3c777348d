"""The totals of this process, overall and by session, in memory. They need no ledger.

A session takes less than a kilobyte: one dictionary, and a list of counters for each of its models and tags. Beyond
`MOST_SESSIONS` the least recently used session is dropped here; the ledger still has it. Sums are exact. After a fork
the child starts at zero.
"""

from __future__ import annotations

import threading
from collections import OrderedDict
from operator import attrgetter
from typing import TYPE_CHECKING, Final

from tollspan.ledger.keys import TAG
from tollspan.model.records import UNCERTAIN

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from tollspan.ledger.summaries import Summary
    from tollspan.model.records import Call

NAMES: Final = 10_000
"""Models and tag values that are counted separately; further ones count as `OTHER`, so that memory stays bounded."""

OTHER: Final = "other"

MOST_SESSIONS: Final = 10_000
"""Sessions that are kept, and pending calls."""

LATE: Final = 10_000
"""Most calls that are kept, until they are in the ledger, for a reset that was there before them."""

_MODEL: Final = ""
"""First part of a model's key. A tag's key starts with its name, which is never empty."""

_FIGURES: Final = (
    "calls",
    "failed",
    "denied",
    "pending",
    "unpriced",
    "uncertain",
    "input",
    "output",
    "cache_read",
    "cache_write",
    "reasoning",
    "spend",
    "savings",
)
"""The names of the counters, in their order."""
(
    _CALLS,
    _FAILED,
    _DENIED,
    _PENDING,
    _UNPRICED,
    _UNCERTAIN,
    _INPUT,
    _OUTPUT,
    _READ,
    _WRITE,
    _REASONING,
    _SPEND,
    _SAVED,
) = range(len(_FIGURES))
_UNBILLED: Final = {"failed": _FAILED, "denied": _DENIED, "pending": _PENDING}
_ZERO: Final = [0] * len(_FIGURES)

_Key = tuple[str, str, str]
_Session = dict[_Key, list[int]]


class ProcessTotals:
    """Counters of calls by session, model and tag. Safe under threads, finalizers and fork.

    Args:
        tags: Values of tags that summaries show from the start.
        session: The session of calls that set none.
    """

    def __init__(self, tags: Mapping[str, Iterable[str]] | None = None, session: str | None = None) -> None:
        self._tags = {name: tuple(values) for name, values in (tags or {}).items()}
        self._session = session
        self.shared = False  # whether other processes may reset sessions: true with a ledger
        self.forget()

    def forget(self) -> None:
        """Set all counters to zero."""
        self._lock = threading.RLock()  # a finalizer may end a call in the middle of an addition
        self._all: _Session = {}
        self._sessions: dict[str, _Session] = {}
        self._pending: OrderedDict[str, list[list[int]]] = OrderedDict()
        self._keys: dict[_Key, _Key] = {}  # one tuple for a model, however many sessions use it
        self._unwritten: OrderedDict[str, tuple[str | None, Call]] = OrderedDict()

    def add(self, call: Call) -> None:
        """Count a call."""
        session = call.attribution.get("session") or self._session
        with self._lock:
            if self.shared:
                self._unwritten[call.id] = session, call
                if len(self._unwritten) > LATE:
                    self._unwritten.popitem(last=False)
            self._count(call, self._all, None if session is None else self._of(session))

    def _of(self, session: str) -> _Session:
        """Return the counters of a session, and mark it as the most recently used."""
        counters = self._sessions.pop(session, None)
        if counters is None:
            counters = {}
            if len(self._sessions) >= MOST_SESSIONS:
                del self._sessions[next(iter(self._sessions))]
        self._sessions[session] = counters  # at the end: the first one is the least recently used
        return counters

    def _count(self, call: Call, *sums: _Session | None) -> None:
        attribution = call.attribution
        keys = [(_MODEL, call.provider, call.model or "")]
        if attribution:
            keys += [(key[len(TAG) :], "", value) for key, value in attribution.items() if key.startswith(TAG)]
        cells = [self._cell(kept, key) for kept in sums if kept is not None for key in keys]
        for cell in cells:
            _count(cell, call)
        if call.pending or call.settles is not None:
            self._settle(call, cells)

    def _cell(self, kept: _Session, key: _Key) -> list[int]:
        """Return the counters of a key, created at zero."""
        cell = kept.get(key)
        if cell is None:
            cell = kept.setdefault(self._known(key), _ZERO[:])
        return cell

    def _settle(self, call: Call, cells: list[list[int]]) -> None:
        """Subtract the pending call that a call settles from the counters that had it."""
        if call.counted == "pending":
            self._pending[call.id] = [*self._pending.get(call.id, ()), *cells]
            if len(self._pending) > MOST_SESSIONS:
                self._pending.popitem(last=False)
        else:
            for cell in self._pending.pop(call.settles or "", ()):
                cell[_PENDING] -= 1

    def _known(self, key: _Key) -> _Key:
        known = self._keys.get(key)
        if known is not None:
            return known
        if len(self._keys) >= NAMES:
            key = (*key[:2], OTHER)
        return self._keys.setdefault(key, key)

    def reset(self, session: str) -> None:
        """Reset a session: what was counted so far is forgotten."""
        with self._lock:
            self._sessions.pop(session, None)
            for id_ in [id_ for id_, (whose, _) in self._unwritten.items() if whose == session]:
                del self._unwritten[id_]

    def reset_written(self, session: str) -> None:
        """Apply a reset that is in the ledger: the session keeps the calls that were not in the ledger then."""
        with self._lock:
            self._sessions.pop(session, None)
            for whose, call in self._unwritten.values():
                if whose == session:
                    self._count(call, self._of(session))

    def reset_total(self) -> None:
        """Reset the overall totals of this process."""
        with self._lock:
            self._all = {}

    def written(self, ids: Iterable[str]) -> None:
        """Note that calls are in the ledger: every reset that it had before them has been applied."""
        with self._lock:
            for id_ in ids:
                self._unwritten.pop(id_, None)

    def summary(self, session: str | None = None) -> Summary:
        """Return the summary of a session in this process, or of all its calls."""
        from tollspan.ledger.summaries import summed  # late: counting needs neither
        from tollspan.ledger.totals import Figures

        with self._lock:
            kept = self._all if session is None else self._sessions.get(session, {})
            found = [(key, Figures(**dict(zip(_FIGURES, cell, strict=True)))) for key, cell in kept.items()]
        return summed(
            ((provider, model, figures) for (name, provider, model), figures in found if name == _MODEL),
            ((name, value, figures) for (name, _, value), figures in found if name != _MODEL),
            self._tags,
        )

    @property
    def sessions(self) -> tuple[str, ...]:
        """Return the sessions, the one with the latest call last."""
        with self._lock:
            return tuple(self._sessions)


_TOKENS: Final = (_INPUT, _OUTPUT, _READ, _WRITE, _REASONING)
_tokens_of: Final = attrgetter("input", "output", "cache_read", "cache_write", "reasoning")


def _count(cell: list[int], call: Call) -> None:
    """Add a call to a list of counters."""
    if not call.billable:
        cell[_UNBILLED[call.counted]] += 1
        return
    cell[_CALLS] += 1
    cost, usage = call.cost, call.usage
    if usage is not None:
        for place, tokens in zip(_TOKENS, _tokens_of(usage), strict=True):
            if tokens:
                cell[place] += tokens
    if cost.amount is None:
        cell[_UNPRICED] += 1
    else:
        cell[_SPEND] += cost.amount
        cell[_SAVED] += cost.savings
    if cost.quality in UNCERTAIN:
        cell[_UNCERTAIN] += 1
