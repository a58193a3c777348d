"""What all attempts of a process share: settings, providers, prices, and the views that each call record is given to.

One `Recorder` is made by `instrument()`. It is the safe boundary too: `failed(kind, error)` counts a failure of our
own and logs it once per kind, and the application goes on as if nothing had been there.
"""

from __future__ import annotations

import contextlib
import logging
import os
import traceback
from dataclasses import replace
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import ref

from opentelemetry.trace import get_tracer_provider, set_span_in_context

from tollspan.attribution import current_attribution, current_scope
from tollspan.capture.call_log import advice_for_host, line
from tollspan.capture.known_batches import KnownBatches
from tollspan.capture.pending_responses import PendingResponses
from tollspan.ledger.process_totals import ProcessTotals
from tollspan.model.money import usd
from tollspan.model.text import as_text
from tollspan.prices import price
from tollspan.runtime.forking import renew_in_child
from tollspan.runtime.worker import BackgroundWorker
from tollspan.settings import tiktoken_folder
from tollspan.telemetry import names
from tollspan.telemetry.counters import Accumulator
from tollspan.telemetry.foreign_spans.ownership import SPANS
from tollspan.telemetry.metrics import Instruments, observe_prices
from tollspan.telemetry.spans import end_span, span_of, start_fetch_span
from tollspan.tokens.tiktoken_counts import TiktokenCounter
from tollspan.wire.providers import COMPATIBLE, bundled

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
    from tollspan.wire.providers import Directory, Provider

log = logging.getLogger("tollspan")
calls_log = logging.getLogger("tollspan.calls")

SETTLED: Final = 60.0
"""Seconds to wait until a remote store of budgets has taken some hundreds of settlements."""


class OpenAttempt(Protocol):
    """An attempt that is under way."""

    def left(self) -> None:
        """End it: its body was closed, or collected, before its end."""
        ...


class Recorder:
    """Turn ended attempts into views: span, metrics, counters, log line, subscribers."""

    def __init__(  # noqa: PLR0913, PLR0917 - what a process has one of, handed over once
        self,
        settings: Settings,
        tracer: Tracer,
        meter: Meter,
        table: Callable[[], PriceTable],
        directory: Directory,
        accumulator: Accumulator | None = None,
        tracer_provider: TracerProvider | None = None,
    ) -> None:
        """Share `settings`; `table` gives the price table in force and is asked at the first priced call."""
        self.settings = settings
        self.tracer = tracer
        self.accumulator = accumulator or Accumulator(settings.max_models, settings.metric_attributes)
        self.instruments = Instruments(meter, self.accumulator, settings.metrics, per_chunk=settings.chunk_metric)
        self.directory = directory
        self.directory.on_left_out = self._say_left_out
        self.meter = meter
        self.table = table
        self.live = ProcessTotals(settings.tags, settings.session)
        self.ledger: Writer | None = None
        self.news: ResetWatcher | None = None
        self.on_reset: list[Callable[[str | None], None]] = []
        self.views: list[tuple[str, Callable[[Call], None]]] = [("summary", self.live.add)]
        self.admission: Any = None  # the module that a call asks the guard by; nothing can be imported at the very end
        self.guard: Guard | None = None  # set where there is a budget: the one thing that a call without any asks
        self.last: Call | None = None  # only one: memory that every call touches anew costs as much as code
        self.subscribers: list[Callable[[Call], None]] = []
        self._used: PriceTable | None = None
        known = ref(self)  # a meter keeps its callbacks for ever
        observe_prices(meter, lambda: getattr(known(), "_used", None), lambda: datetime.now(UTC))
        self._tracer_provider = tracer_provider
        self._seen_provider: object = None
        self._processor: TollspanCostProcessor | None = None
        self._unpriced_said: set[str] = set()
        self._left_out_said: set[tuple[str, str]] = set()
        self.batches = KnownBatches()
        self.pending_responses = PendingResponses()
        self.behind = BackgroundWorker(self.failed)
        self._fresh()
        renew_in_child(self, Recorder._fresh)

    @cached_property
    def tiktoken(self) -> TiktokenCounter:
        """Return the tokenizers, looked for when the first estimate is made."""
        return TiktokenCounter(tiktoken_folder(), self.failed)

    def _fresh(self) -> None:
        """Forget the attempts that are under way: in a forked child they are the parent's, which will record them."""
        self.open: dict[int, OpenAttempt] = {}
        self.pending_responses.forget()
        self.last = None
        self.live.forget()

    def ensure_span_processor(self) -> None:
        """See to it that a cost processor watches the spans of other emitters; a provider may be set at any time."""
        provider = self._tracer_provider or get_tracer_provider()
        if provider is self._seen_provider:
            return
        inner = getattr(provider, "provider", provider)  # Logfire's may get another inside at any time
        if inner is self._seen_provider:
            return
        self._seen_provider = inner
        from tollspan.telemetry.foreign_spans.processor import install  # the SDK is imported where it is in use

        self._stop_seeing()
        self._processor = install(provider)
        if self._processor is not None:
            self._processor.use(self.cost_of, self.record_span, self.failed, aliases=self.settings.cost_aliases)

    def stop(self) -> None:
        """Leave the spans of other emitters alone from now on, and wait for none."""
        self.behind.close()
        SPANS.release()
        self._stop_seeing()
        self._processor = None

    def _stop_seeing(self) -> None:
        if self._processor is not None:
            self._processor.stop()

    def end_open_attempts(self) -> None:
        """End what is still under way: the process is about to end."""
        for attempt in list(self.open.values()):
            attempt.left()
        self.behind.flush()

    def cost_of(self, billable: Billable, at: datetime | None = None) -> Cost:
        """Price a call by the table in force, as of now or of a moment `at`."""
        self._used = self.table()
        return price(billable, self._used, at or datetime.now(UTC))

    def max_output(self, billable: Billable) -> int | None:
        """Return the most output tokens that the model of a call can produce, where the table in force says."""
        tariff = self.table().tariff(billable, billable.model, billable.request_model, datetime.now(UTC))
        return None if tariff is None else tariff.row.max_output

    def record(
        self, call: Call, span: Span, owner: ForeignSpan | None = None, recorded: frozenset[str] = frozenset()
    ) -> None:
        """Return an ended call to every view; a view that fails does not keep the others from it.

        `span` is the call's; it is ended here, unless it is the span of another emitter that owns the call. The metrics
        in `recorded` are another emitter's to record.
        """
        context = set_span_in_context(span)
        self._give(call, lambda call: self.instruments.record(call, context, recorded), span)
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
        """Free what is reserved for a call that another client in this process sent on; its `span` is no inference."""
        if self.guard is not None:
            self.guard.settle(call, None)
        if span is not None:
            span.set_attributes({names.OPERATION: names.FORWARD, names.CALL_ID: call.id})
            span.update_name(names.FORWARD)
            span.end()

    def record_fetch(self, call: Call, asked: SpanContext, context: Context) -> None:
        """Return a call that a fetch has found done to every view; `asked` is the span of the request for it."""
        span = start_fetch_span(self.tracer, call, asked, context)
        own = span.get_span_context()
        if own.is_valid:
            call = replace(call, trace_id=f"{own.trace_id:032x}", span_id=f"{own.span_id:016x}")
        self._give(call, lambda call: self.instruments.record_cost(call, set_span_in_context(span)), span)
        try:
            end_span(span, call, aliases=self.settings.cost_aliases)
            SPANS.metered(call, placed=True)
        except Exception as error:  # noqa: BLE001 - the safe boundary
            self.failed("span", error)
        self._publish(call)

    def record_span(self, call: Call) -> None:
        """Return a call that is known from another emitter's span only, which is about to end here, to every view."""
        call = replace(call, attribution=current_attribution())
        if (scope := current_scope()) is not None:
            scope.add(call)
        self._give(call, self.instruments.record_cost, None)
        self._publish(call)

    def record_batch_results(self, calls: list[Call], context: Context) -> list[Call]:
        """Return calls to every view that may have been counted before, here or by another process; give the new ones.

        They have no span and no line of their own; `context` has the span they belong to. Not for the call path: the
        ledger is written at once, for it is what knows them.
        """
        new = calls if self.ledger is None else self.ledger.enter(calls)
        views = [view for view in self.views if view[0] != "ledger"]
        for call in new:
            self._tell(call, [*views, ("metrics", lambda call: self.instruments.record_cost(call, context))])
            if call.billable and call.cost.quality == "unpriced":
                self._say_unpriced(call)
            self._publish(call)
        if self.guard is not None:
            self.guard.settler.flush(SETTLED)
        return new

    def _give(self, call: Call, metrics: Callable[[Call], None], span: Span | None) -> None:
        self._tell(call, [("metrics", metrics), ("log", self._say), *self.views], span)

    def _tell(self, call: Call, views: Iterable[tuple[str, Callable[[Call], None]]], span: Span | None = None) -> None:
        for kind, view in (("counters", self.accumulator.add), *views):
            try:
                view(call)
            except Exception as error:  # noqa: BLE001 - the safe boundary
                self.failed(kind, error)
        if self.guard is not None:
            try:
                self.guard.settle(call, span)
            except Exception as error:  # noqa: BLE001 - the safe boundary
                self.failed("budget", error)

    def summary(self, session: str | None = None) -> Summary:
        """Return what was spent in this process, or by one of its sessions since it was reset, by whomever."""
        if session is not None and self.news is not None:
            self.news.look()
        return self.live.summary(session)

    def refused(self, budget: str, reason: str) -> None:
        """Leave word that a budget refused a call, where somebody wants to know it after the process has ended."""
        if self.settings.refusals is not None:
            with contextlib.suppress(OSError), Path(self.settings.refusals).open("a", encoding="utf-8") as file:
                file.write(f"{datetime.now(UTC):%Y-%m-%dT%H:%M:%SZ}\t{os.getpid()}\t{as_text(budget)}\t{reason}\n")

    def _complete(self, call: Call, owner: ForeignSpan) -> None:
        """Put a call on its owner's span; where that has ended too early, on the span that comes, or one of our own."""
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

    def _say(self, call: Call) -> None:
        if call.billable and call.cost.quality == "unpriced" and call.usage is not None:
            self._say_unpriced(call)
        if self.settings.log_calls:
            calls_log.info("%s | %s", line(call), self._total())

    def say(self, text: str) -> None:
        """Log a line among those of the calls, where these are logged, with the total so far."""
        if self.settings.log_calls:
            calls_log.info("%s | %s", text, self._total())

    def _total(self) -> str:
        counts = self.accumulator
        unpriced = f" + {counts.unpriced:,} unpriced" if counts.unpriced else ""
        return f"total ${usd(counts.spend):.4f}{unpriced}"

    def _say_unpriced(self, call: Call) -> None:
        if (unpriced := getattr(self.table, "unpriced", None)) is not None:
            unpriced()  # perhaps the table is old
        model = f"{call.provider} {call.model}"
        if model in self._unpriced_said or len(self._unpriced_said) > self.settings.max_models:
            return
        self._unpriced_said.add(model)
        text = "no price for %s: its calls are counted as unpriced (%s)"
        if call.provider.endswith(COMPATIBLE):
            log.warning(text, f"{model} at {call.server_address}", advice_for_host(call))
        else:
            log.warning(text, model, f"tollspan prices lookup {call.model}")

    def _say_left_out(self, provider: Provider, dialect: str) -> None:
        key = provider.key, dialect
        if bundled().get(provider.key) is provider or key in self._left_out_said:
            return
        self._left_out_said.add(key)
        log.warning("[[providers]] %s: calls in the format %s are not metered; its `dialects` leave that out", *key)

    def failed(self, kind: str, error: BaseException) -> None:
        """Count a failure of our own; the first of its kind is logged with where it happened, and never with its text.

        What a call sends and receives may stand in an exception's text (`invalid literal for int(): 'my password is'`).
        """
        try:
            name = f"{kind}:{type(error).__name__}"
            if self.accumulator.count_error(name) == 1:
                where = "".join(traceback.format_tb(error.__traceback__))
                text = "tollspan internal error (%s); your call was not affected. Traceback:\n%s"
                log.warning(text, name, where)
        except Exception:  # noqa: BLE001, S110 - nothing is left to tell it to
            pass
