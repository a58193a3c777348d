"""The batches of this process: which were created here, how their results are fetched, and which it has recorded."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    import logging

    from tollspan.budget.batch_lines import RequestLines
    from tollspan.model.records import Call
    from tollspan.wire.batch_formats import Batch

_MOST: Final = 4096
"""Batches, files and downloads that are remembered; of more, the oldest are forgotten."""


class KnownBatches:
    """What this process knows of batches, of which only the background worker touches more than one item at a time.

    Attributes:
        created: the pending records of batches that were created here, by id.
        sources: the batches by provider and the name of a file of results.
        uploads: what reads a file that is sent in pieces, by the URL.
        unanswered: the reservations of batches that may or may not have been created, by the request.
    """

    def __init__(self) -> None:
        """Start with none."""
        self._fresh()
        renew_in_child(self, KnownBatches._fresh)

    def _fresh(self) -> None:
        self.created: OrderedDict[str, Call] = OrderedDict()
        self.sources: OrderedDict[tuple[str, str], Batch] = OrderedDict()
        self._recorded: OrderedDict[str, set[int] | None] = OrderedDict()
        self.uploads: OrderedDict[str, RequestLines] = OrderedDict()
        self.unanswered: OrderedDict[str, str] = OrderedDict()
        self._warned: set[str] = set()

    def create(self, call: Call) -> None:
        """Remember the pending record of a batch that was created here."""
        _keep(self.created, call.id, call)

    def remember_sources(self, provider: str, batch: Batch) -> None:
        """Remember the names that the results of a batch are fetched by."""
        for name in batch.results:
            _keep(self.sources, (provider, name), batch)

    def remember_upload(self, url: str, lines: RequestLines) -> None:
        """Remember what reads a file until its next piece is sent."""
        _keep(self.uploads, url, lines)

    def remember_unanswered(self, request: str, attempt: str) -> None:
        """Remember the reservation of a batch that may or may not have been created."""
        _keep(self.unanswered, request, attempt)

    def warn_once(self, log: logging.Logger, message: str, source: str) -> None:
        """Log a warning, unless this process has logged it before."""
        if message not in self._warned:
            self._warned.add(message)
            log.warning(message, source)

    def is_new(self, source: str, id_: str) -> bool:
        """Return whether a result of a download has not been recorded here yet."""
        known = self._recorded.setdefault(source, set())
        if len(self._recorded) > _MOST:
            self._recorded.popitem(last=False)
        if known is None or hash(id_) in known:
            return False
        known.add(hash(id_))
        return True

    def complete(self, source: str) -> None:
        """Note that all results of a download were recorded, and forget which they were."""
        self._recorded[source] = None


def _keep(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    if len(memory) > _MOST:
        memory.popitem(last=False)
