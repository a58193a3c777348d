"""What budgets have reserved for a batch, from the request that creates it to its last result.

`CreatedBatch` follows the reservation until the provider has created the batch, or has not. The functions do the rest,
in the background: `batch_ended` when a poll finds that the provider has finished, `named_batch` for a file of results.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from tollspan.capture.billed_usage import was_sent
from tollspan.wire.batch_formats import Batch

if TYPE_CHECKING:
    from tollspan.budget.guard import Guard
    from tollspan.capture.billed_usage import ClientErrors
    from tollspan.capture.known_batches import KnownBatches


class CreatedBatch:
    """The reservation of a batch that is being created.

    If it is not known whether the provider has created it, because the connection broke, the reservation stays. It is
    the same one if the request is sent again: `unanswered` finds its id by the request.
    """

    def __init__(self, guard: Guard, known: KnownBatches, attempt: str, request: str) -> None:
        """Follow the reservation `attempt`; `request` identifies what was sent."""
        self._guard = guard
        self._known = known
        self._attempt = attempt
        self._request = request

    def release(self) -> None:
        """Release it: the provider has refused the batch."""
        self._guard.batches.refused(self._attempt)

    def failed_with(self, error: BaseException, errors: ClientErrors) -> None:
        """Release it if the request did not reach the provider."""
        if was_sent(error, errors):
            self._known.remember_unanswered(self._request, self._attempt)
        else:
            self.release()

    def created(self, batch_id: str, name: str) -> None:
        """Keep it until the batch ends: `batch_id` is the id of its record, `name` its name at the provider."""
        self._guard.batches.created(self._attempt, batch_id, name)


def batch_ended(guard: Guard, provider: str, batch_id: str, batch: Batch) -> None:
    """Release what a batch that has ended cannot cost any more, and note by which files its results are read."""
    completed = 0 if batch.ended is not None else batch.completed
    if completed is not None:
        guard.batches.keep_at_most(batch_id, completed)
    if batch.results:
        text = json.dumps([batch.id, batch.dialect, batch.model, batch.errors])
        guard.batches.note_results(batch_id, [f"{provider} {file}" for file in batch.results], text)


def named_batch(guard: Guard, provider: str, file: str) -> Batch | None:
    """Return the batch whose results are in a file, if another process has noted that; None if it is not known."""
    text = guard.batches.notes.of_results(f"{provider} {file}")
    if text is None:
        return None
    name, dialect, model, errors = json.loads(text)
    return Batch(id=name, dialect=dialect, model=model, results=(file,), errors=errors, final=True)
