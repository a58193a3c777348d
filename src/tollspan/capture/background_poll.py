"""A request that fetches a response which was pending: it bills that, if it is the first to find it done.

The conventions call this operation `fetch_response`, and let it report no token usage, neither as attributes nor as
metrics: whoever polls would count a response many times. So the usage goes where it is counted once, into the record,
whose operation is that of the request that asked for the response; there it feeds counters, budgets and the ledger.
The span is a `fetch_response` with the cost, linked to the span of that request. A fetch that finds the response still
at work, or done before, leaves nothing behind.
"""

from __future__ import annotations

import threading
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import get_current, get_value

from tollspan.attribution import current_scope
from tollspan.capture.billed_usage import coded, reasons
from tollspan.model.ids import new_id
from tollspan.model.records import Call, Facts, Usage, billable_of
from tollspan.telemetry.otel.suppression import SUPPRESSED
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from tollspan.capture.pending_responses import PendingResponse
    from tollspan.capture.recorder import Recorder

_DONE: Final = 200
_ASKED: Final = (
    # What the request said, and the answer does not repeat.
    "operation",
    "request_model",
    "request_tier",
    "max_output",
    "choice_count",
    "output_type",
    "reasoning_level",
    "previous_response_id",
    "region",
    "search_context",
)


def poll_of(recorder: Recorder, request: Any, path: str) -> BackgroundPoll | None:
    """Follow a GET that a client is about to send; None where it fetches nothing that is pending here."""
    if request.method != "GET":
        return None
    order = recorder.pending_responses.at(request.url.host, path)
    if order is None or get_value(SUPPRESSED):
        return None
    return BackgroundPoll(recorder, order)


class BackgroundPoll:
    """One request for a pending response; the hook feeds it as it feeds an `Attempt`, which it is no kind of."""

    flowing: Final = None  # every piece is told of by itself
    follower: Final = None  # budgets have nothing to cut here
    asks_usage: Final = False

    def __init__(self, recorder: Recorder, order: PendingResponse) -> None:
        """Start the clock."""
        self.context = get_current()
        self.facts = Facts(order.facts.operation)
        for name in _ASKED:
            setattr(self.facts, name, getattr(order.facts, name))
        self._recorder = recorder
        self._scope = current_scope()
        self._keep_pending = order
        self._status: int | None = None
        self._reader: Reader | None = None
        self._piece: bytes | None = None
        self._lock = threading.RLock()
        self._ended = False
        self._started_at, self._start = time_ns(), perf_counter_ns()

    def answered(self, response: Any) -> None:
        """Take the response's status and headers."""
        self._status = response.status_code
        self._keep_pending.dialect.read_headers(self.facts, response.headers)

    def opened(self, response: Any) -> None:
        """Prepare to read a body that streams."""
        self._reader = self._read_by(response, response.headers.get("content-encoding"))

    def whole(self, response: Any) -> None:
        """Read a body that the client has already read."""
        self._reader = self._read_by(response, None)
        self._reader.feed(response.content)

    def _read_by(self, response: Any, encoding: str | None) -> Reader:
        self.facts.stream = "event-stream" in response.headers.get("content-type", "")
        return Reader(self._keep_pending.dialect, self.facts, response.headers.get("content-type", ""), encoding)

    def arrived(self, piece: bytes) -> None:
        """Keep a piece that is about to be handed over, to be read after that."""
        self._piece = piece

    def read(self) -> None:
        """Read the piece that was handed over; failures of our own end the reading, never the application's."""
        piece, self._piece = self._piece, None
        if self._reader is None or piece is None:
            return
        try:
            self._reader.feed(piece)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self._reader = None
            self._recorder.failed("reader", error)

    def done(self) -> None:
        """Bill the response if it is done, and was not billed yet; only the first call counts."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        self.read()
        try:
            self._bill()
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self._recorder.failed("fetch", error)

    left = done

    def broken(self, error: BaseException) -> None:
        """End a fetch that an exception ended; what it has read may have been enough."""
        del error
        self.done()

    def _bill(self) -> None:
        facts, order = self.facts, self._keep_pending
        if self._reader is None or self._status != _DONE:
            return
        self._reader.close()
        if not facts.complete or not self._recorder.pending_responses.take(order):
            return
        if facts.usage is not None or facts.provider_cost is not None:
            call = self._call()
            self._recorder.record_fetch(call, order.span, self.context)
            if self._scope is not None:
                self._scope.add(call)
        elif self._recorder.guard is not None and (facts.error_type or "error" in facts.finish_reasons):
            self._recorder.guard.unbilled(order.call)  # what ended otherwise without a count may be billed

    def _call(self) -> Call:
        facts, order = self.facts, self._keep_pending
        asked = order.call
        billable = billable_of(facts, order.provider.labels, facts.usage or Usage())
        return Call(
            id=new_id(),
            operation_id=asked.operation_id,
            provider=asked.provider,
            operation=asked.operation,
            started_at=self._started_at,
            duration=(perf_counter_ns() - self._start) / 1e9,
            outcome="ok" if facts.error_type is None else "error",
            request_model=facts.request_model,
            response_model=facts.response_model,
            response_id=asked.response_id,
            finish_reasons=reasons(facts),
            stream=facts.stream,
            server_address=asked.server_address,
            server_port=asked.server_port,
            http_status=self._status,
            error_type=coded(facts.error_type),
            usage=facts.usage,
            cost=self._recorder.cost_of(billable),
            tier=facts.tier,
            geography=facts.geography,
            speed=facts.speed,
            region=facts.region,
            search_context=facts.search_context,
            price_labels=order.provider.labels,
            parts=facts.parts,
            attribution=asked.attribution,
            settles=asked.id,
        )
