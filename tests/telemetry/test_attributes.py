"""Attributes that are put where the SDK keeps them are, to whoever reads the span, what `Span.set_attributes` makes."""

from __future__ import annotations

import logging
import threading
from functools import wraps
from typing import TYPE_CHECKING, Any

import pytest
from opentelemetry.sdk.trace import Span, SpanLimits, TracerProvider
from opentelemetry.sdk.trace.sampling import ALWAYS_OFF
from opentelemetry.trace import INVALID_SPAN

from tests.ledger.call_factory import EVERYTHING, FAILED, UNPRICED, made
from tollspan.telemetry.otel import fast_attributes as module
from tollspan.telemetry.otel.fast_attributes import put
from tollspan.telemetry.spans import end_attributes

if TYPE_CHECKING:
    from collections.abc import Iterator

START: dict[str, Any] = {"gen_ai.operation.name": "chat", "server.port": 443}
CALLS = {"plain": made(1), "failed": made(1, **FAILED), "unpriced": made(1, **UNPRICED), "everything": EVERYTHING}


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    """Have what is known of a class of spans forgotten: a test changes which versions were read."""
    module._is_sdk.cache_clear()
    yield
    module._is_sdk.cache_clear()


@pytest.fixture
def straight(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Return for each span of the SDK that was tried whether its attributes went straight to where it keeps them."""
    seen: list[bool] = []
    tried = module._put

    def spied(span: Any, attributes: dict[str, Any]) -> bool:
        seen.append(tried(span, attributes))
        return seen[-1]

    monkeypatch.setattr(module, "_put", spied)
    return seen


def _span(**limits: int) -> Any:
    return TracerProvider(span_limits=SpanLimits(**limits)).get_tracer("test").start_span("call", attributes=START)


def _kept(span: Any) -> tuple[list[tuple[str, Any, type]], int]:
    span.end()
    return [(name, value, type(value)) for name, value in sorted(span.attributes.items())], span.dropped_attributes


@pytest.mark.parametrize("aliases", [False, True])
@pytest.mark.parametrize("name", CALLS)
def test_kept_alike(name: str, aliases: bool, straight: list[bool]) -> None:
    """All that the end of a call makes known goes past the SDK's checks, and is what they would have made of it."""
    attributes = end_attributes(CALLS[name], aliases=aliases)
    one, other = _span(), _span()
    put(one, attributes)
    assert straight == [True]
    other.set_attributes(attributes)
    assert _kept(one) == _kept(other)


@pytest.mark.parametrize(
    "limits",
    [{"max_span_attributes": 12}, {"max_span_attributes": 0}, {"max_span_attribute_length": 5}],
    ids=["few", "none", "short"],
)
def test_limits(limits: dict[str, int], straight: list[bool]) -> None:
    """Where something is to be cut or dropped, the SDK does it."""
    attributes = end_attributes(EVERYTHING)
    one, other = _span(**limits), _span(**limits)
    put(one, attributes)
    assert straight == [False]
    other.set_attributes(attributes)
    assert _kept(one) == _kept(other)


def test_as_many_as_fit(straight: list[bool]) -> None:
    """A span that has room for just those that come drops none."""
    attributes = end_attributes(made(1))
    span = _span(max_span_attributes=len(START) + len(attributes))
    put(span, attributes)
    assert straight == [True]
    assert _kept(span) == (sorted((name, value, type(value)) for name, value in (START | attributes).items()), 0)


@pytest.mark.parametrize("value", [b"bytes", ["a", "b"], {"a": 1}, None, object()])
def test_other_values(value: Any, straight: list[bool]) -> None:
    """A value that is not plain is the SDK's to judge."""
    one, other = _span(), _span()
    put(one, {"name": value})
    assert straight == [False]
    other.set_attributes({"name": value})
    assert _kept(one) == _kept(other)


def test_ended_span(caplog: pytest.LogCaptureFixture) -> None:
    """A span that has ended stays as it is, and the SDK says so."""
    span = _span()
    span.end()
    with caplog.at_level(logging.WARNING):
        put(span, {"late": 1})
    assert dict(span.attributes) == START
    assert "ended span" in caplog.text


def test_other_version_is_asked(monkeypatch: pytest.MonkeyPatch, straight: list[bool]) -> None:
    """In a version that nobody has read, attributes go through the public API."""
    monkeypatch.setattr("tollspan.telemetry.otel.sdk_versions.READ", ((0, 1, 0), (0, 1, 0)))
    span = _span()
    put(span, {"name": 1})
    assert straight == []
    assert span.attributes["name"] == 1


@pytest.mark.parametrize("wrapped", [False, True])
def test_replaced_method_is_asked(monkeypatch: pytest.MonkeyPatch, wrapped: bool) -> None:
    """Where an application has put a method of its own in place, to hide values for one, it gets the attributes."""
    own = Span.set_attributes

    def hides(span: Span, attributes: dict[str, Any]) -> None:
        own(span, dict.fromkeys(attributes, "hidden"))

    monkeypatch.setattr(Span, "set_attributes", wraps(own)(hides) if wrapped else hides)
    span = _span()
    put(span, {"name": 1})
    assert span.attributes["name"] == "hidden"


def test_method_of_one_span_is_asked() -> None:
    """So does one that a span processor puts on the spans it sees, at their start."""
    span, own = _span(), Span.set_attributes

    def hides(attributes: dict[str, Any]) -> None:
        own(span, dict.fromkeys(attributes, "hidden"))

    span.set_attributes = hides
    put(span, {"name": 1})
    assert span.attributes["name"] == "hidden"


def test_span_that_is_not_the_sdks() -> None:
    """Spans of other classes are given attributes by their own method."""

    class Wrapped:
        def __init__(self) -> None:
            self.given: dict[str, Any] = {}

        def set_attributes(self, attributes: dict[str, Any]) -> None:
            self.given |= attributes

    wrapped = Wrapped()
    put(wrapped, {"name": 1})  # type: ignore[arg-type]
    assert wrapped.given == {"name": 1}
    put(INVALID_SPAN, {"name": 1})
    put(TracerProvider(sampler=ALWAYS_OFF).get_tracer("test").start_span("call"), {"name": 1})


def test_read_while_put() -> None:
    """A thread that reads a span's attributes while some are put there sees all of a call's, or none."""
    span = _span(max_span_attributes=100_000)
    done = threading.Event()

    def write() -> None:
        for number in range(500):
            put(span, {f"{number}.{place}": place for place in range(10)})
        done.set()

    thread = threading.Thread(target=write)
    thread.start()
    seen = []
    while not done.is_set():
        seen.append(len(dict(span.attributes)))
    thread.join()
    assert {(length - len(START)) % 10 for length in seen} <= {0}
    assert len(span.attributes) == len(START) + 5000
