"""The hook beside what others put around the same clients and modules, and what is left of it once it is gone."""

from __future__ import annotations

import gc
import weakref

from opentelemetry.sdk.metrics import MeterProvider

import tollspan
from tollspan.instrument import current


def test_what_was_instrumented_is_freed() -> None:
    """After `uninstrument()` nothing holds the recorder: no list of what to do at forks, no meter that lives."""
    provider, recorders = MeterProvider(), []
    for _ in range(3):
        tollspan.instrument(meter_provider=provider)
        recorders.append(weakref.ref(current()))
        tollspan.uninstrument()
    gc.collect()
    assert [recorder() for recorder in recorders] == [None] * 3
    provider.shutdown()
