"""Attributes put onto a span of the SDK, where it keeps them.

The SDK looks at each value for what may be wrong with it, which takes most of the time that two dozen of them need.
Ours are plain values by the way they are made, so they are put straight to where the SDK keeps them. That is no public
API: it is done only in versions that were read (`sdk.READ`), to the SDK's own spans, where nobody has replaced their
method, and where nothing is to be cut or dropped. Everywhere else it is `Span.set_attributes`.
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
"""Types that the SDK keeps as they are; the tuples among our attributes hold texts."""


# ruff: noqa: SLF001 - see above


def put(span: Span, attributes: dict[str, AttributeValue]) -> None:
    """Do what `span.set_attributes(attributes)` does, in less time; the names are none that may be empty."""
    if not (_is_sdk(type(span)) and _put(span, attributes)):
        span.set_attributes(attributes)


def _put(span: Any, attributes: dict[str, AttributeValue]) -> bool:
    """Put attributes to those that a span of the SDK keeps; False where the SDK has to do it."""
    # Asked as an attribute: to look into the span's own dictionary would have Python make one, which takes long.
    if not _is_own(span.set_attributes, span):
        return False  # somebody has put another in its place, to look at attributes or to change them
    if not _PLAIN.issuperset(map(type, attributes.values())):
        return False
    kept = span._attributes
    with span._lock:
        if span._end_time is not None or kept.max_value_len is not None:
            return False
        with kept._lock:
            if kept.maxlen is not None and len(kept._dict) + len(attributes) > kept.maxlen:
                return False
            kept._dict.update(attributes)
    return True


def _is_own(method: object, span: object) -> bool:
    return type(method) is MethodType and method.__self__ is span and is_own(method.__func__, _SDK)


@lru_cache(maxsize=16)
def _is_sdk(kind: type) -> bool:
    """Return whether spans of this class are the SDK's own, of a version that was read."""
    return kind.__module__ == _SDK and kind.__qualname__ == "_Span" and is_read()
