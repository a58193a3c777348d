"""Costs for the spans of other emitters: a span processor, and an exporter that does the same with copies.

`TollspanCostProcessor` does two things when a span ends. A span that owns metered calls gets the attributes that it
lacks (see `ownership.py`). Any other inference span that reports usage and has no cost yet (botocore, gRPC: calls that
never pass httpx) is priced by what it reports. Roll-up spans are left alone, and so are spans whose call was metered on
the wire. Spans that a sampler drops are never seen by any processor.

`telemetry/otel/ending_spans.py` says how attributes are set on a span that is ending.
"""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from tollspan.prices import bundled, price
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.emitters import (
    SCOPE,
    attributes_of,
    billable_of,
    is_inference,
    response_id_of,
    scope_of,
)
from tollspan.telemetry.foreign_spans.ownership import SPANS, Ownership
from tollspan.telemetry.foreign_spans.span_call import call_of
from tollspan.telemetry.otel.ending_spans import EndingSpanProcessor, write
from tollspan.telemetry.spans import Attributes, add_cost

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span

    from tollspan.model.records import Billable, Call, Cost
    from tollspan.prices import PriceTable

    Price = Callable[[Billable, datetime], Cost]
    Sink = Callable[[Call], None]
    Failed = Callable[[str, BaseException], None]

log = logging.getLogger("tollspan")


class _Pricing:
    """What processor and exporter share: which spans to price, and the records of those."""

    def __init__(self, prices: PriceTable | None, on_call: Sink | None, owners: Ownership, *, aliases: bool) -> None:
        self.price: Price = _by(prices)
        self.on_call = on_call
        self.owners = owners
        self.aliases = aliases

    def cost_of(self, span: ReadableSpan) -> Attributes:
        """Return the cost attributes of a span that has to be priced; none for all others.

        If a metered call has the cost already, that cost is written. Otherwise a record is made and passed to
        `on_call`, once.
        """
        attributes, scope, identity = attributes_of(span), scope_of(span), _identity(span)
        if scope == SCOPE or identity is None or not is_inference(attributes, scope, span.name):
            return {}
        if any(name in attributes for name in (names.COST_AMOUNT, names.COST_QUALITY)):
            return {}
        billable = billable_of(attributes, scope)
        if billable is None:
            return {}
        response = response_id_of(attributes)
        if response is not None and self.owners.calls.is_metered(response):
            call = self.owners.calls.unplaced(response)
            return {} if call is None else self._written(call.cost)
        if self.owners.calls.is_covered(identity):
            return {}
        self._claim(span, identity, response)
        call = call_of(span, billable, self.price(billable, _started_at(span)))
        if self.on_call is not None:
            self.on_call(call)
        return self._written(call.cost)

    def _claim(self, span: ReadableSpan, identity: int, response: str | None) -> None:
        """Remember that this span is priced here, so that no other processor, ancestor or span of it is."""
        self.owners.calls.cover(identity)
        self.owners.cover_ancestors(span)
        if response is not None:
            self.owners.calls.priced(response)

    def _written(self, cost: Cost) -> Attributes:
        attributes: Attributes = {}
        add_cost(attributes, cost, aliases=self.aliases)
        return attributes


def log_failure(kind: str, error: BaseException) -> None:
    """Log an internal error and where it happened, but not its text, which may quote what a span contains."""
    where = "".join(traceback.format_tb(error.__traceback__))
    log.warning("tollspan could not price a span (%s:%s). Traceback:\n%s", kind, type(error).__name__, where)


def _by(prices: PriceTable | None) -> Price:
    def by_table(billable: Billable, at: datetime) -> Cost:
        return price(billable, bundled() if prices is None else prices, at)

    return by_table


class TollspanCostProcessor(EndingSpanProcessor):
    """Set the cost on the inference spans of every emitter. `instrument()` adds one; alone, it works in any pipeline.

        provider.add_span_processor(TollspanCostProcessor())

    Args:
        prices: the price table; the bundled one by default.
        on_call: called once with the record of each span that is priced here, for counters and ledgers.
        aliases: also write the cost under the names that other tools read.
        owners: the metered calls and their spans; those of this process by default.
    """

    def __init__(
        self,
        prices: PriceTable | None = None,
        on_call: Sink | None = None,
        *,
        aliases: bool = False,
        owners: Ownership = SPANS,
    ) -> None:
        self._owners = owners
        self._pricing: _Pricing | None = _Pricing(prices, on_call, owners, aliases=aliases)
        self._failed: Failed = log_failure

    def use(self, price: Price, on_call: Sink, failed: Failed, *, aliases: bool) -> None:
        """Price by `price` and report to `on_call` and `failed` from now on: `instrument()` connects its processor."""
        pricing = _Pricing(None, on_call, self._owners, aliases=aliases)
        pricing.price = price
        self._failed = failed
        self._pricing = pricing

    def stop(self) -> None:
        """Do nothing from now on: a processor cannot be removed from a provider."""
        self._pricing = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:
        """Register a span, so that it can own the calls that are made under it."""
        if self._pricing is None:
            return
        try:
            self._owners.started(span)
            super().on_start(span, parent_context)
        except Exception as error:  # noqa: BLE001 - the safe boundary: an application's span never fails for us
            self._failed("span_start", error)

    def ending(self, span: Span) -> None:
        """Complete or price a span that is about to end."""
        pricing = self._pricing
        if pricing is None or scope_of(span) == SCOPE:
            return
        try:
            owner = self._owners.owner_of(span.context.span_id)
            if owner is None:
                write(span, pricing.cost_of(span))
            else:
                owner.settle()
                write(span, owner.missing())
        except Exception as error:  # noqa: BLE001 - the same
            self._failed("span_end", error)

    def on_end(self, span: ReadableSpan) -> None:
        """Remove a span that has ended."""
        if (identity := _identity(span)) is not None:
            self._owners.ended(identity)

    def shutdown(self) -> None:
        """Do nothing: the processor holds nothing back."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Return True: the processor holds nothing back."""
        return True


class TollspanCostExporter(SpanExporter):
    """Set the cost on inference spans on their way to another exporter; it uses public parts of the SDK only.

        provider.add_span_processor(BatchSpanProcessor(TollspanCostExporter(OTLPSpanExporter())))

    Args:
        exporter: the exporter that gets the spans.
        prices: the price table; the bundled one by default.
        on_call: called once with the record of each span that is priced here.
        aliases: also write the cost under the names that other tools read.
        owners: the metered calls and their spans; those of this process by default.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        prices: PriceTable | None = None,
        on_call: Sink | None = None,
        *,
        aliases: bool = False,
        owners: Ownership = SPANS,
    ) -> None:
        self._exporter = exporter
        self._pricing = _Pricing(prices, on_call, owners, aliases=aliases)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans; those that were priced here are copies with the cost."""
        return self._exporter.export([self._priced(span) for span in spans])

    def _priced(self, span: ReadableSpan) -> ReadableSpan:
        try:
            cost = self._pricing.cost_of(span)
        except Exception as error:  # noqa: BLE001 - the safe boundary: spans are exported whatever happens here
            log_failure("export", error)
            cost = {}
        return _copy(span, cost) if cost else span

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the exporter; return whether it could within `timeout_millis`."""
        return self._exporter.force_flush(timeout_millis)


_installed: Final[WeakKeyDictionary[Any, TollspanCostProcessor]] = WeakKeyDictionary()


def install(provider: Any) -> TollspanCostProcessor | None:
    """Return the cost processor of a provider, and add one if there is none; None if the provider is not the SDK's."""
    provider = getattr(provider, "provider", provider)  # Logfire's provider contains the SDK's
    if not isinstance(provider, TracerProvider):
        return None
    processor = _installed.get(provider)
    if processor is None:
        processor = _installed[provider] = TollspanCostProcessor()
        provider.add_span_processor(processor)
    return processor


def _started_at(span: ReadableSpan) -> datetime:
    return datetime.fromtimestamp((span.start_time or 0) / 1e9, UTC)


def _copy(span: ReadableSpan, more: Attributes) -> ReadableSpan:
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes={**(span.attributes or {}), **more},
        events=span.events,
        links=span.links,
        kind=span.kind,
        status=span.status,
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


def _identity(span: ReadableSpan) -> int | None:
    return span.context.span_id if span.context is not None else None
