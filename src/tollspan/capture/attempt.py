"""The life of one HTTP attempt: `begin()` before it is sent, then what the wire says, then its record at the end.

An attempt is fed by `transport.py` from whatever thread or task the application reads in. It ends exactly once: read
to its end, closed early, broken, cancelled, or collected unread. What arrives is read after it was handed to the
application.
"""

from __future__ import annotations

import contextlib
import threading
from contextvars import ContextVar
from dataclasses import dataclass, replace
from time import perf_counter_ns, time_ns
from typing import TYPE_CHECKING, Any, Final, Literal

from opentelemetry.context import get_current, get_value
from opentelemetry.trace import INVALID_SPAN, Link, set_span_in_context

from tollspan.attribution import current_attribution, current_scope
from tollspan.budget.denials.stream_cut import BYTES_PER_TOKEN
from tollspan.capture.billed_usage import (
    TRUNCATED,
    UNBILLED,
    BilledUsage,
    EndState,
    billed_usage,
    coded,
    reasons,
    was_sent,
)
from tollspan.capture.pending_responses import PendingResponse
from tollspan.capture.requests import (
    body_of,
    hash_of,
    is_model_call,
    qualified,
    status_before,
    status_of,
    told_resend_count,
)
from tollspan.capture.stream_usage import may_ask
from tollspan.model.errors import WireError
from tollspan.model.ids import new_id
from tollspan.model.records import Call, Cost, Facts, Usage, billable_of, draft_of
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.callers import recorded
from tollspan.telemetry.foreign_spans.ownership import SPANS, published
from tollspan.telemetry.otel.suppression import SUPPRESSED
from tollspan.telemetry.spans import start_attributes, start_span
from tollspan.tokens.estimates import Received
from tollspan.wire.dialects import load
from tollspan.wire.dialects.fields import NAMELESS, digits, money
from tollspan.wire.reader import Reader

if TYPE_CHECKING:
    from opentelemetry.context import Context
    from opentelemetry.trace import Span, SpanContext

    from tollspan.budget.denials.stream_cut import Follower
    from tollspan.capture.recorder import Recorder
    from tollspan.model.records import Billable
    from tollspan.telemetry.foreign_spans.foreign_span import ForeignSpan
    from tollspan.wire.dialects import Route
    from tollspan.wire.providers import Provider

Outcome = Literal["ok", "error", "aborted", "denied"]

NOT_BILLED: Final = Cost(amount=0, quality="measured", rule="not billed")
PENDING: Final = Cost(rule="pending", note="billed by the request that fetches the response when it is done")
CACHED: Final = Cost(amount=0, quality="measured", rule="answered by a cache")
CUT: Final = "budget_cut"
"""`error.type` of a stream that a budget has ended before its end."""
_ERROR: Final = 400  # the first HTTP status that is an error
_ANSWERS: Final = range(200, 300)  # the HTTP statuses that are billed
_DEFAULT_PORTS: Final = {"https": 443, "http": 80}


@dataclass(slots=True)
class _Sent:
    """What is remembered of the attempt before, in the same task or thread, to know its retry by."""

    url: Any
    operation_id: str
    resend_count: int
    first: SpanContext
    owner: ForeignSpan | None
    attempt: int
    outer: _Sent | None = None
    failed: bool = False
    body: int = 0  # of a failed one, its hash


_NOTHING: Final = Received()
"""What was received of an answer before it is read; nobody writes to it."""

_last: ContextVar[_Sent | None] = ContextVar("tollspan_last_attempt", default=None)


def begin(
    recorder: Recorder, request: Any, found: tuple[Provider, Route], path: str, headers: frozenset[bytes]
) -> Attempt | None:
    """Start the record of a request that an httpx or httpx2 client is about to send; None where it is no model call.

    Args:
        recorder: what all attempts share.
        request: what is to be sent.
        found: who will answer it, and in which format, if it is one.
        path: the path of its URL.
        headers: the names of its headers (see `messages.names_of`).
    """
    recorder.ensure_span_processor()
    if get_value(SUPPRESSED) and not SPANS.takes_all():
        return None
    provider, route = found
    body = body_of(request)
    if (provider.by_body or not provider.hosts) and not is_model_call(body, route.dialect, path):
        return None
    return Attempt(recorder, provider, route, request, body, headers)


_CallDraft: Final = draft_of(Call)


class Attempt:
    """One HTTP attempt, from request to record (see the module's text)."""

    __slots__ = (
        "__weakref__",
        "_dialect",
        "_ended",
        "_first_chunk",
        "_first_token",
        "_framed",
        "_host",
        "_inner",
        "_last_chunk",
        "_lock",
        "_operation_id",
        "_piece",
        "_port",
        "_provider",
        "_reader",
        "_received",
        "_recorded",
        "_recorder",
        "_request",
        "_resend_count",
        "_scope",
        "_sent",
        "_silent",
        "_start",
        "_started_at",
        "_told",
        "_unsent",
        "_wants_gaps",
        "asks_usage",
        "attribution",
        "body",
        "context",
        "facts",
        "flowing",
        "follower",
        "id",
        "owner",
        "span",
        "status",
    )

    def __init__(  # noqa: PLR0913, PLR0917 - what is known of it by now
        self,
        recorder: Recorder,
        provider: Provider,
        route: Route,
        request: Any,
        body: dict[str, Any],
        headers: frozenset[bytes],
    ) -> None:
        """Read the request and start the span."""
        self.id = new_id()
        self._recorder = recorder
        self._scope = current_scope()
        self.attribution = current_attribution()
        self.body = body if recorder.guard is not None else {}  # for the budgets to look at
        self._provider = provider
        self._dialect = dialect = load(route.dialect)
        self._request = request
        self._reader: Reader | None = None
        self._received = _NOTHING
        self._framed = self._silent = self._unsent = self._ended = False
        self._told: dict[str, int] = {}  # counts of the answer's headers
        self._lock = threading.RLock()
        self._first_chunk: int | None = None
        self._first_token: int | None = None
        self._last_chunk = 0
        self._piece: bytes | None = None
        self.flowing: list[bytes] | None = None  # pieces that wait to be read, once nothing needs to be timed
        self.status: int | None = None
        self.follower: Follower | None = None  # of a stream that a budget may cut
        url = request.url
        self._host = url.host
        self._port = url.port or _DEFAULT_PORTS.get(url.scheme)
        self.facts = facts = Facts(dialect.operation)
        dialect.read_path(facts, url.raw_path.decode("ascii"))
        dialect.read_request(facts, body)
        self.asks_usage = facts.stream and may_ask(recorder.settings.stream_usage, provider, route.dialect, facts, body)
        if provider.region is not None and (place := provider.region.search(f"{self._host}{url.path}")):
            facts.region = place["region"]
        self._started_at, self._start = time_ns(), perf_counter_ns()
        sent = self._place_in_operation(request, headers)
        self.owner: ForeignSpan | None = SPANS.find(facts.operation, facts.request_model, sent.owner if sent else None)
        self.span, self.context = self._owned(self.owner) if self.owner is not None else self._own(sent)
        self._recorded = self.owner.metrics if self.owner is not None else recorded(stream=facts.stream)
        self._wants_gaps = recorder.instruments.wants_chunks and names.OPERATION_PER_CHUNK not in self._recorded
        first = sent.first if sent is not None else self.span.get_span_context()
        self._inner: tuple[Attempt, ...] = ()
        self._sent = _Sent(url, self._operation_id, self._resend_count or 0, first, self.owner, id(self))
        self._notify_outer()
        _last.set(self._sent)
        recorder.open[id(self)] = self
        SPANS.begun(self)

    def _own(self, sent: _Sent | None) -> tuple[Span, Context]:
        """Start a span of our own; give it and the context to send the request in."""
        attributes = start_attributes(self._provider.name, self.facts, self._host, self._port, self._resend_count)
        link = Link(sent.first) if sent is not None else None
        try:
            span = start_span(self._recorder.tracer, self.facts, attributes, self._started_at, link)
        except Exception as error:  # noqa: BLE001 - a processor of the application's; budgets and ledger go on
            self._recorder.failed("span", error)
            span = INVALID_SPAN
        return span, published(set_span_in_context(span), self.facts.operation)

    def _owned(self, owner: ForeignSpan) -> tuple[Span, Context]:
        """Join the span of another emitter, which is not ours to end; the context stays as it is."""
        owner.attempts[id(self)] = self
        return owner.target(), get_current()

    def _place_in_operation(self, request: Any, headers: frozenset[bytes]) -> _Sent | None:
        """Find the attempt that this one repeats: the SDK says so, or the same request just failed in this task."""
        before = _last.get()
        told = told_resend_count(request, headers)
        if before is not None and told != 0 and (told is not None or before.failed):
            again = told is not None or before.body == hash_of(request)
            if again and str(before.url) == str(request.url):
                self._operation_id = before.operation_id
                self._resend_count: int | None = told or before.resend_count + 1
                return before
        self._operation_id = self.id
        self._resend_count = told or None
        return None

    def _notify_outer(self) -> None:
        """Join the attempt that waits for its answer here: the transport that it was given to may be sending it on."""
        outer = _last.get()
        while outer is not None:
            waiting = self._recorder.open.get(outer.attempt)
            if isinstance(waiting, Attempt) and waiting._sent is outer and waiting.status is None:  # noqa: SLF001 - of this class
                self._sent.outer = outer
                waiting._add_inner(self)  # noqa: SLF001 - the same
                return
            outer = outer.outer

    def _add_inner(self, inner: Attempt) -> None:
        """Remember an attempt inside; if it sends the same, give back what is reserved here: it asks for that again."""
        self._inner += (inner,)
        guard = self._recorder.guard
        if guard is not None and self._sends_as(inner):
            guard.settle(self._unbilled(), None)

    def _sends_as(self, other: Attempt) -> bool:
        """Return whether two attempts send the same body."""
        return hash_of(self._request) == hash_of(other._request) != 0

    def _unbilled(self) -> Call:
        """Return the record of an attempt that another stands for."""
        self._unsent, sent, status = True, self._unsent, self.status
        self.status = None
        call = self._call("ok", None, perf_counter_ns())
        self._unsent, self.status = sent, status
        return call

    # What budgets ask and say

    @property
    def provider(self) -> Provider:
        """Return who will answer."""
        return self._provider

    @property
    def dialect(self) -> str:
        """Return the name of the wire format."""
        return self._dialect.name

    @property
    def resent(self) -> bool:
        """Return whether this is an SDK's retry of an attempt before."""
        return self._resend_count is not None

    def downgraded(self, model: str, budget: str) -> None:
        """Go on with another model than the one that was asked for."""
        if self.facts.request_model is not None:
            self.span.set_attribute(names.DOWNGRADED_FROM, self.facts.request_model)
        self.span.set_attribute(names.BUDGET, budget)
        self.span.set_attribute(names.REQUEST_MODEL, model)
        self.facts.request_model = model

    def deny(self, error_type: str, budget: str, reason: str) -> None:
        """End an attempt that a budget did not let through."""
        self.span.set_attribute(names.BUDGET, budget)
        self.span.set_attribute(names.BUDGET_REASON, reason)
        self._unsent = True
        self.end("denied", error_type)

    def withdraw(self, error: BaseException) -> None:
        """End an attempt that its application gave up while the budgets were asked: nothing was sent."""
        self._unsent = True
        self.end("aborted", qualified(error))

    def used_so_far(self, size: int) -> tuple[Usage, int | None]:
        """Return what a stream under way has used, and atto-dollars if it is priced; `size` is its request in bytes."""
        self.read()
        reader, facts = self._reader, self.facts
        received = 0
        if reader is not None:
            reader.catch_up()
            received = reader.text.size // BYTES_PER_TOKEN
        known = facts.usage or Usage()
        tokens_in = known.input if known.input is not None else size // BYTES_PER_TOKEN
        tokens_out = max(known.output or 0, facts.output_events, received)
        usage = replace(known, input=tokens_in, output=tokens_out)
        return usage, self._price(usage).amount

    def cut_off(self, budget: str) -> None:
        """End an attempt whose stream a budget has cut."""
        self.facts.finish_reasons = ["length"]
        self.span.set_attribute(names.BUDGET, budget)
        self.end("aborted", CUT)

    # What the wire says

    def answered(self, response: Any) -> None:
        """Take the response's status and headers."""
        self.status = response.status_code
        headers = response.headers
        self._answered_by(self._recorder.directory.answering(self._provider, headers))
        self._dialect.read_headers(self.facts, headers)
        self._read_gateway_headers(headers)
        extensions = response.extensions
        # Where a cache inside the client says that it gave the answer: hishel 0, 1 and 2.
        said = extensions.get("from_cache") or extensions.get("hishel_from_cache")
        caching = extensions.get("caching")
        if said or (isinstance(caching, dict) and caching.get("from_cache")):
            self.facts.cached_by = "hishel"

    def _answered_by(self, provider: Provider) -> None:
        """Take note of who turns out to have answered."""
        if provider.name != self._provider.name and self.owner is None:
            self.span.set_attribute(names.PROVIDER, provider.name)
        self._provider = provider

    def _read_gateway_headers(self, headers: Any) -> None:
        provider = self._provider
        if provider.cost_header is not None and (told := headers.get(provider.cost_header)):
            self.facts.provider_cost = money({"cost": told}, "cost")
        if provider.cache_header is not None:
            name, hit = provider.cache_header
            if hit in headers.get(name, "").lower():
                self.facts.cached_by = provider.title
        if provider.token_headers:
            told = {kind: digits(headers.get(name, "")) for kind, name in provider.token_headers}
            self._told = {kind: count for kind, count in told.items() if count is not None}

    def opened(self, response: Any) -> None:
        """Prepare to read a body that streams."""
        headers = response.headers
        try:
            self._reader = Reader(
                self._dialect, self.facts, headers.get("content-type", ""), headers.get("content-encoding")
            )
        except WireError as error:
            self._recorder.failed("encoding", error)

    def whole(self, response: Any) -> None:
        """Read a body that the client has already read."""
        reader = Reader(self._dialect, self.facts, response.headers.get("content-type", ""))
        reader.take(response.content)
        self._keep(reader)

    def arrived(self, piece: bytes) -> None:
        """Take the time of a piece that is about to be handed over; `read()` comes after that.

        Once there was output nothing is timed any more, unless gaps are: the hook itself puts the pieces to those that
        wait in `flowing`, and has them read when they are enough.
        """
        now = perf_counter_ns()
        if self._wants_gaps and self._last_chunk:
            self._record_gap(now - self._last_chunk)
        self._last_chunk = now
        if self._first_chunk is None and piece:
            self._first_chunk = now
        self._piece = piece

    def read(self) -> None:
        """Read what was handed over; failures of our own end the reading, never the application's."""
        piece, self._piece = self._piece, None
        reader = self._reader
        if reader is None or (piece is None and self.flowing is None):
            return
        seen = self.facts.output_seen
        try:
            if piece is None:
                reader.catch_up()
            else:
                reader.feed(piece)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self._reader = self.flowing = None
            self._recorder.failed("reader", error)
        if not seen and self.facts.output_seen:
            self._first_token = self._last_chunk
            if self._reader is not None and not self._wants_gaps and self.follower is None:
                self.flowing = reader.waiting

    def _record_gap(self, nanoseconds: int) -> None:
        facts = self.facts
        attributes = {names.OPERATION: facts.operation, names.PROVIDER: self._provider.name}
        if facts.response_model is not None:
            attributes[names.RESPONSE_MODEL] = self._recorder.accumulator.capped(facts.response_model)
        try:
            self._recorder.instruments.chunk(nanoseconds / 1e9, attributes)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self._recorder.failed("metrics", error)

    # How it ends

    @property
    def response_id(self) -> str | None:
        """Return the response's id, as far as it has been read."""
        return self.facts.response_id

    def settle(self) -> None:
        """Read what was handed over, and end if that was all of it: the span that owns this attempt is about to end."""
        self.read()
        reader = self._reader
        if reader is not None:
            try:
                reader.catch_up()
            except Exception as error:  # noqa: BLE001 - the safe boundary
                self._recorder.failed("reader", error)
        if self.facts.complete:
            self.end("ok")

    def done(self) -> None:
        """End an attempt whose body was read to its end."""
        self.end("ok")

    def left(self) -> None:
        """End an attempt whose body was closed, or collected, before its end."""
        self.end("aborted")

    def broken(self, error: BaseException) -> None:
        """End an attempt that an exception ended: the connection's, a time-out's, or the task's cancellation."""
        if self.status is None:
            # A hook of the application's own may have looked at the answer, and raised.
            self.status = status_of(error)
            if self.status is None and not was_sent(error):
                self.status = status_before(error)
                self._unsent = self.status is None
        self.end("error" if isinstance(error, Exception) else "aborted", qualified(error))

    def end(self, outcome: Outcome, error_type: str | None = None) -> None:
        """Make the record and give it to the views; only the first call counts."""
        with self._lock:
            if self._ended:
                return
            self._ended = True
        if not self._unregister():
            return  # begun before a fork: it is the parent's to record
        try:
            self._close_reader()
            if self._inner and self._is_sent_on():
                self._yield_to_inner()
                return
            outcome, error_type = self._seen(outcome, error_type)
            if outcome == "error" or (self.status or 0) >= _ERROR:
                self._sent.failed, self._sent.body = True, hash_of(self._request)
            call = self._call(outcome, error_type, perf_counter_ns())
            self._recorder.record(call, self.span, self.owner, self._recorded)
            if call.pending:
                self._keep_pending(call)
            if self._scope is not None:
                self._scope.add(call)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self._recorder.failed("record", error)
            if self.owner is None:
                with contextlib.suppress(Exception):
                    self.span.end()

    def _unregister(self) -> bool:
        """Take this off the lists of what is under way; tell whether it stood on the recorder's."""
        if self.owner is not None:
            self.owner.attempts.pop(id(self), None)
        SPANS.over(self)
        return self._recorder.open.pop(id(self), None) is not None

    def _seen(self, outcome: Outcome, error_type: str | None) -> tuple[Outcome, str | None]:
        """Return how it ended by what was seen of the body."""
        if self.facts.complete:
            return "ok", None  # the last event was seen: what happened after it is no loss
        if outcome == "ok" and self._is_truncated():
            return "error", TRUNCATED
        if outcome == "ok" and self._framed and not self._dialect.ends:
            self.facts.complete = True  # the format has no last event; nothing more comes
        return outcome, error_type

    def _is_sent_on(self) -> bool:
        """Return whether another client in this process sent this request on: then that attempt is billed.

        A proxy within the process (an ASGI or WSGI application, a transport with a client of its own) may change names
        and ids on the way. What it sends beside that, to ask a judge, has another answer. A signal's handler that sends
        what the interrupted code is just sending, and gets an answer of the same size, is taken for a proxy too.
        """
        mine, inner = self.facts, self._inner
        self._inner = ()
        for other in inner:
            theirs = other.facts
            if theirs.operation != mine.operation or other.status != self.status:
                continue
            if mine.usage is not None and mine.usage == theirs.usage:
                return True
            if mine.response_id is not None and theirs.response_id is not None:
                if mine.response_id == theirs.response_id:
                    return True
            elif self._sends_as(other):
                return True
        return False

    def _yield_to_inner(self) -> None:
        """End without a record: the attempt inside has one. What was reserved for this one is given back."""
        self._recorder.release_outer(self._unbilled(), self.span if self.owner is None else None)

    def _keep_pending(self, call: Call) -> None:
        """Remember a response that the provider goes on with, for the request that will find it done."""
        span = self.span.get_span_context()
        self._recorder.pending_responses.put(
            PendingResponse(call=call, facts=self.facts, provider=self._provider, dialect=self._dialect, span=span)
        )

    def _is_truncated(self) -> bool:
        """Return whether a stream was exhausted, and its last event, or any at all, never came."""
        facts = self.facts
        if self.status not in _ANSWERS or facts.error_type is not None:
            return False
        return facts.stream and (self._silent or (self._framed and self._dialect.ends))

    def _close_reader(self) -> None:
        self.read()  # handed over, and then the application stopped
        reader, self._reader, self.flowing = self._reader, None, None
        if reader is not None:
            seen = self.facts.output_seen
            try:
                reader.close()
            except Exception as error:  # noqa: BLE001 - the safe boundary
                self._recorder.failed("reader", error)
            if not seen and self.facts.output_seen:
                self._first_token = self._last_chunk
            self._keep(reader)

    def _keep(self, reader: Reader) -> None:
        """Keep what a reader that is done has learned of the body."""
        self._received, self._framed, self._silent = reader.text, reader.framed, reader.silent
        if not reader.framed:
            self._first_chunk = self._first_token = None  # a plain body has no first chunk

    def _call(self, outcome: Outcome, error_type: str | None, now: int) -> Call:
        facts, provider = self.facts, self._provider
        error_type = error_type or self._error_type(outcome)
        if outcome == "ok" and error_type is not None:
            outcome = "error"
        count = self._count()
        cost, avoided = self._cost(count)
        broke = outcome != "ok" and facts.stream and self.status in _ANSWERS
        finish = reasons(facts) or (("error",) if broke else ())
        context = self.span.get_span_context()
        made = _CallDraft()
        made.id = self.id
        made.operation_id = self._operation_id
        made.provider = provider.name
        made.operation = facts.operation
        made.started_at = self._started_at
        made.duration = max(now - self._start, 0) / 1e9  # a test may have set the clock back
        made.outcome = outcome
        made.request_model = facts.request_model
        made.response_model = facts.response_model
        made.response_id = facts.response_id
        made.finish_reasons = finish
        made.stream = facts.stream
        made.server_address = self._host
        made.server_port = self._port
        made.http_status = self.status
        made.error_type = error_type
        made.resend_count = self._resend_count
        made.time_to_first_chunk = self._since(self._first_chunk)
        made.time_to_first_token = self._since(self._first_token)
        made.usage = count.usage
        made.usage_quality = count.quality
        made.cost = cost
        made.avoided = avoided
        made.tier = facts.tier
        made.geography = facts.geography
        made.speed = facts.speed
        made.region = facts.region
        made.search_context = facts.search_context
        made.price_labels = provider.labels
        made.parts = facts.parts
        made.cached_by = facts.cached_by
        made.attribution = self.attribution
        made.billable = count.billable
        made.pending = count.pending
        made.trace_id = f"{context.trace_id:032x}" if context.is_valid else None
        made.span_id = f"{context.span_id:016x}" if context.is_valid else None
        made.settles = None
        made.__class__ = Call
        return made  # type: ignore[no-any-return]

    def _since(self, moment: int | None) -> float | None:
        # A clock that did not move between two readings still means that some time passed.
        return None if moment is None else max(moment - self._start, 1) / 1e9

    def _error_type(self, outcome: Outcome) -> str | None:
        told, failed = coded(self.facts.error_type), self.status is not None and self.status >= _ERROR
        if failed:
            return str(self.status) if told in {None, NAMELESS} else told
        return told or ("aborted" if outcome == "aborted" else None)

    def _fill_in(self, told: dict[str, int]) -> None:
        """Take from the headers the counts that the body has left out, or not come to."""
        usage = self.facts.usage or Usage()
        missing = {kind: count for kind, count in told.items() if getattr(usage, kind) is None}
        self.facts.usage = replace(usage, **missing)  # type: ignore[arg-type]

    def _count(self) -> BilledUsage:
        if self._unsent or (self.status is not None and self.status not in _ANSWERS):
            return UNBILLED
        if self._told and self.facts.error_type is None:
            self._fill_in(self._told)
        facts, usage = self.facts, self.facts.usage
        if facts.complete and usage is not None and usage.input is not None and usage.output is not None:
            return BilledUsage(usage=usage)  # nearly all: nothing to be guessed
        return billed_usage(
            EndState(
                facts=facts,
                answered=self.status is not None,
                textual=bool(self._dialect.text_in),
                received=self._received,
                body=lambda: body_of(self._request),
                limit=lambda: self._recorder.max_output(self._billable(Usage())),
                tokenizer=lambda: self._recorder.tiktoken.count_for(facts.response_model or facts.request_model),
                prompting=lambda: self._provider.prompting(facts.request_model, facts.response_model),
            )
        )

    def _cost(self, count: BilledUsage) -> tuple[Cost, int | None]:
        """Return the cost, and what an answer out of a cache would have cost."""
        if not count.billable:
            return PENDING if count.pending else NOT_BILLED, None
        cost = self._price(count.usage)
        if self.facts.cached_by is not None:
            return CACHED, cost.amount or 0
        if count.quality == "measured" or cost.amount is None:
            return cost, None
        low = self._price(count.low).amount
        high = None if count.high is None else self._price(count.high).amount
        return replace(cost, quality=count.quality, low=low, high=high), None

    def _price(self, usage: Usage | None) -> Cost:
        if usage is None and self.facts.provider_cost is None:
            return Cost()
        return self._recorder.cost_of(self._billable(usage or Usage()))

    def _billable(self, usage: Usage) -> Billable:
        return billable_of(self.facts, self._provider.labels, usage)
