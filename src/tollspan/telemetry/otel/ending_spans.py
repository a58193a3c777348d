"""Spans of other emitters that are about to end: `EndingSpanProcessor.ending(span)`, and `write(span, attributes)`.

The SDK calls `_on_ending` of every processor before any `on_end`, so attributes written there are seen by every
exporter, whatever the order of registration. But `Span.end()` freezes the attributes before that
(https://github.com/open-telemetry/opentelemetry-python/issues/5614): until that is fixed, the freeze is lifted for the
moment of writing. In SDKs before 1.40, which have no `_on_ending`, and in versions that were not read, the span's own
`end` is wrapped instead, which uses public methods only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from opentelemetry.sdk.trace import SpanProcessor

from tollspan.telemetry.otel.sdk_versions import is_read

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span
    from opentelemetry.util.types import AttributeValue

_HAS_ENDING: Final = hasattr(SpanProcessor, "_on_ending") and is_read()


class EndingSpanProcessor(SpanProcessor):
    """A span processor whose `ending` is called with each span that is about to end."""

    def __init_subclass__(cls) -> None:
        """Let the SDK call `ending` itself, if it reports spans that are about to end."""
        super().__init_subclass__()
        if _HAS_ENDING:
            cls._on_ending = cls.ending  # type: ignore[assignment, method-assign]

    def on_start(self, span: Span, parent_context: Context | None = None) -> None:  # noqa: ARG002 - the SDK's signature
        """Wrap the span's `end`, in an SDK that does not report spans that are about to end."""
        if not _HAS_ENDING:
            before_end(span, self.ending)

    def ending(self, span: Span) -> None:
        """Handle a span before any processor's `on_end`; `write()` can still set attributes on it."""
        raise NotImplementedError


def write(span: Any, attributes: Mapping[str, AttributeValue]) -> None:
    """Set attributes on a span that is ending; lift the freeze of the SDK if it has frozen them already.

    Raises:
        AttributeError: the SDK keeps the attributes in another way than the versions that were read.
        TypeError: the same.
    """
    if not attributes:
        return
    if span.is_recording():
        span.set_attributes(attributes)
        return
    bounded = span._attributes  # noqa: SLF001 - see the module's text
    frozen = bounded._immutable  # noqa: SLF001 - the same
    bounded._immutable = False  # noqa: SLF001 - the same
    try:
        for name, value in attributes.items():
            bounded[name] = value
    finally:
        bounded._immutable = frozen  # noqa: SLF001 - the same


def before_end(span: Any, action: Callable[[Any], None]) -> None:
    """Call `action` with a span, still open, when its emitter ends it."""
    end = span.end

    def ending(end_time: int | None = None) -> None:
        vars(span).pop("end", None)  # the span and this function refer to each other: only until here
        if span.is_recording():
            action(span)
        end(end_time)

    span.end = ending
