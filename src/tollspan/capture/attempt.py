"""The life of one HTTP attempt: `begin` before it is sent, the response, the body, and its record at the end.

A hook feeds an attempt from whatever thread or task the application reads in (see `followed.FollowedRequest`). It ends
exactly once: its body was read to the end, closed early, interrupted, cancelled, or collected unread. What is received
is read after it was handed to the application.

The parts: `exchange` is what the request and the head of the response say, `reading` what the body says, and the record
is made of both (`attempt_record.py`).
"""

from __future__ import annotations

import contextlib
import threading
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from opentelemetry.context import get_current, get_value
from opentelemetry.trace import INVALID_SPAN, Link, set_span_in_context

from tollspan.attribution import current_scope
from tollspan.budget.denials.stream_cut import followable
from tollspan.capture.attempt_record import ERROR, outcome_of, record_of, unbilled_record
from tollspan.capture.bodies import StreamReading, WholeBody
from tollspan.capture.exchange import Exchange
from tollspan.capture.pending_responses import PendingResponse
from tollspan.capture.requests import body_of, hash_of, is_model_call, qualified
from tollspan.capture.retries import SentAttempt, last_sent, remember, repeated_by
from tollspan.capture.sent_on import is_sent_on, sends_same
from tollspan.capture.stream_usage import may_ask
from tollspan.model.errors import WireError
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.callers import recorded
from tollspan.telemetry.foreign_spans.ownership import SPANS, published
from tollspan.telemetry.otel.suppression import SUPPRESSED
from tollspan.telemetry.refusals import refusal_attributes
from tollspan.telemetry.spans import start_attributes, start_span
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span

    from tollspan.budget.denials.stream_cut import Follower
    from tollspan.budget.guard import Guard
    from tollspan.capture.billed_usage import ClientErrors
    from tollspan.capture.bodies import Body
    from tollspan.capture.recorder import Recorder
    from tollspan.model.records import Call, Facts, Outcome
    from tollspan.model.refusal import Refusal
    from tollspan.telemetry.foreign_spans.foreign_span import ForeignSpan
    from tollspan.wire.dialects import Route
    from tollspan.wire.providers import Provider

CUT: Final = "budget_cut"
"""`error.type` of a stream that a budget has ended before its end."""


def begin(
    recorder: Recorder, request: Any, known: tuple[Provider, Route], path: str, headers: frozenset[bytes]
) -> Attempt | None:
    """Start the record of a request that a client is about to send; return None if it is not a model call.

    Args:
        recorder: what all attempts share.
        request: what is about to be sent.
        known: the provider that the URL belongs to, and the format of its requests.
        path: the path of its URL.
        headers: the names of its headers (see `requests.names_of`).
    """
    try:
        recorder.ensure_span_processor()
    except Exception as error:  # noqa: BLE001 - a provider of the application's; budgets and ledger go on
        recorder.failed("span", error)
    if get_value(SUPPRESSED) and not SPANS.takes_all():
        return None
    provider, route = known
    body = body_of(request)
    if (provider.by_body or not provider.hosts) and not is_model_call(body, route.dialect, path):
        return None
    before, resend_count = repeated_by(request, headers)
    exchange = Exchange(provider, route, request, body, before, resend_count)
    return Attempt(recorder, exchange, body, before)


class Attempt:
    """One HTTP attempt, from request to record (see the module's text)."""

    __slots__ = (
        "__weakref__",
        "_ended",
        "_inner",
        "_lock",
        "_recorded",
        "_recorder",
        "_scope",
        "asks_usage",
        "body",
        "context",
        "exchange",
        "facts",
        "follower",
        "owner",
        "reading",
        "sent",
        "span",
    )

    def __init__(
        self, recorder: Recorder, exchange: Exchange, body: dict[str, Any], before: SentAttempt | None
    ) -> None:
        """Start the span of a request; `before` is the attempt that it repeats."""
        self._recorder = recorder
        self._scope = current_scope()
        self._lock = threading.RLock()
        self._ended = False
        self.exchange = exchange
        self.facts: Facts = exchange.facts
        self.reading: Body | None = None
        self.body = body if recorder.guard is not None else {}  # read by budgets only
        self.follower: Follower | None = None  # set for a stream that a budget may cut
        facts = exchange.facts
        self.asks_usage = facts.stream and may_ask(
            recorder.settings.stream_usage, exchange.provider, exchange.dialect.name, facts, body
        )
        self.owner = owner = SPANS.find(facts.operation, facts.request_model, before.owner if before else None)
        self.span, self.context = self._own_span(before) if owner is None else self._join(owner)
        self._recorded = recorded(stream=facts.stream) if owner is None else owner.metrics
        first = self.span.get_span_context() if before is None else before.first
        self._inner: tuple[Attempt, ...] = ()
        url, count = exchange.request.url, exchange.resend_count or 0
        self.sent = SentAttempt(url, exchange.operation_id, count, first, owner, id(self))
        if recorder.guard is not None:
            self.sent.call, self.sent.earlier = exchange.id, _under_way(recorder.guard)
        self._notify_outer()
        remember(self.sent)
        recorder.open[id(self)] = self
        SPANS.begun(self)

    def _own_span(self, before: SentAttempt | None) -> tuple[Span, Context]:
        """Start a span of our own; return it and the context to send the request in."""
        exchange, facts = self.exchange, self.facts
        attributes = start_attributes(
            exchange.provider.name, facts, exchange.host, exchange.port, exchange.resend_count
        )
        link = None if before is None else Link(before.first)
        try:
            span = start_span(self._recorder.tracer, facts, attributes, exchange.started_at, link)
        except Exception as error:  # noqa: BLE001 - a processor of the application's; budgets and ledger go on
            self._recorder.failed("span", error)
            span = INVALID_SPAN
        return span, published(set_span_in_context(span), facts.operation)

    def _join(self, owner: ForeignSpan) -> tuple[Span, Context]:
        """Join the span of another emitter, which ends it; the context does not change."""
        owner.attempts[id(self)] = self
        return owner.target(), get_current()

    # Attempts inside of attempts

    def _notify_outer(self) -> None:
        """Join the attempt that waits for its response in this task: its transport may be sending it on."""
        outer = last_sent()
        while outer is not None:
            waiting = self._recorder.open.get(outer.attempt)
            if isinstance(waiting, Attempt) and waiting.sent is outer and waiting.exchange.status is None:
                self.sent.outer = outer
                waiting.add_inner(self)
                return
            outer = outer.outer

    def add_inner(self, inner: Attempt) -> None:
        """Remember an attempt inside. If it sends the same, release the reservation here: it has its own."""
        self._inner += (inner,)
        guard = self._recorder.guard
        if guard is not None and sends_same(self.exchange, inner.exchange):
            guard.settle(self._unbilled(), None)

    def _unbilled(self) -> Call:
        return unbilled_record(self._recorder, self.exchange, self.reading, self.span.get_span_context())

    def _yield_to_inner(self) -> None:
        """End without a record, because the attempt inside has one; release the reservation of this one."""
        self._recorder.release_outer(self._unbilled(), self.span if self.owner is None else None)

    # What budgets do with it

    def downgraded(self, model: str, budget: str) -> None:
        """Go on with another model than the one that was requested."""
        if self.facts.request_model is not None:
            self.span.set_attribute(names.DOWNGRADED_FROM, self.facts.request_model)
        self.span.set_attribute(names.BUDGET, budget)
        self.span.set_attribute(names.REQUEST_MODEL, model)
        self.facts.request_model = model

    def waited(self, seconds: float, budget: str) -> None:
        """Go on after a wait for calls under way: it is in the span, and not in the duration of the call."""
        self.exchange.start_clock()
        self.span.set_attribute(names.BUDGET_WAIT, seconds)
        self._recorder.instruments.record_wait(seconds, budget, set_span_in_context(self.span))

    def fitted(self, limit: int, budget: str) -> None:
        """Go on with a lower limit of output tokens than the one that was requested, or with one if there was none."""
        self.span.set_attribute(names.BUDGET, budget)
        self.span.set_attribute(names.BUDGET_OUTPUT_LIMIT, limit)
        self.span.set_attribute(names.REQUEST_MAX_TOKENS, limit)
        self.facts.max_output = limit

    def deny(self, error_type: str, refusal: Refusal) -> None:
        """End an attempt that a budget refused."""
        self.span.set_attributes(refusal_attributes(refusal))
        self.exchange.refusal = refusal
        self.exchange.unsent = True
        self.end("denied", error_type)

    def withdraw(self, error: BaseException) -> None:
        """End an attempt that its application gave up while the budgets were checked: nothing was sent."""
        self.exchange.unsent = True
        self.end("aborted", qualified(error))

    def cut_off(self, budget: str) -> None:
        """End an attempt whose stream a budget has cut."""
        self.facts.finish_reasons = ["length"]
        self.span.set_attribute(names.BUDGET, budget)
        self.end("aborted", CUT)

    # What the wire says

    def response_received(self, response: Any) -> None:
        """Read the status and the headers of the response."""
        exchange, provider = self.exchange, self.exchange.provider.name
        exchange.response_received(self._recorder.directory, response)
        if exchange.provider.name != provider and self.owner is None:
            self.span.set_attribute(names.PROVIDER, exchange.provider.name)
        if self.follower is not None and not followable(response.headers):
            self.follower = None

    def stream_opened(self, response: Any) -> StreamReading:
        """Prepare to read a body that streams; return what reads it."""
        headers, recorder = response.headers, self._recorder
        reader = None
        try:
            reader = Reader(
                self.exchange.dialect, self.facts, headers.get("content-type", ""), headers.get("content-encoding")
            )
        except WireError as error:
            recorder.failed("encoding", error)
        gap = None
        if recorder.instruments.wants_chunks and names.OPERATION_PER_CHUNK not in self._recorded:
            gap = partial(_record_gap, recorder, self.facts, self.exchange.provider.name)
        reading = StreamReading(reader, self.facts, recorder.failed, gap, each=self.follower is not None)
        self.reading = reading
        return reading

    def read_body(self, response: Any) -> None:
        """Read a body that the client has already read."""
        reader = Reader(self.exchange.dialect, self.facts, response.headers.get("content-type", ""))
        self.reading = WholeBody(reader, response.content)

    # How it ends

    @property
    def response_id(self) -> str | None:
        """Return the response's id, as far as it has been read."""
        return self.facts.response_id

    def settle(self) -> None:
        """Read what was handed over, and end if that was all of it: the span that owns this attempt is about to end."""
        if self.reading is not None:
            try:
                self.reading.catch_up()
            except Exception as error:  # noqa: BLE001 - the safe boundary
                self._recorder.failed("reader", error)
        if self.facts.complete:
            self.end("ok")

    def done(self) -> None:
        """End an attempt whose body was read to its end."""
        self.end("ok")

    def abandoned(self) -> None:
        """End an attempt whose body was closed, or collected, before its end."""
        self.end("aborted")

    def failed_with(self, error: BaseException, errors: ClientErrors) -> None:
        """End an attempt that an exception ended: a connection error, a time-out, or the task's cancellation."""
        self.exchange.failed_with(error, errors)
        self.end("error" if isinstance(error, Exception) else "aborted", qualified(error))

    def end(self, outcome: Outcome, error_type: str | None = None) -> None:
        """Make the record and hand it to the views; only the first call counts."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if not self._unregister():
            return  # begun before a fork: the parent records it
        try:
            self._record(outcome, error_type)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self._recorder.failed("record", error)
            if self.owner is None:
                with contextlib.suppress(Exception):
                    self.span.end()

    def _unregister(self) -> bool:
        """Take this off the lists of open attempts; return whether the recorder's had it."""
        if self.owner is not None:
            self.owner.attempts.pop(id(self), None)
        SPANS.over(self)
        return self._recorder.open.pop(id(self), None) is not None

    def _record(self, outcome: Outcome, error_type: str | None) -> None:
        exchange, reading, recorder = self.exchange, self.reading, self._recorder
        if reading is not None:
            reading.close()
        inner, self._inner = self._inner, ()
        if inner and is_sent_on(exchange, inner):
            self._yield_to_inner()
            return
        outcome, error_type = outcome_of(exchange, reading, outcome, error_type)
        if outcome == "error" or (exchange.status or 0) >= ERROR:
            self.sent.failed, self.sent.body_hash = True, hash_of(exchange.request)
        call = record_of(recorder, exchange, reading, self.span.get_span_context(), outcome, error_type)
        recorder.record(call, self.span, self.owner, self._recorded, self.context if self.owner is None else None)
        if call.pending:
            recorder.pending_responses.put(
                PendingResponse(call, self.facts, exchange.provider, exchange.dialect, self.span.get_span_context())
            )
        if self._scope is not None:
            self._scope.add(call)


def _under_way(guard: Guard) -> SentAttempt | None:
    """Return the last attempt of this task or thread for which something is reserved."""
    sent = last_sent()
    while sent is not None and not guard.holds(sent.call):
        sent = sent.earlier
    return sent


def _record_gap(recorder: Recorder, facts: Facts, provider: str, nanoseconds: int) -> None:
    """Record the time between two chunks of a stream."""
    attributes = {names.OPERATION: facts.operation, names.PROVIDER: provider}
    if facts.response_model is not None:
        attributes[names.RESPONSE_MODEL] = recorder.accumulator.capped(facts.response_model)
    try:
        recorder.instruments.chunk(nanoseconds / 1e9, attributes)
    except Exception as error:  # noqa: BLE001 - the safe boundary
        recorder.failed("metrics", error)
