"""Batches of this process: which were created here, what their results are fetched by, and which it has entered."""

from __future__ import annotations

from collections import OrderedDict
from typing import TYPE_CHECKING, Any, Final

from tollspan.runtime.forking import renew_in_child

if TYPE_CHECKING:
    from tollspan.model.records import Call
    from tollspan.wire.batch_formats import Batch

_KEPT: Final = 4096
"""Batches, files and downloads that are remembered; of more, the oldest are forgotten."""


class KnownBatches:
    """What this process knows of batches. Only what is done behind the application touches it, one after the other."""

    def __init__(self) -> None:
        """Know of none."""
        self._fresh()
        renew_in_child(self, KnownBatches._fresh)

    def _fresh(self) -> None:
        self.created: OrderedDict[str, Call] = OrderedDict()
        self.sources: OrderedDict[tuple[str, str], Batch] = OrderedDict()
        self._entered: OrderedDict[str, set[int] | None] = OrderedDict()

    def create(self, call: Call) -> None:
        """Remember the pending record of a batch that was created here."""
        _keep(self.created, call.id, call)

    def look(self, provider: str, batch: Batch) -> None:
        """Remember what the results of a batch are fetched by."""
        for name in batch.results:
            _keep(self.sources, (provider, name), batch)

    def is_new(self, source: str, id_: str) -> bool:
        """Return whether a result of a download has not been entered here yet."""
        known = self._entered.setdefault(source, set())
        if len(self._entered) > _KEPT:
            self._entered.popitem(last=False)
        if known is None or hash(id_) in known:
            return False
        known.add(hash(id_))
        return True

    def is_whole(self, source: str) -> None:
        """Note that all results of a download were entered: that is all to remember of them."""
        self._entered[source] = None


def _keep(kept: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    kept[key] = value
    if len(kept) > _KEPT:
        kept.popitem(last=False)
