"""Prices for the spans of other emitters: a span processor, and an exporter for those who would rather have one.

`TollspanCostProcessor` does two things when a span ends. A span that owns metered calls gets what it still lacks (see
`ownership.py`). Any other inference span that reports usage and has no cost yet (botocore, gRPC: calls that never pass
httpx) is priced by what it reports. Roll-up spans are left alone, and so are spans whose call was metered on the wire.

How an ended span can still be written to. The SDK calls `_on_ending` of every processor before any `on_end`, so what is
written there is seen by every exporter, whatever the order of registration. But `Span.end()` freezes the attributes
before that (opentelemetry-python issue 5614): until that is fixed we lift the freeze for the moment of writing. SDKs
before 1.40 have no `_on_ending`; there the span's own `end` is preceded by ours. Spans that a sampler drops are never
seen by any processor.
"""

from __future__ import annotations

import logging
import traceback
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final
from weakref import WeakKeyDictionary

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.trace import StatusCode

from tollspan.model.call_record import call_record
from tollspan.model.records import Facts
from tollspan.prices import bundled, price
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.emitters import (
    SCOPE,
    attributes_of,
    billable_of,
    first_text,
    is_inference,
    operation_of,
    provider_of,
    response_id_of,
)
from tollspan.telemetry.foreign_spans.ownership import SPANS, SpanRegistry
from tollspan.telemetry.span_ids import span_ids
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

_HAS_ENDING: Final = hasattr(SpanProcessor, "_on_ending")


class _Pricing:
    """What processor and exporter share: which spans to price, and their records."""

    def __init__(self, prices: PriceTable | None, on_call: Sink | None, owners: SpanRegistry, *, aliases: bool) -> None:
        self.price: Price = _by(prices)
        self.on_call = on_call
        self.owners = owners
        self.aliases = aliases

    def cost_of(self, span: ReadableSpan) -> Attributes:
        """Return the cost attributes of a span that has to be priced; none for all others.

        A cost that tollspan's own record has already is only written down; a new one is told to `on_call`, once.
        """
        attributes, scope = attributes_of(span), _scope(span)
        if scope == SCOPE or _identity(span) is None or not is_inference(attributes, scope, span.name):
            return {}
        if any(name in attributes for name in (names.COST_AMOUNT, names.COST_QUALITY)):
            return {}
        billable = billable_of(attributes, scope)
        if billable is None:
            return {}
        response = response_id_of(attributes)
        if response is not None and self.owners.is_metered(response):
            call = self.owners.unplaced(response)
            return {} if call is None else self._written(call.cost)
        identity = _identity(span)
        if identity is None or self.owners.is_covered(identity):
            return {}
        self.owners.cover(identity)  # once: a second processor or exporter has nothing left to do
        self.owners.cover_ancestors(span)
        if response is not None:
            self.owners.told(response)
        call = call_of(span, billable, self.price(billable, _moment(span)))
        if self.on_call is not None:
            self.on_call(call)
        return self._written(call.cost)

    def _written(self, cost: Cost) -> Attributes:
        attributes: Attributes = {}
        add_cost(attributes, cost, aliases=self.aliases)
        return attributes


def say(kind: str, error: BaseException) -> None:
    """Log a failure of our own with where it happened, and never with its text: what a span holds may stand there."""
    where = "".join(traceback.format_tb(error.__traceback__))
    log.warning("tollspan could not price a span (%s:%s). It was here:\n%s", kind, type(error).__name__, where)


def _by(prices: PriceTable | None) -> Price:
    def by_table(billable: Billable, at: datetime) -> Cost:
        return price(billable, bundled() if prices is None else prices, at)

    return by_table


class TollspanCostProcessor(SpanProcessor):
    """Put a cost on the inference spans of every emitter. `instrument()` adds one; alone, it works in any pipeline.

        provider.add_span_processor(TollspanCostProcessor())

    Args:
        prices: the price table; the bundled one by default.
        on_call: is given the record of each span that is priced here, once: for counters and ledgers.
        aliases: also write the cost under the names that other tools read.
        owners: what is known of metered calls; the process's by default.
    """

    def __init__(
        self,
        prices: PriceTable | None = None,
        on_call: Sink | None = None,
        *,
        aliases: bool = False,
        owners: SpanRegistry = SPANS,
    ) -> None:
        self._owners = owners
        self._pricing: _Pricing | None = _Pricing(prices, on_call, owners, aliases=aliases)
        self._failed: Failed = say

    def use(self, price: Price, on_call: Sink, failed: Failed, *, aliases: bool) -> None:
        """Price by `price` from now on, tell `on_call` and `failed`: `instrument()` connects what it has added."""
        pricing = _Pricing(None, on_call, self._owners, aliases=aliases)
        pricing.price = price
        self._failed = failed
        self._pricing = pricing

    def stop(self) -> None:
        """Do nothing from now on: a processor cannot be taken out of a provider again."""
        self._pricing = None

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Take note of a span, so that the calls under it are known to be its."""
        if self._pricing is None:
            return
        try:
            self._owners.started(span)
            if not _HAS_ENDING:
                before_end(span, self._on_ending)
        except Exception as error:  # noqa: BLE001 - the safe boundary: an application's span never fails for us
            self._failed("span_start", error)

    def _on_ending(self, span: Span) -> None:
        """Complete or price a span; called before any processor's `on_end`."""
        pricing = self._pricing
        if pricing is None or _scope(span) == SCOPE:
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
        """Forget a span that has ended."""
        if (identity := _identity(span)) is not None:
            self._owners.ended(identity)

    def shutdown(self) -> None:
        """Hold nothing, so there is nothing to do."""

    def force_flush(self, timeout_millis: int = 30000) -> bool:  # noqa: ARG002 - the SDK's signature
        """Hold nothing, so there is nothing to do."""
        return True


class TollspanCostExporter(SpanExporter):
    """Put a cost on the inference spans that pass by on their way to another exporter; built on public parts only.

        provider.add_span_processor(BatchSpanProcessor(TollspanCostExporter(OTLPSpanExporter())))

    Args:
        exporter: where the spans go.
        prices: the price table; the bundled one by default.
        on_call: is given the record of each span that is priced here, once.
        aliases: also write the cost under the names that other tools read.
        owners: what is known of metered calls; the process's by default.
    """

    def __init__(
        self,
        exporter: SpanExporter,
        prices: PriceTable | None = None,
        on_call: Sink | None = None,
        *,
        aliases: bool = False,
        owners: SpanRegistry = SPANS,
    ) -> None:
        self._exporter = exporter
        self._pricing = _Pricing(prices, on_call, owners, aliases=aliases)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Export the spans, those that had to be priced as copies that say so."""
        return self._exporter.export([self._priced(span) for span in spans])

    def _priced(self, span: ReadableSpan) -> ReadableSpan:
        try:
            found = self._pricing.cost_of(span)
        except Exception as error:  # noqa: BLE001 - the safe boundary: spans are exported whatever happens here
            say("export", error)
            found = {}
        return _copy(span, found) if found else span

    def shutdown(self) -> None:
        """Shut the exporter down."""
        self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Flush the exporter."""
        return self._exporter.force_flush(timeout_millis)


_installed: Final[WeakKeyDictionary[Any, TollspanCostProcessor]] = WeakKeyDictionary()


def install(provider: Any) -> TollspanCostProcessor | None:
    """Add a processor to a provider, unless that has ours already; None where the provider is not the SDK's."""
    provider = getattr(provider, "provider", provider)  # Logfire has the SDK's inside of its own
    if not isinstance(provider, TracerProvider):
        return None
    processor = _installed.get(provider)
    if processor is None:
        processor = _installed[provider] = TollspanCostProcessor()
        provider.add_span_processor(processor)
    return processor


def write(span: Any, attributes: Attributes) -> None:
    """Write to a span that is ending: openly where the SDK allows it, else with the freeze lifted for the moment.

    Raises AttributeError or TypeError where an SDK keeps its attributes in another way than those we know.
    """
    if not attributes:
        return
    if span.is_recording():
        span.set_attributes(attributes)
        return
    held = span._attributes  # noqa: SLF001 - see the module's text
    frozen = held._immutable  # noqa: SLF001
    held._immutable = False  # noqa: SLF001
    try:
        for name, value in attributes.items():
            held[name] = value
    finally:
        held._immutable = frozen  # noqa: SLF001


def before_end(span: Any, action: Callable[[Any], None]) -> None:
    """Call `action` with a span, still open, when its emitter ends it: for SDKs without `_on_ending`."""
    end = span.end

    def ending(end_time: int | None = None) -> None:
        span.__dict__.pop("end", None)  # the span and this function hold each other: until here, and no longer
        if span.is_recording():
            action(span)
        end(end_time)

    span.end = ending


def call_of(span: ReadableSpan, billable: Billable, cost: Cost) -> Call:
    """Return the record of a call that is known from its span only; its id is the span's."""
    attributes, context = attributes_of(span), span.context
    identity = f"{context.trace_id:032x}-{context.span_id:016x}" if context is not None else "unknown"
    started, ended = span.start_time or 0, span.end_time or span.start_time or 0
    failed = span.status.status_code is StatusCode.ERROR
    port = attributes.get(names.SERVER_PORT)
    facts = Facts(operation_of(attributes))
    facts.request_model, facts.response_model = billable.request_model, billable.model
    facts.response_id = response_id_of(attributes)
    facts.stream = attributes.get(names.REQUEST_STREAM) is True
    facts.tier, facts.region, facts.search_context = billable.tier, billable.region, billable.search_context
    trace_id, span_id = (None, None) if context is None else span_ids(context)
    return call_record(
        facts,
        call_id=identity,
        operation_id=identity,
        provider=provider_of(attributes),
        started_at=started,
        duration=(ended - started) / 1e9,
        attribution={},
        usage=billable.usage,
        cost=cost,
        outcome="error" if failed else "ok",
        error_type=first_text(attributes, (names.ERROR_TYPE,)),
        server_address=first_text(attributes, (names.SERVER_ADDRESS,)),
        server_port=port if isinstance(port, int) else None,
        price_labels=billable.price_providers,
        trace_id=trace_id,
        span_id=span_id,
    )


def _moment(span: ReadableSpan) -> datetime:
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


def _scope(span: ReadableSpan) -> str:
    scope = span.instrumentation_scope
    return scope.name if scope is not None else ""
