"""Private parts of OpenTelemetry: they are what `tollspan.telemetry.otel` says, and are used nowhere else.

Where this fails after an update of OpenTelemetry, the docstring of `tollspan.telemetry.otel` says what to compare.
"""

from __future__ import annotations

import ast
import importlib.util
import threading
from importlib.metadata import version
from pathlib import Path
from typing import Any

import opentelemetry._logs
import opentelemetry.context
import pytest
from opentelemetry.sdk.metrics import Histogram, MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader
from opentelemetry.sdk.trace import ReadableSpan, SpanLimits, SpanProcessor, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

import tollspan
from tollspan.telemetry.otel import (
    ending_spans,
    fast_attributes,
    fast_histograms,
    log_records,
    logs_api,
    sdk_versions,
    suppression,
)

SOURCES = Path(tollspan.__file__).parent
PRIVATE_HOME = SOURCES / "telemetry" / "otel"
INSTALLED = tuple(map(int, version("opentelemetry-sdk").split(".")))
LOCKS = (type(threading.Lock()), type(threading.RLock()))


def test_the_installed_version_was_read() -> None:
    """The installed SDK is a version that was read; if it is not, read it and move `sdk_versions.READ`."""
    first, last = sdk_versions.READ
    assert first <= INSTALLED <= last
    assert sdk_versions.is_read()


def _span(**limits: int) -> Any:
    provider = TracerProvider(span_limits=SpanLimits(**limits), shutdown_on_exit=False)
    return provider.get_tracer("test").start_span("call", attributes={"early": 1})


def test_spans_keep_their_attributes_where_we_put_them() -> None:
    """A span has a lock, no end before its end, and bounded attributes with a lock, a dictionary and two limits."""
    span = _span(max_span_attributes=7, max_span_attribute_length=9)
    assert (type(span).__module__, type(span).__qualname__) == ("opentelemetry.sdk.trace", "_Span")
    assert isinstance(span._lock, LOCKS)
    assert span._end_time is None
    bounded = span._attributes
    assert isinstance(bounded._lock, LOCKS)
    assert (bounded.maxlen, bounded.max_value_len) == (7, 9)
    assert dict(bounded._dict) == {"early": 1}
    span.end()
    assert span._end_time is not None


def test_what_is_put_into_the_dictionary_is_on_the_span() -> None:
    """An entry of the dictionary is an attribute of the span, and `set_attributes` writes to the same dictionary."""
    span = _span()
    span._attributes._dict["direct"] = 2
    span.set_attributes({"public": 3})
    assert dict(span.attributes) == {"early": 1, "direct": 2, "public": 3} == dict(span._attributes._dict)
    assert fast_attributes._put(span, {"ours": 4})
    assert span.attributes["ours"] == 4


def _recorded(attributes: dict[str, str]) -> tuple[Any, InMemoryMetricReader]:
    reader = InMemoryMetricReader()
    histogram = MeterProvider([reader], shutdown_on_exit=False).get_meter("test").create_histogram("amounts")
    histogram.record(5, attributes)
    return histogram, reader


def test_histograms_lead_to_their_aggregation() -> None:
    """From a histogram to what it keeps for a set of attributes: each name on the way, and a lock at each step."""
    histogram, reader = _recorded({"a": "b"})
    assert type(histogram).__module__ == "opentelemetry.sdk.metrics._internal.instrument"
    consumer = histogram._measurement_consumer
    assert callable(consumer._sdk_config.exemplar_filter.should_sample)
    ((key, storage),) = consumer._reader_storages.items()
    assert key is reader
    (match,) = storage._instrument_view_instrument_matches[histogram]
    assert match._view._attribute_keys is None
    ((_, aggregation),) = match._attributes_aggregation.items()
    assert aggregation._attributes == {"a": "b"}
    assert callable(aggregation.aggregate)
    # Where a collection drops aggregations, there is a method that makes one again.
    assert hasattr(match, "_get_or_create_aggregation") == hasattr(match, "_reset_on_collect")
    for owner in (consumer, reader, storage, match, aggregation):
        assert isinstance(owner._lock, LOCKS), owner


def test_aggregating_is_recording() -> None:
    """A point that is aggregated directly is collected like one that was recorded."""
    histogram, reader = _recorded({"a": "b"})
    shortcut = fast_histograms._shortcut(histogram, {"a": "b"})
    assert shortcut is not None
    assert shortcut.take(7, fast_histograms.Measurement(opentelemetry.context.get_current()))
    data: Any = reader.get_metrics_data()
    points = [p for r in data.resource_metrics for s in r.scope_metrics for m in s.metrics for p in m.data.data_points]
    assert [(point.count, point.sum) for point in points if dict(point.attributes) == {"a": "b"}] == [(2, 12)]


def test_the_functions_that_are_passed_by_are_the_sdks() -> None:
    """The SDK defines `Histogram.record` and `Span.set_attributes` as plain functions of its own modules."""
    histogram, _ = _recorded({})
    assert isinstance(histogram, Histogram)
    assert sdk_versions.is_own(type(histogram).record, "opentelemetry.sdk.metrics._internal.instrument")
    assert sdk_versions.is_own(type(_span()).set_attributes, "opentelemetry.sdk.trace")


def _ending(was_open: list[bool]) -> SpanProcessor:
    """Return a processor that writes an attribute to every span that ends, and notes whether it was still open."""

    class Ending(ending_spans.EndingSpanProcessor):
        def ending(self, span: Any) -> None:
            was_open.append(span.is_recording())
            ending_spans.write(span, {"late": 1})

    return Ending()


def _ended(processor: SpanProcessor) -> ReadableSpan:
    exporter = InMemorySpanExporter()
    provider = TracerProvider(shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(exporter))  # before ours: `ending` is called before any `on_end`
    provider.add_span_processor(processor)
    provider.get_tracer("test").start_span("call").end()
    (span,) = exporter.get_finished_spans()
    return span


def test_ending_spans_are_reported_before_their_export() -> None:
    """The SDK has `_on_ending` from 1.40 on; what is written there is exported, and the freeze is as it was."""
    assert hasattr(SpanProcessor, "_on_ending") == (INSTALLED >= (1, 40))
    assert hasattr(SpanProcessor, "_on_ending") == ending_spans._HAS_ENDING
    was_open: list[bool] = []
    span = _ended(_ending(was_open))
    assert dict(span.attributes or {}) == {"late": 1}
    assert len(was_open) == 1
    attributes: Any = span._attributes
    untouched = _span()
    untouched.end()
    assert attributes._immutable == untouched._attributes._immutable


def test_the_public_way_of_ending_spans(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a version that was not read, the span's own `end` reports it, once, while the span is open."""
    monkeypatch.setattr(ending_spans, "_HAS_ENDING", False)
    was_open: list[bool] = []
    assert dict(_ended(_ending(was_open)).attributes or {}) == {"late": 1}
    assert was_open == [True]


def test_other_versions_use_the_public_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """A newer version and a preview count as not read: neither attributes nor points go past the public API."""
    for other in ("99.0.0", "1.45.2.dev", "1.29.9"):
        monkeypatch.setattr(sdk_versions, "__version__", other)
        assert not sdk_versions.is_read()
    fast_attributes._is_sdk.cache_clear()
    span_class: type = type(_span())
    assert not fast_attributes._is_sdk(span_class)
    fast_attributes._is_sdk.cache_clear()
    assert fast_histograms._shortcut(_recorded({})[0], {}) is None


def test_the_logs_api_is_where_it_was() -> None:
    """The names of the logs API are there, under the private name; without an import of it there is no provider."""
    assert log_records.get_logger is opentelemetry._logs.get_logger
    assert logs_api.supported() == ((*logs_api.OLDEST, 0) <= INSTALLED)
    assert logs_api.loaded_logger_provider() is opentelemetry._logs.get_logger_provider()


def test_without_the_logs_api_there_are_no_events(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the API has moved, events are not supported, and there is no provider to flush."""
    monkeypatch.setattr(logs_api, "_PACKAGE", "opentelemetry.moved")
    assert not logs_api.supported()
    assert logs_api.loaded_logger_provider() is None


def test_the_key_of_suppression_is_the_apis(monkeypatch: pytest.MonkeyPatch) -> None:
    """The key is the API's own; where that has lost its private name, it is the older, plain one."""
    assert suppression.SUPPRESSED == opentelemetry.context._SUPPRESS_INSTRUMENTATION_KEY
    monkeypatch.delattr(opentelemetry.context, "_SUPPRESS_INSTRUMENTATION_KEY")
    spec = importlib.util.find_spec(suppression.__name__)
    assert spec is not None
    assert spec.loader is not None
    again: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(again)
    assert again.SUPPRESSED == "suppress_instrumentation"


# --- Nowhere else

OTHERS = {
    "_asdict", "_fields", "_replace",  # public, of named tuples
    "_getframe",  # documented, of the interpreter
    "_initializing", "_module_locks",  # of importlib
    "_request", "_uri_reference",  # of httpx
}  # fmt: skip
"""Names that begin with an underscore and belong neither to tollspan nor to OpenTelemetry."""

PARTS = {
    "_SUPPRESS_INSTRUMENTATION_KEY", "_attribute_keys", "_attributes", "_attributes_aggregation", "_dict", "_end_time",
    "_export_lock", "_get_or_create_aggregation", "_immutable", "_instrument_view_instrument_matches", "_is_enabled",
    "_lock", "_measurement_consumer", "_on_ending", "_reader_storages", "_real_instrument", "_reservoir", "_sdk_config",
    "_view",
}  # fmt: skip
"""The private parts of OpenTelemetry that `tollspan.telemetry.otel` uses."""

TREES = {
    str(path.relative_to(SOURCES)): ast.parse(path.read_text("utf-8"))
    for path in sorted(SOURCES.rglob("*.py"))
    if PRIVATE_HOME not in path.parents
}


def _imports(tree: ast.AST) -> list[str]:
    """Return every name that a module imports, with its package."""
    names = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names += [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names += [f"{node.module}.{alias.name}" for alias in node.names]
    return names


def _defined(tree: ast.AST) -> set[str]:
    """Return the names that a module defines: its functions, and the attributes that classes use of themselves."""
    names = {node.name for node in ast.walk(tree) if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))}
    return names | {
        node.attr
        for node in ast.walk(tree)
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in {"self", "cls"}
    }


def _private(tree: ast.AST) -> set[str]:
    """Return the private attributes that a module reads, by a dot or by their name as a text."""
    names: set[object] = {node.attr for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
    names |= {
        node.args[1].value
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Name)
        and node.func.id in {"delattr", "getattr", "hasattr", "setattr"}
        and len(node.args) > 1
        and isinstance(node.args[1], ast.Constant)
    }
    return {str(name) for name in names if str(name).startswith("_") and not str(name).startswith("__")}


OURS = set[str]().union(*map(_defined, TREES.values()))


@pytest.mark.parametrize("path", TREES)
def test_nothing_else_uses_private_parts(path: str) -> None:
    """No other module imports a private name of OpenTelemetry, names a private module, or reads a private attribute."""
    tree = TREES[path]
    imported = [name for name in _imports(tree) if name.startswith("opentelemetry.")]
    assert [name for name in imported if any(part.startswith("_") for part in name.split("."))] == []
    texts = [str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)]
    assert [text for text in texts if text.startswith(("opentelemetry._", "opentelemetry.sdk._"))] == []
    foreign = _private(tree) - _defined(tree) - OTHERS
    assert foreign & PARTS == set()
    assert foreign - OURS == set()


def test_the_parts_are_used() -> None:
    """Each part in this list is used in the package: what is no longer used is taken out of its docstring, too."""
    used = set[str]()
    for path in PRIVATE_HOME.glob("*.py"):
        tree = ast.parse(path.read_text("utf-8"))
        used |= _private(tree) | {str(node.value) for node in ast.walk(tree) if isinstance(node, ast.Constant)}
        used |= _defined(tree)
    assert used >= PARTS
