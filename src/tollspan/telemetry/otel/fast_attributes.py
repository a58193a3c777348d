"""Attributes set on a span of the SDK without its checks: `put(span, attributes)`.

The SDK checks each value, which takes most of the time that two dozen attributes need. Ours are plain values by
construction, so they are put directly where the SDK keeps them. That is not a public API: it is done only in versions
that were read (`sdk_versions.READ`), on the SDK's own spans, if their method was not replaced, and if nothing has to be
cut or dropped. In all other cases `Span.set_attributes` is called.
"""

from __future__ import annotations

from functools import lru_cache
from types import MethodType
from typing import TYPE_CHECKING, Any, Final

from tollspan.telemetry.otel.sdk_versions import is_own, is_read

if TYPE_CHECKING:
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

_SDK: Final = "opentelemetry.sdk.trace"
_PLAIN: Final = frozenset({str, int, float, bool, tuple})
"""Types that the SDK keeps unchanged; the tuples among our attributes contain strings."""


# ruff: noqa: SLF001 - see above


def put(span: Span, attributes: dict[str, AttributeValue]) -> None:
    """Do what `span.set_attributes(attributes)` does, in less time; no name may be empty."""
    if not (_is_sdk(type(span)) and _put(span, attributes)):
        span.set_attributes(attributes)


def _put(span: Any, attributes: dict[str, AttributeValue]) -> bool:
    """Put attributes where a span of the SDK keeps them; return False if `set_attributes` has to do it."""
    # Read as an attribute: looking into the span's own dictionary would make Python create it, which is slow.
    method = span.set_attributes
    is_sdks = type(method) is MethodType and method.__self__ is span and is_own(method.__func__, _SDK)
    if not is_sdks:
        return False  # the application replaced it, to look at attributes or to change them
    if not _PLAIN.issuperset(map(type, attributes.values())):
        return False
    bounded = span._attributes
    with span._lock:
        if span._end_time is not None or bounded.max_value_len is not None:
            return False
        with bounded._lock:
            if bounded.maxlen is not None and len(bounded._dict) + len(attributes) > bounded.maxlen:
                return False
            bounded._dict.update(attributes)
    return True


@lru_cache(maxsize=16)
def _is_sdk(span_class: type) -> bool:
    """Return whether spans of this class are the SDK's own, of a version that was read."""
    return span_class.__module__ == _SDK and span_class.__qualname__ == "_Span" and is_read()
