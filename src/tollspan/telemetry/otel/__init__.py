"""Everything in tollspan that relies on private parts of OpenTelemetry's SDK and API.

Nothing outside this package uses them, and each module has a public alternative.
`tests/telemetry/test_otel_private_parts.py` checks both, and that the installed version still has what is listed here.

`fast_attributes`
    Relies on: `Span._attributes`, `_lock` and `_end_time`; `BoundedAttributes._dict`, `_lock`, `maxlen` and
    `max_value_len`; and the class `opentelemetry.sdk.trace._Span`. Public alternative: `Span.set_attributes`.
`fast_histograms`
    Relies on, in `opentelemetry.sdk.metrics._internal`: a histogram's `_measurement_consumer`; the consumer's
    `_sdk_config` and `_reader_storages`; a storage's `_instrument_view_instrument_matches`; a match's `_view`,
    `_attributes_aggregation` and, if it has `_reset_on_collect`, `_get_or_create_aggregation`; a view's
    `_attribute_keys`; an aggregation's `_attributes`; and the `_lock` of each of them. Public alternative:
    `Histogram.record`. In versions that were not read, a forked child's locks are left alone.
`ending_spans`
    Relies on: `SpanProcessor._on_ending` (in the SDK from 1.40 on) and `BoundedAttributes._immutable`. Public
    alternative: `Span.end`, wrapped for each span.
`log_records`, `logs_api`
    Rely on: the package `opentelemetry._logs` of the API, which has no public name yet. Without it, or before 1.37
    (`logs_api.OLDEST`), call events are disabled with a warning.
`suppression`
    Relies on: `opentelemetry.context._SUPPRESS_INSTRUMENTATION_KEY` of the API. Public alternative: the older name of
    that key, which is a plain string.

The first three are used in the versions that were read, `sdk_versions.READ`: 1.30.0 to 1.45.2. In any other version the
public alternative is used. When a new version comes out, compare `opentelemetry/sdk/metrics/_internal` (instrument,
measurement_consumer, metric_reader_storage, _view_instrument_match, aggregation), `Span.set_attributes`, `Span.end` and
`SpanProcessor` in `opentelemetry/sdk/trace`, and `opentelemetry/attributes` with the last version that was read. If
what is listed here is the same, move `READ`.
"""
