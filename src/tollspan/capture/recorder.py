"""What all attempts of a process share: settings, providers, prices, and the views that each call record is handed to.

`instrument()` makes one `Recorder`. It is the safe boundary too: `failed(kind, error)` counts a failure of our own and
logs it once per kind, and the application goes on as if nothing had happened.
"""

from __future__ import annotations

import logging
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from opentelemetry.trace import get_tracer_provider, set_span_in_context

from tollspan.attribution import current_attribution, current_scope
from tollspan.capture.call_log import CallLog
from tollspan.capture.known_batches import KnownBatches
from tollspan.capture.pending_responses import PendingResponses
from tollspan.capture.refusal_log import RefusalLog
from tollspan.ledger.process_totals import ProcessTotals
from tollspan.model.errors import STORE_FAILED
from tollspan.prices import price
from tollspan.runtime.forking import renew_in_child
from tollspan.runtime.worker import BackgroundWorker
from tollspan.settings import tiktoken_folder
from tollspan.telemetry import names
from tollspan.telemetry.counters import Accumulator
from tollspan.telemetry.foreign_spans.ownership import SPANS
from tollspan.telemetry.metrics import Instruments, observe_prices
from tollspan.telemetry.span_ids import span_ids
from tollspan.telemetry.spans import end_span, span_of, start_fetch_span
from tollspan.tokens.tiktoken_counts import TiktokenCounter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from opentelemetry.context import Context
    from opentelemetry.metrics import Meter
    from opentelemetry.trace import Span, SpanContext, Tracer, TracerProvider

    from tollspan.budget.guard import Guard
    from tollspan.ledger.resets import ResetWatcher
    from tollspan.ledger.summaries import Summary
    from tollspan.ledger.writer import Writer
    from tollspan.model.records import Billable, Call, Cost
    from tollspan.prices import PriceTable
    from tollspan.settings import Settings
    from tollspan.telemetry.foreign_spans.foreign_span import ForeignSpan
    from tollspan.telemetry.foreign_spans.processor import TollspanCostProcessor
    from tollspan.wire.providers import Directory

log = logging.getLogger("tollspan")

SETTLED: Final = 60.0
"""Seconds to wait until a remote budget store has taken some hundreds of settlements."""


class OpenAttempt(Protocol):
    """An attempt that has not ended, as far as the recorder needs to know it."""

    def abandoned(self) -> None:
        """End it before its body came to its end."""
        ...


class Recorder:
    """Hands the records of ended attempts to the views: span, metrics, counters, log, budgets, ledger, subscribers."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a process has one of
        self,
        settings: Settings,
        tracer: Tracer,
        meter: Meter,
        table: Callable[[], PriceTable],
        directory: Directory,
        accumulator: Accumulator | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        """Share `settings`; `table` returns the active price table, and is called with the first priced call."""
        self.settings = settings
        self.tracer = tracer
        self.accumulator = accumulator or Accumulator(settings.max_models, settings.metric_attributes)
        self.instruments = Instruments(meter, self.accumulator, settings.metrics, per_chunk=settings.chunk_metric)
        self.directory = directory
        self.meter = meter
        self.table = table
        self.call_log = CallLog(settings, self.accumulator, table)
        self.directory.on_left_out = self.call_log.warn_left_out
        self.live = ProcessTotals(settings.tags, settings.session)
        self.ledger: Writer | None = None
        self.news: ResetWatcher | None = None
        self.on_reset: list[Callable[[tuple[str, ...] | None], None]] = []
        self.views: list[tuple[str, Callable[[Call], None]]] = [("summary", self.live.add)]
        self.budget_gate: Any = None  # the module, set with the guard: nothing can be imported at the very end
        self.guard: Guard | None = None  # set if there is a budget: a call without any looks only here
        self.last: Call | None = None  # only one: fresh memory for every call costs as much as code
        self.subscribers: list[Callable[[Call], None]] = []
        self._used: PriceTable | None = None
        self._logged: set[tuple[str, str]] = set()
        known = ref(self)  # a meter keeps its callbacks forever
        observe_prices(meter, lambda: getattr(known(), "_used", None), lambda: datetime.now(UTC))
        self._tracer_provider = tracer_provider
        self._seen_provider: object = None
        self._processor: TollspanCostProcessor | None = None
        self.batches = KnownBatches()
        self.pending_responses = PendingResponses()
        self.refusals = RefusalLog(settings.refusals)
        self.background = BackgroundWorker("tollspan-background", "batch", self.failed, finish=True)
        self._fresh()
        renew_in_child(self, Recorder._fresh)

    @cached_property
    def tiktoken(self) -> TiktokenCounter:
        """Return the tokenizers, which are looked for with the first estimate."""
        return TiktokenCounter(tiktoken_folder(), self.failed)

    def _fresh(self) -> None:
        """Forget the open attempts: in a forked child they are the parent's, which will record them."""
        self.open: dict[int, OpenAttempt] = {}
        self.pending_responses.forget()
        self.last = None
        self.live.forget()

    def ensure_span_processor(self) -> None:
        """Ensure that a cost processor watches the spans of other emitters; a provider may be set at any time."""
        provider = self._tracer_provider or get_tracer_provider()
        if provider is self._seen_provider:
            return
        inner = getattr(provider, "provider", provider)  # Logfire's may get another inside at any time
        if inner is self._seen_provider:
            return
        self._seen_provider = inner
        from tollspan.telemetry.foreign_spans.processor import install  # imports the SDK, if it is used

        self._stop_seeing()
        self._processor = install(provider)
        if self._processor is not None:
            self._processor.use(self.cost_of, self.record_span, self.failed, aliases=self.settings.cost_aliases)

    def stop(self) -> None:
        """Leave the spans of other emitters alone from now on, and release the calls that wait for one."""
        self.background.close()
        SPANS.release()
        self._stop_seeing()
        self._processor = None

    def _stop_seeing(self) -> None:
        if self._processor is not None:
            self._processor.stop()

    def end_open_attempts(self) -> None:
        """End the open attempts: the process is about to end."""
        for attempt in list(self.open.values()):
            attempt.abandoned()
        self.background.flush()

    def cost_of(self, billable: Billable, at: datetime | None = None) -> Cost:
        """Return the price of a call in the active table, as of now or of the time `at`."""
        self._used = self.table()
        return price(billable, self._used, at or datetime.now(UTC))

    def max_output(self, billable: Billable) -> int | None:
        """Return the most output tokens that the model of a call can produce, None if the active table has no limit."""
        tariff = self.table().tariff(billable, billable.model, billable.request_model, datetime.now(UTC))
        return None if tariff is None else tariff.row.max_output

    def record(
        self,
        call: Call,
        span: Span,
        owner: ForeignSpan | None = None,
        recorded: frozenset[str] = frozenset(),
        context: Context | None = None,
    ) -> None:
        """Hand an ended call to every view; a view that fails does not keep it from the others.

        Args:
            call: what was recorded.
            span: the call's span, which is ended here unless it is the span of `owner`.
            owner: the span of another emitter that the call belongs to, if any.
            recorded: the metrics that another emitter records.
            context: has `span`, for the exemplars of metrics; by default the current context with that span.
        """
        if context is None:
            context = set_span_in_context(span)
        self._to_views(call, lambda call: self.instruments.record(call, context, recorded), span)
        try:
            if owner is None:
                end_span(span, call, aliases=self.settings.cost_aliases)
                SPANS.metered(call, placed=True)
            else:
                self._complete(call, owner)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self.failed("span", error)
        self._publish(call)

    def release_outer(self, call: Call, span: Span | None) -> None:
        """Release the reservation of a call that another client in this process sent on, and end its `span`, if any.

        That span is not an inference.
        """
        if self.guard is not None:
            self.guard.settle(call, None)
        if span is not None:
            span.set_attributes({names.OPERATION: names.FORWARD, names.CALL_ID: call.id})
            span.update_name(names.FORWARD)
            span.end()

    def record_fetch(self, call: Call, request_span: SpanContext, context: Context) -> None:
        """Hand a call that a poll has found done to every view; `request_span` is the span of the request for it."""
        span = start_fetch_span(self.tracer, call, request_span, context)
        trace_id, span_id = span_ids(span.get_span_context())
        call = replace(call, trace_id=trace_id, span_id=span_id)
        self._to_views(call, lambda call: self.instruments.record_cost(call, set_span_in_context(span)), span)
        try:
            end_span(span, call, aliases=self.settings.cost_aliases)
            SPANS.metered(call, placed=True)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self.failed("span", error)
        self._publish(call)

    def record_span(self, call: Call) -> None:
        """Hand a call without a span of ours to every view.

        It is known from another emitter's span only, which is about to end here, or it is a batch that was refused.
        """
        call = replace(call, attribution=current_attribution())
        if (scope := current_scope()) is not None:
            scope.add(call)
        self._to_views(call, self.instruments.record_cost, None)
        self._publish(call)

    def record_batch_results(self, calls: list[Call], context: Context) -> list[Call]:
        """Hand calls to every view that were not counted before, here or by another process; return these.

        They have no span and no log line of their own. Not for the call path: the ledger is written at once, because
        it knows which calls were counted.

        Args:
            calls: results of a batch, or the batch itself.
            context: has the span that they belong to.
        """
        new = calls if self.ledger is None else self.ledger.enter(calls)
        views = [view for view in self.views if view[0] != "ledger"]
        for call in new:
            self._to_each(call, [*views, ("metrics", lambda call: self.instruments.record_cost(call, context))])
            if call.billable and call.cost.quality == "unpriced":
                self.call_log.warn_unpriced(call)
            self._publish(call)
        self._settle_results(new)
        return new

    def _settle_results(self, calls: list[Call]) -> None:
        """Charge results of batches: those of a batch for which something is reserved together."""
        guard = self.guard
        if guard is None:
            return
        try:
            for call in guard.batches.settle(calls):
                guard.settle(call)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self.failed("budget", error)
        guard.settler.flush(SETTLED)

    def _to_views(self, call: Call, metrics: Callable[[Call], None], span: Span | None) -> None:
        self._to_each(call, [("metrics", metrics), ("log", self.call_log.add), *self.views])
        if self.guard is not None:
            try:
                self.guard.settle(call, span)
            except Exception as error:  # noqa: BLE001 - the safe boundary
                self.failed("budget", error)

    def _to_each(self, call: Call, views: Iterable[tuple[str, Callable[[Call], None]]]) -> None:
        for kind, view in (("counters", self.accumulator.add), *views):
            try:
                view(call)
            except Exception as error:  # noqa: BLE001 - the safe boundary
                self.failed(kind, error)

    def summary(self, session: str | None = None) -> Summary:
        """Return what was spent in this process, or by one of its sessions since any process reset that."""
        if session is not None and self.news is not None:
            self.news.look()
        return self.live.summary(session)

    def _complete(self, call: Call, owner: ForeignSpan) -> None:
        """Put a call on its owner's span; if that has ended, on the span still to start, or on one of our own."""
        placed = owner.add(call, aliases=self.settings.cost_aliases)
        write = partial(self._write, call, owner)
        if not placed and call.billable and owner.not_started:
            SPANS.hold(owner, call, write)
        elif not placed and call.billable and not owner.late_usage:
            write()
            placed = True
        SPANS.metered(call, placed=placed)

    def _write(self, call: Call, owner: ForeignSpan) -> None:
        try:
            span_of(self.tracer, call, owner.context, aliases=self.settings.cost_aliases)
        except Exception as error:  # noqa: BLE001 - the safe boundary: it may be called much later, at a flush
            self.failed("span", error)

    def _publish(self, call: Call) -> None:
        self.last = call
        for subscriber in tuple(self.subscribers):
            try:
                subscriber(call)
            except Exception as error:  # noqa: BLE001 - a subscriber's own failure
                self.failed("subscriber", error)

    def failed(self, kind: str, error: BaseException, effect: str = "your call was not affected") -> None:
        """Count a failure of our own; log the first of its kind with the traceback, but never with its text.

        An exception's text may quote what a call sends or receives (`invalid literal for int(): 'my password is'`).

        Args:
            kind: which part failed.
            error: the exception. One of a budget store is only counted: the guard logs what it means for calls.
            effect: what the failure meant for the call.
        """
        try:
            name = f"{kind}:{type(error).__name__}"
            self.accumulator.count_error(name)
            if kind != STORE_FAILED and (name, effect) not in self._logged:
                self._logged.add((name, effect))
                lines = "".join(traceback.format_tb(error.__traceback__))
                log.warning("tollspan internal error (%s); %s. Traceback:\n%s", name, effect, lines)
        except Exception:  # noqa: BLE001, S110 - nothing is left to report it to
            pass
