"""Checks the budgets before a request that creates a batch is sent.

    enforce(recorder, followed, request)       -> the request to send, or the `DenialResponse` in its place
    enforce_async(recorder, followed, request) -> the same, on an event loop

The requests of the batch are in its body, or in a file that was uploaded before (see `batch_files`). If what is in the
file is not known, a budget that is hard refuses the batch; others let it pass if anything is left, and the log says so
once.
"""

from __future__ import annotations

import hashlib
import json
import logging
from typing import TYPE_CHECKING, Any, Final

from tollspan.budget.batch_contents import BatchContents, Pricing
from tollspan.budget.batch_notes import FILE
from tollspan.budget.batch_orders import BatchOrder
from tollspan.budget.denials.denial import ERROR_TYPE, Denial, refused
from tollspan.budget.stores import StoreError
from tollspan.capture.created_batch import CreatedBatch
from tollspan.capture.denial_response import denial_response
from tollspan.model.call_record import call_record
from tollspan.model.errors import BudgetExceeded
from tollspan.model.ids import new_id
from tollspan.model.records import Facts
from tollspan.runtime.event_loops import aside
from tollspan.wire.batch_requests import TIER, creation_of, request_of, unreadable
from tollspan.wire.dialects import load
from tollspan.wire.framing.document import parsed

if TYPE_CHECKING:
    from tollspan.budget.batch_contents import ModelTotals
    from tollspan.budget.guard import Guard
    from tollspan.budget.request import Grant
    from tollspan.capture.batch_exchange import BatchRequest
    from tollspan.capture.recorder import Recorder
    from tollspan.wire.batch_requests import Creation

log = logging.getLogger("tollspan.budget")

UPLOAD_WAIT: Final = 10.0
"""Seconds to wait until files that were uploaded just now are read."""
_CHECK_FAILED: Final = (
    "The budget refused this batch: its own check failed ({}), and a batch that cannot be checked is not sent."
)
_REPORT: Final = "See the log of tollspan, and report the failure."
_UNKNOWN: Final = (
    "what is in %s is not known, because no program has uploaded it that tollspan meters with the same budget store: "
    "nothing is reserved for its batch, and its results are charged when they are read"
)


def enforce(recorder: Recorder, followed: BatchRequest, request: Any) -> Any:
    """Return the request to send, or the response in its place (see the module's text).

    Raises:
        BudgetExceeded: a budget refused the batch, and is set to raise.
    """
    if not followed.creates:
        return request
    check = _Check(recorder, followed, request)
    try:
        verdict = check.run()
    except Exception as error:  # noqa: BLE001 - the safe boundary; it refuses, because money is at stake
        verdict = check.failed(error)
    except BaseException:
        check.withdraw()
        raise
    return check.result(verdict)


async def enforce_async(recorder: Recorder, followed: BatchRequest, request: Any) -> Any:
    """Return or raise as `enforce` does, and let other tasks go on while a large body is read or a store responds."""
    if not followed.creates:
        return request
    check = _Check(recorder, followed, request)
    try:
        verdict = await aside(check.run)
    except Exception as error:  # noqa: BLE001 - as above
        verdict = check.failed(error)
    except BaseException:
        check.withdraw()
        raise
    return check.result(verdict)


class _Check:
    """The check of one request."""

    def __init__(self, recorder: Recorder, followed: BatchRequest, request: Any) -> None:
        self._recorder = recorder
        self._followed = followed
        self._request = request
        self._creation: Creation | None = None
        self._groups: tuple[ModelTotals, ...] | None = None
        self._attempt: str | None = None
        self._withdrawn = False

    def run(self) -> Grant | Denial | None:
        """Reserve what the batch may cost; None if the request creates no batch, or no budget applies."""
        guard = self._recorder.guard
        if guard is None:
            return None
        content = _content_of(self._request)
        self._creation = creation = creation_of(self._followed.path, None if content is None else parsed(content))
        if creation is None:
            if self._followed.provider is None:  # at an unrecognized host other things are called batches, too
                return None
            self._creation = creation = unreadable(self._followed.path)
        order = self._order(guard, creation, content or b"")
        self._attempt = order.attempt
        verdict = guard.check_batch(order)
        if self._withdrawn:  # the task was cancelled meanwhile
            guard.release(order.attempt)
        elif verdict is not None and not isinstance(verdict, Denial):
            request = self._identity(content or b"")
            self._followed.reservation = CreatedBatch(guard, self._recorder.batches, order.attempt, request)
            if order.groups is None:
                self._recorder.batches.warn_once(log, _UNKNOWN, order.source)
        return verdict

    def _order(self, guard: Guard, creation: Creation, content: bytes) -> BatchOrder:
        followed, provider = self._followed, self._followed.provider_of(creation.dialect)
        pricing = Pricing(guard.bounds, guard.habits, provider.name, provider.labels, guard.clock())
        self._groups = self._contents(guard, creation, pricing)
        traits = {
            **followed.attribution,
            "provider": provider.name,
            "host": followed.host,
            "operation": load(creation.dialect).operation,
        }
        identity = self._identity(content)
        return BatchOrder(
            attempt=self._recorder.batches.unanswered.pop(identity, "") or self._attempt_id(),
            traits=traits,
            groups=self._groups,
            window=creation.window,
            content=content,
            source=f"file {creation.files[0]}" if creation.files else "its body",
        )

    def _contents(self, guard: Guard, creation: Creation, pricing: Pricing) -> tuple[ModelTotals, ...] | None:
        """Return the requests of the batch by model; None if they are not known."""
        parts = []
        for file in creation.files:
            part = self._noted(guard, f"{pricing.provider} {file}")
            if part is None:
                return None
            parts.append(part)
        inline = BatchContents()
        for line in creation.lines:
            request = request_of(line, creation)
            if request is None:
                return None
            body = json.dumps(request.body, ensure_ascii=False, separators=(",", ":"))
            inline.add(request, body.encode("utf-8", "surrogatepass"), pricing, creation.model)
        totals = [group for part in [*parts, inline] for group in part.totals(creation.model, pricing)]
        return tuple(totals) or None

    def _noted(self, guard: Guard, name: str) -> BatchContents | None:
        """Return what is in a file, once the files that were uploaded just now are read; None if that is not known."""
        try:
            text = guard.store.noted(FILE, name, guard.clock())
            if text is None and self._recorder.background.waiting:
                self._recorder.background.flush(UPLOAD_WAIT)
                text = guard.store.noted(FILE, name, guard.clock())
        except StoreError:
            return None  # the check fails for the same reason, and says so
        return None if text is None else BatchContents.of(text)

    def _identity(self, content: bytes) -> str:
        """Return what identifies the request if it is sent again."""
        text = f"{self._request.method} {self._request.url} ".encode("utf-8", "surrogatepass")
        return hashlib.sha256(text + content).hexdigest()

    def _attempt_id(self) -> str:
        """Return the id of the reservation: the same for each request with one idempotency key."""
        key = self._request.headers.get("idempotency-key")
        return new_id() if not key else hashlib.sha256(f"{self._followed.host} {key}".encode()).hexdigest()[:32]

    # The end of the check

    def failed(self, error: Exception) -> Denial:
        """Return the denial for a check that has failed."""
        self.withdraw()
        self._recorder.failed("budget", error, "the batch was refused, because one that cannot be checked is not sent")
        return refused("failure", _CHECK_FAILED.format(type(error).__name__), _REPORT)

    def withdraw(self) -> None:
        """Release what the check may have reserved."""
        self._withdrawn = True
        if self._attempt is not None and self._recorder.guard is not None:
            self._recorder.guard.withdraw(self._attempt)

    def result(self, verdict: Grant | Denial | None) -> Any:
        """Return the request to send, or the response in its place."""
        if not isinstance(verdict, Denial):
            return self._request
        creation = self._creation or unreadable(self._followed.path)
        self._record_denial(creation, verdict)
        self._recorder.refusals.add(verdict.refusal)
        if verdict.on_exceed == "raise":
            raise BudgetExceeded(verdict.message, verdict.budget)
        return denial_response(self._request, verdict, creation.dialect)

    def _record_denial(self, creation: Creation, denial: Denial) -> None:
        models = {group.model for group in self._groups or ()} or {creation.model}
        facts = Facts(load(creation.dialect).operation)
        facts.request_model, facts.tier = models.pop() if len(models) == 1 else None, TIER
        denied = new_id()
        common = self._followed.common(self._followed.provider_of(creation.dialect), denied)
        call = call_record(
            facts,
            **common,
            call_id=denied,
            outcome="denied",
            error_type=ERROR_TYPE,
            billable=False,
            refusal=denial.refusal,
        )
        self._recorder.record_span(call)


def _content_of(request: Any) -> bytes | None:
    """Return the body of a request, None if it streams."""
    try:
        content: bytes = request.content
    except Exception:  # noqa: BLE001 - RequestNotRead of either library
        return None
    return content
