"""The metrics of a call: the conventions' histograms, recorded at its end, and our own counters, observed when read.

Histograms are synchronous, so that their exemplars lead to the call's span. Counters are observable over the
accumulator, so they cost nothing on the call path and lose nothing to a late reader. The setting `metrics` chooses the
generation of the conventions' names; the released one is the default, because existing dashboards read it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final, NamedTuple

from opentelemetry.context import get_current
from opentelemetry.metrics import Observation

from tollspan.model.money import as_float
from tollspan.model.records import DENIED
from tollspan.runtime.forking import renew_in_child
from tollspan.telemetry import names
from tollspan.telemetry.otel.fast_histograms import Measurement, Points, renew_locks
from tollspan.telemetry.spans import ATTRIBUTION_ATTRIBUTES

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from datetime import datetime

    from opentelemetry.context import Context
    from opentelemetry.metrics import CallbackOptions, Histogram, Meter

    from tollspan.model.records import Call
    from tollspan.prices import PriceTable
    from tollspan.settings import Metrics
    from tollspan.telemetry.counters import Accumulator, Attribution, Key, Totals

Attributes = dict[str, Any]
TOKEN_TYPES: Final = ("input", "output", "cache_read", "cache_write", "reasoning")
"""Kinds that `tollspan.tokens` counts: the last three are part of the first two, and are not to be added to them."""
_EMBEDDINGS = "embeddings"
_USAGE_KINDS = (
    ("input", "input_tokens"),
    ("output", "output_tokens"),
    ("cache_read", "cache_read.input_tokens"),
    ("cache_write", "cache_write.input_tokens"),
    ("reasoning", "reasoning.output_tokens"),
)


class Instruments:
    """Records calls on one OpenTelemetry meter."""

    def __init__(
        self, meter: Meter, accumulator: Accumulator, generation: Metrics = "released", *, per_chunk: bool = False
    ) -> None:
        """Create the instruments of the wanted generation(s) of names."""
        self._accumulator = accumulator
        self._sets: dict[tuple[Any, ...], _Sets] = {}
        self._cost = _histogram(meter, names.OPERATION_COST, "{USD}", "Cost of a call", names.COST_BUCKETS)
        self._first_token = _seconds(meter, names.FIRST_TOKEN, "Time to the first output of any kind")
        self._wait = _seconds(meter, names.BUDGET_WAIT_DURATION, "Time that a call waited for a budget")
        self._released = _Released(meter) if generation != "newest" else None
        self._newest = _Newest(meter) if generation != "released" else None
        self._per_chunk = [
            _seconds(meter, name, "Time between output chunks")
            for name, wanted in (
                (names.OPERATION_PER_CHUNK, self._released),
                (names.INFERENCE_PER_CHUNK, self._newest),
            )
            if per_chunk and wanted is not None
        ]
        observe(meter, accumulator)
        renew_in_child(self, Instruments._renew)

    def _renew(self) -> None:
        renew_locks(self._cost)  # and those of everything that its provider measures

    def record(self, call: Call, context: Context, recorded: frozenset[str] = frozenset()) -> None:
        """Record the metrics of a call that has ended; a call that a budget denied was never sent, and has none.

        Args:
            call: the record.
            context: holds the call's span, for the exemplars.
            recorded: the metrics that another emitter, which owns that span, records of the same call.
        """
        if call.outcome == DENIED:
            return
        sets, measurement = self._sets_of(call), Measurement(context)
        timed = sets.plain
        if call.error_type is not None:
            timed = Points({**timed.attributes, names.ERROR_TYPE: self._accumulator.kind(call.error_type)})
        if self._released is not None:
            self._released.record(call, sets, timed, measurement, recorded)
        if self._newest is not None:
            self._newest.record(call, sets.plain, timed, measurement)
        self._record_own(call, sets.plain, measurement)

    def record_cost(self, call: Call, context: Context | None = None) -> None:
        """Record our own metrics only: another emitter records the others, or the call is not an inference."""
        self._record_own(call, self._sets_of(call).plain, Measurement(get_current() if context is None else context))

    def _sets_of(self, call: Call) -> _Sets:
        """Return the points of a call; their attributes are made once for all calls that have the same."""
        label, attribution = self._accumulator.label(call), self._accumulator.attribution(call)
        requested, served = call.request_model, None if call.response_model is None else label
        if call.outcome != "ok":
            model: str | None = label
        else:
            model = None if requested is None else self._accumulator.capped(requested)
        key = (call.operation, call.provider, model, served, call.server_address, call.server_port, attribution)
        sets = self._sets.get(key)
        if sets is None:
            if len(self._sets) >= MOST_SETS:
                self._sets.clear()
            sets = self._sets[key] = _sets(call, model, served, attribution)
        return sets

    def _record_own(self, call: Call, plain: Points, measurement: Measurement) -> None:
        if call.billable and call.cost.amount is not None:
            plain.record(self._cost, as_float(call.cost.amount), measurement)
        if call.time_to_first_token is not None:
            plain.record(self._first_token, call.time_to_first_token, measurement)

    def record_wait(self, seconds: float, budget: str, context: Context) -> None:
        """Record the seconds that a call has waited for others, until it was sent or refused."""
        self._wait.record(seconds, {names.BUDGET: budget}, context)

    @property
    def wants_chunks(self) -> bool:
        """Return whether the time between chunks is recorded."""
        return bool(self._per_chunk)

    def chunk(self, seconds: float, attributes: Attributes) -> None:
        """Record the seconds since the previous chunk."""
        for histogram in self._per_chunk:
            histogram.record(seconds, attributes)


class _Released:
    """The generation in the released packages (conventions up to 1.41)."""

    def __init__(self, meter: Meter) -> None:
        self._duration = _seconds(meter, names.OPERATION_DURATION, "Duration of one HTTP attempt")
        self._tokens = _histogram(meter, names.TOKEN_USAGE, "{token}", "Tokens of a call", names.TOKEN_BUCKETS)
        self._first_chunk = _seconds(meter, names.OPERATION_FIRST_CHUNK, "Time to the first chunk of a stream")

    def record(
        self, call: Call, sets: _Sets, timed: Points, measurement: Measurement, recorded: frozenset[str]
    ) -> None:
        if names.OPERATION_DURATION not in recorded:
            timed.record(self._duration, call.duration, measurement)
        if call.time_to_first_chunk is not None and names.OPERATION_FIRST_CHUNK not in recorded:
            sets.plain.record(self._first_chunk, call.time_to_first_chunk, measurement)
        usage = call.usage
        if usage is None or not call.billable or names.TOKEN_USAGE in recorded:
            return
        if usage.input is not None:
            sets.input.record(self._tokens, usage.input, measurement)
        if usage.output is not None:
            sets.output.record(self._tokens, usage.output, measurement)


class _Newest:
    """The generation merged in September and October 2026."""

    def __init__(self, meter: Meter) -> None:
        self._duration = _seconds(meter, names.INFERENCE_DURATION, "Duration of one HTTP attempt")
        self._embeddings = _seconds(meter, names.EMBEDDINGS_DURATION, "Duration of one HTTP attempt")
        self._first_chunk = _seconds(meter, names.INFERENCE_FIRST_CHUNK, "Time to the first chunk of a stream")
        self._counters = {
            field: meter.create_counter(names.INFERENCE_USAGE + kind, "{token}", "Tokens used")
            for field, kind in _USAGE_KINDS
        }
        self._sizes = {
            "input": _histogram(meter, names.INFERENCE_INPUT, "{token}", "Input tokens of a call", names.TOKEN_BUCKETS),
            "output": _histogram(meter, names.INFERENCE_OUTPUT, "{token}", "Output tokens", names.TOKEN_BUCKETS),
        }

    def record(self, call: Call, plain: Points, timed: Points, measurement: Measurement) -> None:
        timed.record(self._embeddings if call.operation == _EMBEDDINGS else self._duration, call.duration, measurement)
        if call.time_to_first_chunk is not None:
            plain.record(self._first_chunk, call.time_to_first_chunk, measurement)
        usage = call.usage
        if usage is None or not call.billable:
            return
        for field, counter in self._counters.items():
            for modality, tokens in _by_modality(usage, field):
                counter.add(tokens, {**plain.attributes, names.TOKEN_MODALITY: modality}, measurement.context)
        for field, histogram in self._sizes.items():
            if (tokens := getattr(usage, field)) is not None:
                plain.record(histogram, tokens, measurement)


def _by_modality(usage: Any, field: str) -> Iterable[tuple[str, int]]:
    """Return the tokens of a kind by modality; those of no other modality are text."""
    total = getattr(usage, field)
    if total is None:
        return
    rest = total
    for modality in ("audio", "image", "video"):
        part = min(getattr(usage, f"{field}_{modality}", None) or 0, rest)
        if part:
            rest -= part
            yield modality, part
    if rest or not total:
        yield "text", rest


def _histogram(meter: Meter, name: str, unit: str, description: str, bounds: tuple[float, ...]) -> Histogram:
    try:
        return meter.create_histogram(name, unit, description, explicit_bucket_boundaries_advisory=bounds)
    except TypeError:  # an OpenTelemetry API older than 1.30 has no advisory bounds
        return meter.create_histogram(name, unit, description)


def _seconds(meter: Meter, name: str, description: str) -> Histogram:
    return _histogram(meter, name, "s", description, names.SECONDS_BUCKETS)


class _Sets(NamedTuple):
    """The points of calls with the same attributes: most metrics, and those of input and output tokens."""

    plain: Points
    input: Points
    output: Points


MOST_SETS: Final = 1000
"""Sets of attributes that are kept for later calls."""


def _sets(call: Call, model: str | None, served: str | None, attribution: Attribution) -> _Sets:
    """Return the points of a call; `model` and `served` are names as they may be put on a metric."""
    plain: Attributes = {names.OPERATION: call.operation, names.PROVIDER: call.provider, **_attribution(attribution)}
    for name, value in (
        (names.REQUEST_MODEL, model),
        (names.RESPONSE_MODEL, served),
        (names.SERVER_ADDRESS, call.server_address),
        (names.SERVER_PORT, call.server_port),
    ):
        if value is not None:
            plain[name] = value
    return _Sets(
        Points(plain),
        Points({**plain, names.TOKEN_TYPE: "input"}),
        Points({**plain, names.TOKEN_TYPE: "output"}),
    )


def observe(meter: Meter, accumulator: Accumulator) -> None:
    """Create our own counters over the accumulator; they cost nothing until a reader collects them."""

    def watch(name: str, unit: str, description: str, value: Callable[[Totals], int | float]) -> None:
        def read(_: CallbackOptions) -> Iterable[Observation]:
            return [
                Observation(value(totals), _labels(key, attribution))
                for key, attribution, totals in accumulator.series()
            ]

        meter.create_observable_counter(name, [read], unit, description)

    def calls(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(number, {**_labels(key, attribution), names.OUTCOME: outcome})
            for key, attribution, totals in accumulator.series()
            for outcome, number in list(totals.outcomes.items())
        ]

    def tokens(_: CallbackOptions) -> Iterable[Observation]:
        return [
            Observation(getattr(totals, kind), {**_labels(key, attribution), names.TOKEN_TYPE: kind})
            for key, attribution, totals in accumulator.series()
            for kind in TOKEN_TYPES
        ]

    def errors(_: CallbackOptions) -> Iterable[Observation]:
        return [Observation(number, {names.KIND: kind}) for kind, number in list(accumulator.errors.items())]

    watch(names.SPEND, "{USD}", "Money spent on calls", lambda totals: as_float(totals.spend))
    watch(names.FAILED_SPEND, "{USD}", "Money spent on calls that broke off", lambda t: as_float(t.failed_spend))
    watch(names.RETRIED_SPEND, "{USD}", "Money spent on calls sent again", lambda t: as_float(t.retried_spend))
    watch(names.RETRIED_CALLS, "{call}", "HTTP attempts that sent an operation again", lambda totals: totals.retried)
    watch(names.UNPRICED_CALLS, "{call}", "Calls with usage and no price", lambda totals: totals.unpriced)
    watch(names.DISPUTED_CALLS, "{call}", "Calls whose stated cost is over 1% off the table's", lambda t: t.disputed)
    # Savings can shrink: a cache write costs more than plain input and may never be read again.
    meter.create_observable_up_down_counter(
        names.CACHE_SAVINGS,
        [
            lambda _: [
                Observation(as_float(t.savings), _labels(key, attribution))
                for key, attribution, t in accumulator.series()
            ]
        ],
        "{USD}",
        "Money that cached input saved",
    )
    meter.create_observable_counter(names.CALLS, [calls], "{call}", "HTTP attempts")
    meter.create_observable_counter(
        names.TOKENS, [tokens], "{token}", "Tokens; cache ones are in input, reasoning in output"
    )
    meter.create_observable_counter(names.INTERNAL_ERRORS, [errors], "{error}", "Failures of tollspan itself")


def observe_prices(meter: Meter, table: Callable[[], PriceTable | None], now: Callable[[], datetime]) -> None:
    """Create the gauge of the price table's age; it has no value before a table is used, or if the table has no date.

    Args:
        meter: creates the gauge.
        table: returns the table in use, without loading one.
        now: returns the current time.
    """

    def age(_: CallbackOptions) -> Iterable[Observation]:
        used = table()
        if used is not None and used.date is not None:
            yield Observation(max((now() - used.date).total_seconds(), 0.0))

    meter.create_observable_gauge(names.PRICES_AGE, [age], "s", "Time since the price table in use was current")


def _labels(key: Key, attribution: Attribution) -> Attributes:
    provider, operation, model = key
    return {
        names.PROVIDER: provider,
        names.OPERATION: operation,
        names.RESPONSE_MODEL: model,
        **_attribution(attribution),
    }


def _attribution(attribution: Attribution) -> Attributes:
    """Return attribution under the names that it has on spans; of several names, under the first."""
    return {
        ATTRIBUTION_ATTRIBUTES.get(key, (names.TAG + key.removeprefix("tag."),))[0]: value for key, value in attribution
    }
