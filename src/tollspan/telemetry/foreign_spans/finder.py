"""Which span owns a request that is about to be sent: `OwnerFinder.find(operation, model)`.

An owner is searched in four places, the most certain first: the current span and its ancestors; the object that
`opentelemetry-util-genai` puts into the context; spans of known emitters that were started in this task and have not
ended (OpenLLMetry's and LangChain's are never made current); and spans that were started for this request in another
thread. The last two are guesses, so they must fit: the same model, and no other attempt of that span is running.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from opentelemetry.context import get_current

from tollspan.telemetry.foreign_spans.callers import run_span
from tollspan.telemetry.foreign_spans.emitters import attributes_of, emitter, models_of, scope_of
from tollspan.telemetry.foreign_spans.genai_context import invocation
from tollspan.telemetry.foreign_spans.registry import NO_SPAN, is_foreign_inference, parent_id

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import Span as SdkSpan

    from tollspan.telemetry.foreign_spans.foreign_span import ForeignSpan
    from tollspan.telemetry.foreign_spans.held import HeldRecords
    from tollspan.telemetry.foreign_spans.metered import MeteredCalls
    from tollspan.telemetry.foreign_spans.registry import SpanRegistry

_UTIL_GENAI: Final = emitter("opentelemetry.instrumentation.genai.").metrics


class OwnerFinder:
    """Finds the owners of requests among the open spans."""

    def __init__(self, spans: SpanRegistry, metered: MeteredCalls, held: HeldRecords) -> None:
        self._spans = spans
        self._metered = metered
        self._held = held

    def find(self, operation: str, model: str | None, earlier: ForeignSpan | None = None) -> ForeignSpan | None:
        """Return the owner of a request for `model` that is about to be sent from here; None if the span is ours.

        All other open inferences around the request are covered by the owner from now on. `earlier` is the owner of
        the attempt that this one repeats.
        """
        spans = self._spans
        if not (get_current() or spans.started_here() or spans.unattached):
            return self._held.awaited(earlier)  # nothing is around this request
        data = invocation(operation)
        chain = list(spans.chain())
        around = [span for span in spans.inferences(chain) if (chain and span is chain[0]) or self._fits(span, model)]
        if spans.unattached and not (around and spans.owner_of(around[0].context.span_id) is not None):
            around += self._from_other_threads(chain, around, model, earlier)
        for span in around[1:]:
            self._metered.cover(span.context.span_id)
        if not around and data is None:
            return self._held.awaited(earlier)
        metrics: frozenset[str] = _UTIL_GENAI if data is not None else frozenset()
        return spans.claim(
            around[0] if around else None, data, metrics.union(*(emitter(scope_of(span)).metrics for span in around))
        )

    def takes_all(self) -> bool:
        """Return whether instrumentation is suppressed here only because an inference has its span already.

        Logfire suppresses all others under its spans, so that there is one. tollspan completes that span and adds none.
        """
        inner = next(self._spans.chain(), None)
        return inner is not None and is_foreign_inference(inner) and emitter(scope_of(inner)).suppresses

    def _from_other_threads(
        self, chain: list[SdkSpan], around: list[SdkSpan], model: str | None, earlier: ForeignSpan | None
    ) -> list[SdkSpan]:
        """Return the one inference around this request that was started in another thread, if there is one.

        LangChain names the run that sends the request. Without a run it is the oldest candidate that has no request
        yet.
        """
        run = run_span()
        of_run = None if run is None else self._spans.unattached.get(run.get_span_context().span_id)
        if of_run is not None and of_run.is_recording():
            return [] if any(span is of_run for span in around) else [of_run]
        here = {span.context.span_id for span in chain} | {parent_id(chain[-1]) if chain else NO_SPAN}
        known = {span.context.span_id for span in around}
        candidates = list(self._spans.unattached.values())
        if earlier is not None and earlier.span is not None:
            candidates.insert(0, earlier.span)
        for span in candidates:
            identity = span.context.span_id
            if identity in known or self._metered.is_covered(identity) or not span.is_recording():
                continue
            if self._spans.tree_parent(span) in here and is_foreign_inference(span) and self._fits(span, model):
                return [span]
        return []

    def _fits(self, span: SdkSpan, model: str | None) -> bool:
        """Return whether a span that is not current can be the one around this request."""
        owner = self._spans.owner_of(span.context.span_id)
        if owner is not None and not owner.available:
            return False
        named = [name for name in models_of(attributes_of(span)) if name is not None]
        return model is None or not named or any(_is_same_model(model, name) for name in named)


def _is_same_model(one: str, other: str) -> bool:
    """Return whether two names mean one model: one may have a date at its end, or the provider before it."""
    one, other = one.rpartition("/")[2], other.rpartition("/")[2]
    return one.startswith(other) or other.startswith(one)
