"""A request that fetches or cancels a pending response: it bills the response if it is the first to find it done.

The conventions call this operation `fetch_response`, and let it report no token usage, neither as attributes nor as
metrics: a program that polls would count a response many times. So the usage goes into the record, which counts it
once: its operation is that of the request for the response, and it feeds counters, budgets and the ledger. The span
is a `fetch_response` with the cost, linked to the span of that request. A poll that finds the response not done yet,
or done before, is not recorded.
"""

from __future__ import annotations

import threading
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import get_current, get_value

from tollspan.attribution import current_scope
from tollspan.capture.billed_usage import coded, reasons
from tollspan.capture.bodies import StreamReading, WholeBody
from tollspan.model.call_record import call_record
from tollspan.model.ids import new_id
from tollspan.model.records import Facts, Usage, billable_of
from tollspan.telemetry.otel.suppression import SUPPRESSED
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from tollspan.capture.billed_usage import ClientErrors
    from tollspan.capture.bodies import Body
    from tollspan.capture.pending_responses import PendingResponse
    from tollspan.capture.recorder import Recorder
    from tollspan.model.records import Call

_OK: Final = 200
_CANCEL: Final = "/cancel"
_REQUESTED: Final = (
    # What the request said, and the response does not repeat.
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
    """Follow a request that fetches or cancels a pending response; return None if it is none, or not pending here.

    The response to a cancellation is the pending response as it is then, which may be done
    (https://platform.openai.com/docs/api-reference/responses/cancel).
    """
    if request.method == "POST" and path.endswith(_CANCEL):
        path = path[: -len(_CANCEL)]
    elif request.method != "GET":
        return None
    pending = recorder.pending_responses.at(request.url.host, path)
    if pending is None or get_value(SUPPRESSED):
        return None
    return BackgroundPoll(recorder, pending)


class BackgroundPoll:
    """One request for a pending response; it is not an `Attempt`, and makes a record only if it bills the response."""

    follower: Final = None  # budgets have nothing to cut here
    asks_usage: Final = False

    def __init__(self, recorder: Recorder, pending: PendingResponse) -> None:
        """Start the clock."""
        self.context = get_current()
        self.facts = Facts(pending.facts.operation)
        for name in _REQUESTED:
            setattr(self.facts, name, getattr(pending.facts, name))
        self._recorder = recorder
        self._scope = current_scope()
        self._pending = pending
        self._status: int | None = None
        self._reading: Body | None = None
        self._lock = threading.RLock()
        self._ended = False
        self._started_at, self._start = time_ns(), perf_counter_ns()

    def response_received(self, response: Any) -> None:
        """Read the status and the headers of the response."""
        self._status = response.status_code
        self._pending.dialect.read_headers(self.facts, response.headers)

    def stream_opened(self, response: Any) -> StreamReading:
        """Prepare to read a body that streams; return what reads it."""
        reader = self._reader_of(response, response.headers.get("content-encoding"))
        self._reading = reading = StreamReading(reader, self.facts, self._recorder.failed)
        return reading

    def read_body(self, response: Any) -> None:
        """Read a body that the client has already read."""
        self._reading = WholeBody(self._reader_of(response, None), response.content)

    def _reader_of(self, response: Any, encoding: str | None) -> Reader:
        content_type = response.headers.get("content-type", "")
        self.facts.stream = "event-stream" in content_type
        return Reader(self._pending.dialect, self.facts, content_type, encoding)

    def done(self) -> None:
        """Bill the response if it is done and was not billed yet; only the first call counts."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        try:
            self._bill()
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self._recorder.failed("fetch", error)

    abandoned = done

    def failed_with(self, error: BaseException, errors: ClientErrors) -> None:
        """End a poll that an exception ended; it may have read enough."""
        del error, errors
        self.done()

    def _bill(self) -> None:
        facts, pending, recorder = self.facts, self._pending, self._recorder
        if self._reading is None or self._status != _OK:
            return
        self._reading.close()
        if not facts.complete or not recorder.pending_responses.take(pending):
            return
        if facts.usage is not None or facts.provider_cost is not None:
            call = self._record()
            recorder.record_fetch(call, pending.span, self.context)
            if self._scope is not None:
                self._scope.add(call)
        elif recorder.guard is not None and (facts.error_type or "error" in facts.finish_reasons):
            recorder.guard.unbilled(pending.call)  # a response that ended otherwise without a count may be billed

    def _record(self) -> Call:
        facts, requested, labels = self.facts, self._pending.call, self._pending.provider.labels
        facts.response_id = requested.response_id
        return call_record(
            facts,
            call_id=new_id(),
            operation_id=requested.operation_id,
            provider=requested.provider,
            started_at=self._started_at,
            duration=(perf_counter_ns() - self._start) / 1e9,
            attribution=requested.attribution,
            usage=facts.usage,
            cost=self._recorder.cost_of(billable_of(facts, labels, facts.usage or Usage())),
            outcome="ok" if facts.error_type is None else "error",
            error_type=coded(facts.error_type),
            finish_reasons=reasons(facts),
            server_address=requested.server_address,
            server_port=requested.server_port,
            http_status=self._status,
            price_labels=labels,
            settles=requested.id,
        )
