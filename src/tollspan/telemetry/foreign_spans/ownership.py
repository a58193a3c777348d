"""Whose span a call is: another emitter's inference span that is under way when a request is sent, or one of our own.

The theory. An application may have other instrumentation: an SDK's own spans, an instrumentor around it, a framework
around that. Each of those that has an inference span under way when we see the request has seen the same call. So:

- The innermost of them *owns* the call. We complete its span (what it lacks, the cost included) and add none.
- The others are *covered*: their spans are outside of the owner's, and are never priced when they end.
- Attempts of one operation add up on their owner: its cost is the sum of theirs.
- Each of them records some of the conventions' metrics; those are not recorded again.

Who has a span under way is found in four places, surest first: the current span and its ancestors; the object that
`opentelemetry-util-genai` puts into the context; spans of known emitters that were started in this task and have not
ended (OpenLLMetry's and LangChain's are never made current); and, when a span ends, the id of the response that it
names. The last two are guesses, so they must fit: the same model, and no other attempt of that span's under way.

OpenLLMetry starts its span around OpenAI's Responses when the answer is there. Its wrapper is on the stack before that
(`callers.py`), so we wait for that span: what we have to say is held, and the span takes it. If none has come when the
next call begins `PATIENCE` later, or at a flush, or at the end, we write one of our own.

Spans that a sampler drops are not seen here. Ours is then dropped with them, for it is their child.
"""

from __future__ import annotations

import atexit
import sys
import threading
from collections import OrderedDict
from contextvars import ContextVar
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any, Final, Protocol
from weakref import WeakValueDictionary

from opentelemetry.context import get_current, get_value, set_value
from opentelemetry.trace import NonRecordingSpan, get_current_span, set_span_in_context

from tollspan.runtime.forking import renew_in_child
from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.callers import belated, run_span
from tollspan.telemetry.foreign_spans.emitters import (
    SCOPE,
    attributes_of,
    emitter,
    has_counts,
    is_inference,
    may_be_inference,
    models_of,
)
from tollspan.telemetry.spans import Attributes, end_attributes

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from opentelemetry.context import Context
    from opentelemetry.sdk.trace import Span as SdkSpan
    from opentelemetry.trace import Span
    from opentelemetry.util.types import AttributeValue

    from tollspan.model.records import Call, Cost
    from tollspan.telemetry.foreign_spans.emitters import Belated

REMEMBERED: Final = 10_000
"""Span ids and response ids remembered after the fact: what is older has long been exported."""
_STARTED_KEPT: Final = 16
"""Unfinished spans remembered per task: how deep emitters nest, and more."""
PATIENCE: Final = 5.0
"""Seconds for which a call waits for the span of an emitter that starts it when the answer is there."""


class Settling(Protocol):
    """An attempt, as far as its owner has to know it."""

    def settle(self) -> None:
        """Read what was handed to the application, and end if that was all of it."""

    @property
    def response_id(self) -> str | None:
        """Return the response's id, as far as it has been read."""


class ForeignSpan:
    """Another emitter's unfinished inference, and the attempts that are its."""

    __slots__ = (
        "_cost",
        "_lock",
        "_pending",
        "_said",
        "_settling",
        "attempts",
        "belated",
        "billed",
        "context",
        "data",
        "metrics",
        "span",
    )

    def __init__(
        self, span: SdkSpan | None, data: Any, metrics: frozenset[str], belated: Belated | None = None
    ) -> None:
        """Hold `span`, util-genai's `data`, and the `metrics` that it records.

        Where there is no span, the context alone tells of it, or it is `belated`: it starts when the answer is there.
        """
        self.span = span
        self.belated = belated
        self.data = data
        self.metrics = metrics
        self.context: Context = get_current() if span is None else set_span_in_context(span)
        self.attempts: dict[int, Settling] = {}
        self.billed = 0
        self._settling = False
        self._cost: Cost | None = None
        self._pending: Attributes = {}
        self._said: Attributes = {}
        self.fresh()

    def fresh(self) -> None:
        """Take a new lock, as `SpanRegistry` does in a forked child."""
        self._lock = threading.RLock()

    @property
    def later(self) -> bool:
        """Return whether the emitter reports a stream's usage on another span, after this one has ended."""
        return self.span is not None and emitter(_scope(self.span)).later

    @property
    def comes(self) -> bool:
        """Return whether the span is still to be started."""
        return self.belated is not None and self.span is None

    def face(self) -> Span:
        """Return the span to speak to while an attempt is under way."""
        if self.span is not None:
            return self.span
        return get_current_span() if self.belated is None else _PlaceholderSpan(self._said)

    @property
    def free(self) -> bool:
        """Return whether another attempt of this operation can begin: none is under way, none has been answered."""
        return not self.attempts and not self.billed

    def add(self, call: Call, *, aliases: bool) -> bool:
        """Put an ended attempt on the span; give whether it could still take it."""
        with self._lock:
            if call.billable:
                self.billed += 1
                self._cost = call.cost if self._cost is None else together(self._cost, call.cost)
            whole = replace(call, cost=self._cost or call.cost, billable=self.billed > 0)
            attributes = end_attributes(whole, aliases=aliases)
            if self.billed > 1:
                attributes[names.ATTEMPTS] = self.billed
            self._pending = attributes = {**self._said, **attributes}
        if self.data is not None:
            _fill(self.data, call, {} if self.span is not None else attributes)
        if self.span is None:
            return self.data is not None
        if self.span.is_recording():
            # Ours at once, under names that are nobody else's; the rest when the emitter has said what it knows.
            self.span.set_attributes({name: value for name, value in attributes.items() if _is_ours(name)})
            return True
        return self._settling

    def settle(self) -> None:
        """End the attempts that are complete: the span is about to end, and takes what `missing()` then gives."""
        self._settling = True
        try:
            for attempt in tuple(self.attempts.values()):
                attempt.settle()
        finally:
            self._settling = False

    def missing(self) -> Attributes:
        """Return what the span, which is about to end, lacks."""
        with self._lock:
            if self.span is None or not self._pending:
                return {}
            has = attributes_of(self.span)
            tokens = has_counts(has)
            return {
                name: value
                for name, value in self._pending.items()
                if name not in has and not (tokens and name.startswith("gen_ai.usage.") and not _is_ours(name))
            }


class _PlaceholderSpan(NonRecordingSpan):
    """Stands where a span is not yet: in the trace that is current, keeping what it is told."""

    def __init__(self, said: Attributes) -> None:
        super().__init__(get_current_span().get_span_context())
        self._said = said

    def set_attribute(self, key: str, value: AttributeValue) -> None:
        self._said[key] = value


def _is_ours(name: str) -> bool:
    return name.startswith(("tollspan.", "gen_ai.usage.cost"))


_WORST: Final = ("measured", "provider", "estimated", "floor", "unpriced")


def together(one: Cost, other: Cost) -> Cost:
    """Return the cost of two attempts: amounts add up; it is as good as the worse, a floor where only one has a price.

    The latter attempt's price key, rule and table are kept: they are of one operation, and so of one model.
    """
    if one.amount is None or other.amount is None:
        known = one if other.amount is None else other
        return known if known.amount is None else replace(known, quality="floor")
    kinds = dict.fromkeys([*one.breakdown, *other.breakdown])
    return replace(
        other,
        amount=one.amount + other.amount,
        source="provider" if one.source == other.source == "provider" else "local",
        quality=max(one.quality, other.quality, key=_WORST.index),
        breakdown={kind: one.breakdown.get(kind, 0) + other.breakdown.get(kind, 0) for kind in kinds},
        computed=None if one.computed is None or other.computed is None else one.computed + other.computed,
        savings=one.savings + other.savings,
        low=_sum(one, other, "low"),
        high=_sum(one, other, "high"),
        missing=tuple(dict.fromkeys((*one.missing, *other.missing))),
        note=other.note or one.note,
    )


def _sum(one: Cost, other: Cost, field: str) -> int | None:
    """Add a bound of two costs; the bound of a cost that has none is its amount."""
    bounds = [getattr(cost, field) for cost in (one, other)]
    if bounds == [None, None]:
        return None
    return sum(cost.amount or 0 if bound is None else bound for cost, bound in zip((one, other), bounds, strict=True))


# --- The context of opentelemetry-util-genai

_KEYS: Final = {"embeddings": (names.EMBEDDING_CONTEXT, "EmbeddingData")}
_INFERENCE: Final = (names.INFERENCE_CONTEXT, "InferenceData")
_GENAI: Final = "opentelemetry.util.genai.invocation"
_FILLED: Final = (
    ("input", "usage_input_tokens"),
    ("output", "usage_output_tokens"),
    ("cache_read", "usage_cache_read_input_tokens"),
    ("cache_write", "usage_cache_write_input_tokens"),
    ("reasoning", "usage_reasoning_output_tokens"),
    ("input_audio", "usage_audio_input_tokens"),
    ("output_audio", "usage_audio_output_tokens"),
    ("input_image", "usage_image_input_tokens"),
    ("output_image", "usage_image_output_tokens"),
)


def _fill(data: Any, call: Call, attributes: Attributes) -> None:
    """Tell the outer invocation what the wire said; it takes what it does not know itself.

    The cost is only among `attributes` where the outer span could not be given it: it is on one span.
    """
    said: dict[str, Any] = {"response_id": call.response_id, "response_model": call.response_model}
    if call.finish_reasons:
        said["response_finish_reasons"] = list(call.finish_reasons)
    if call.usage is not None:
        said.update({field: getattr(call.usage, ours) for ours, field in _FILLED})
    for field, value in said.items():
        if value is not None and hasattr(data, field):
            setattr(data, field, value)
    data.attributes.update({name: value for name, value in attributes.items() if _is_ours(name)})


def published(context: Context, operation: str) -> Context:
    """Return `context` with an object for other emitters under util-genai's key, so that they add no span to ours.

    They look for their own class, so there is nobody to tell where util-genai is not loaded.
    """
    key, kind = _KEYS.get(operation, _INFERENCE)
    make = getattr(sys.modules.get(_GENAI), kind, None)
    if make is None:
        return context
    data = make()
    setattr(data, _OURS, True)
    return set_value(key, data, context)


_OURS: Final = "tollspan_published"
"""Marks our objects, for a request that is sent on under the same key."""


# --- Finding the owner


class SpanRegistry:
    """What is known of the spans under way in this process; safe under threads.

    Fed by `TollspanCostProcessor`. Where there is none (no SDK), the current span alone is looked at.
    """

    def __init__(self) -> None:
        """Know of no span."""
        self._live: WeakValueDictionary[int, SdkSpan] = WeakValueDictionary()
        self._started: ContextVar[tuple[int, ...]] = ContextVar("tollspan_started_spans", default=())
        self._elsewhere: WeakValueDictionary[int, SdkSpan] = WeakValueDictionary()
        self._owners: OrderedDict[int, ForeignSpan] = OrderedDict()
        self._covered: OrderedDict[int, None] = OrderedDict()
        self._responses: OrderedDict[str, Call | None] = OrderedDict()
        self._coming: ContextVar[ForeignSpan | None] = ContextVar("tollspan_belated_span", default=None)
        self._watching_exit = False
        self._fresh()
        renew_in_child(self, SpanRegistry._fresh)

    def _fresh(self) -> None:
        """Take new locks: the threads that held them do not live in a forked child; what is held is the parent's."""
        self._lock = threading.RLock()
        self._held: dict[int, _Held] = {}
        self._ours: dict[int, SdkSpan] = {}  # these, and the attempts, always come to an end: no weak reference needed
        self._attempts: dict[int, Settling] = {}
        for owner in self._owners.values():
            owner.fresh()

    # Spans come and go

    def started(self, span: SdkSpan) -> None:
        """Take note of a span that has started."""
        identity = span.context.span_id
        if _scope(span) == SCOPE:
            self._ours[identity] = span
            return
        self._live[identity] = span
        if may_be_inference(span, _scope(span)):
            earlier = tuple(other for other in self._started.get() if other in self._live)
            self._started.set((*earlier[1 - _STARTED_KEPT :], identity))
            known = emitter(_scope(span))
            if known.elsewhere:
                self._elsewhere[identity] = span
            if known.belated is not None:
                self._arrived(span)

    def ended(self, identity: int) -> ForeignSpan | None:
        """Forget a span; give its owner's record, where it owned attempts."""
        if self._ours.pop(identity, None) is not None:
            return None
        self._live.pop(identity, None)
        if self._elsewhere:
            self._elsewhere.pop(identity, None)
        return self._owners.pop(identity, None) if self._owners else None

    def owner_of(self, identity: int) -> ForeignSpan | None:
        """Return the record of a span that owns attempts."""
        return self._owners.get(identity)

    # A request is about to be sent

    def find(self, operation: str, model: str | None, earlier: ForeignSpan | None = None) -> ForeignSpan | None:
        """Return the owner of a request for `model` that is about to be sent from here, or None: then it is ours.

        Whatever other inference is under way around it is remembered as covered by it. `earlier` is the owner of the
        attempt that this one repeats.
        """
        if not (get_current() or self._started.get() or self._elsewhere):
            return self._awaited(earlier)  # nothing is around this request
        data = get_value(_KEYS.get(operation, _INFERENCE)[0])
        data = data if hasattr(data, "metric_attributes") and not hasattr(data, _OURS) else None
        chain = list(self._chain())
        around = [span for span in self._around(chain) if (chain and span is chain[0]) or self._fits(span, model)]
        if self._elsewhere and not (around and around[0].context.span_id in self._owners):
            around += self._from_elsewhere(chain, around, model, earlier)
        for span in around[1:]:
            self.cover(span.context.span_id)
        if not around and data is None:
            return self._awaited(earlier)
        metrics: frozenset[str] = _UTIL_GENAI if data is not None else frozenset()
        return self._claim(
            around[0] if around else None, data, metrics.union(*(emitter(_scope(span)).metrics for span in around))
        )

    def _awaited(self, earlier: ForeignSpan | None) -> ForeignSpan | None:
        """Return the owner whose span will start when the answer is there, where its emitter is sending this."""
        if self._held:
            self.release(PATIENCE)
        coming = belated()
        if coming is None:
            return None
        owner = earlier if earlier is not None and earlier.comes else ForeignSpan(None, None, frozenset(), coming)
        self._coming.set(owner)
        return owner

    def _arrived(self, span: SdkSpan) -> None:
        """Return a belated span that has just started to the owner that waits for it in this task."""
        owner = self._coming.get()
        if owner is None or owner.belated is None or owner.belated.name != span.name or owner.span is not None:
            return
        owner.span = span
        self._coming.set(None)
        held = self._held.pop(id(owner), None)
        for call, _ in held.calls if held is not None else ():
            self.metered(call, placed=True)
        with self._lock:
            _remember(self._owners, span.context.span_id, owner)

    def hold(self, owner: ForeignSpan, call: Call, write: Callable[[], None]) -> None:
        """Keep an ended attempt until its owner's span comes; `write` makes a span of our own, if none does."""
        with self._lock:
            held = self._held.setdefault(id(owner), _Held(owner, monotonic()))
            held.calls.append((call, write))
        if not self._watching_exit:
            self._watching_exit = True
            atexit.register(self.release)  # later than the SDK's own, and so it runs before that

    def release(self, patience: float = 0.0) -> None:
        """Write the spans of attempts that have waited for their owner's longer than `patience` seconds."""
        oldest = monotonic() - patience
        with self._lock:
            late = [key for key, held in self._held.items() if held.since <= oldest]
            calls = [pair for key in late for pair in self._held.pop(key).calls]
        for call, write in calls:
            if call.response_id is None or self.unplaced(call.response_id) is not None:
                write()

    def _around(self, chain: list[SdkSpan]) -> list[SdkSpan]:
        """Return the inferences under way, innermost first: the current span and its ancestors, then the others."""
        known = {span.context.span_id for span in chain}
        others = (self._live.get(identity) for identity in reversed(self._started.get()) if identity not in known)
        unfinished = (span for span in others if span is not None and span.is_recording())
        return [span for span in (*chain, *unfinished) if _is_foreign_inference(span)]

    def _from_elsewhere(
        self, chain: list[SdkSpan], around: list[SdkSpan], model: str | None, earlier: ForeignSpan | None
    ) -> list[SdkSpan]:
        """Return the one inference that may be around this request and was started in another thread, if there is any.

        LangChain tells which run sends this. Otherwise it is, of several, the oldest that has no request yet.
        """
        run = run_span()
        told = None if run is None else self._elsewhere.get(run.get_span_context().span_id)
        if told is not None and told.is_recording():
            return [] if any(span is told for span in around) else [told]
        here = {span.context.span_id for span in chain} | {_parent_id(chain[-1]) if chain else _NOWHERE}
        known = {span.context.span_id for span in around}
        candidates = list(self._elsewhere.values())
        if earlier is not None and earlier.span is not None:
            candidates.insert(0, earlier.span)
        for span in candidates:
            identity = span.context.span_id
            if identity in known or identity in self._covered or not span.is_recording():
                continue
            if self._hangs_on(span) in here and _is_foreign_inference(span) and self._fits(span, model):
                return [span]
        return []

    def takes_all(self) -> bool:
        """Return whether instrumentation is suppressed here only because an inference has its span already.

        Logfire suppresses all others under its spans, so that there is one. That holds without us: we complete it.
        """
        inner = next(self._chain(), None)
        return inner is not None and _is_foreign_inference(inner) and emitter(_scope(inner)).suppresses

    def _claim(self, span: SdkSpan | None, data: Any, metrics: frozenset[str]) -> ForeignSpan:
        # What no span is known of is remembered by the object in the context, which the record keeps alive.
        identity = -id(data) if span is None else span.context.span_id
        with self._lock:
            owner = self._owners.get(identity)
            if owner is None:
                owner = ForeignSpan(span, data, metrics)
                _remember(self._owners, identity, owner)
            return owner

    def _chain(self) -> Iterator[SdkSpan]:
        """Return the current span and its ancestors, as far as they are of this process and have not ended."""
        span: Any = get_current_span()
        # Emitters wrap spans in objects of their own: the id leads to the SDK's.
        found = self._known(span.get_span_context().span_id)
        if found is None and span.is_recording() and hasattr(span, "attributes") and hasattr(span, "context"):
            found = span
        if found is not None:
            yield found
            yield from self._above(found)

    def _known(self, identity: int) -> SdkSpan | None:
        return self._ours.get(identity) or self._live.get(identity)

    def _hangs_on(self, span: SdkSpan) -> int:
        """Return the id of the span on which an emitter's own tree of spans hangs."""
        scope, top = _scope(span), span
        for outer in self._above(span):
            if _scope(outer) != scope:
                break
            top = outer
        return _parent_id(top)

    def _above(self, span: SdkSpan) -> Iterator[SdkSpan]:
        parent = span.parent
        while parent is not None and (outer := self._known(parent.span_id)) is not None:
            yield outer
            parent = outer.parent

    def _fits(self, span: SdkSpan, model: str | None) -> bool:
        """Return whether a span that is not current can be the one around this request."""
        owner = self._owners.get(span.context.span_id)
        if owner is not None and not owner.free:
            return False
        named = [name for name in models_of(attributes_of(span)) if name is not None]
        return model is None or not named or any(_same(model, name) for name in named)

    # An attempt has ended, or a span is about to

    def cover(self, identity: int) -> None:
        """Remember that what a span reports was metered elsewhere."""
        _remember(self._covered, identity, None)

    def is_covered(self, identity: int) -> bool:
        """Return whether what a span reports was metered elsewhere."""
        return identity in self._covered

    def cover_ancestors(self, span: Any) -> None:
        """Remember that what the ancestors of a span report is the span's."""
        for outer in self._above(span):
            self.cover(outer.context.span_id)

    def metered(self, call: Call, *, placed: bool) -> None:
        """Remember the call by its response; `placed` tells whether its cost is on a span already."""
        if call.response_id is not None:
            with self._lock:
                _remember(self._responses, call.response_id, None if placed else call)

    def begun(self, attempt: Settling) -> None:
        """Take note of an attempt that is under way."""
        self._attempts[id(attempt)] = attempt

    def over(self, attempt: Settling) -> None:
        """Forget an attempt that has ended."""
        self._attempts.pop(id(attempt), None)

    def told(self, response_id: str) -> None:
        """Remember a response that a span told of and that is priced there: other spans may tell of it again."""
        with self._lock:
            _remember(self._responses, response_id, None)

    def is_metered(self, response_id: str) -> bool:
        """Return whether the response with this id is metered or priced already, or is coming over a hooked client."""
        if response_id in self._responses:
            return True
        for attempt in list(self._attempts.values()):
            if attempt.response_id == response_id:
                attempt.settle()
                return True
        return False

    def unplaced(self, response_id: str) -> Call | None:
        """Return the call whose cost no span has taken yet, once."""
        with self._lock:
            call = self._responses.get(response_id)
            _remember(self._responses, response_id, None)
            return call


class _Held:
    """What waits for an owner's span, and since when; it keeps the owner, so that no other has its id."""

    __slots__ = ("calls", "owner", "since")

    def __init__(self, owner: ForeignSpan, since: float) -> None:
        self.owner = owner
        self.since = since
        self.calls: list[tuple[Call, Callable[[], None]]] = []


_UTIL_GENAI: Final = emitter("opentelemetry.instrumentation.genai.").metrics


def _remember(memory: OrderedDict[Any, Any], key: Any, value: Any) -> None:
    memory[key] = value
    while len(memory) > REMEMBERED:
        memory.popitem(last=False)


def _is_foreign_inference(span: SdkSpan) -> bool:
    scope = _scope(span)
    return scope != SCOPE and is_inference(attributes_of(span), scope, span.name)


_NOWHERE: Final = 0  # the id of no span


def _parent_id(span: SdkSpan) -> int:
    return span.parent.span_id if span.parent is not None else _NOWHERE


def _scope(span: Any) -> str:
    scope = span.instrumentation_scope
    return scope.name if scope is not None else ""


def _same(one: str, other: str) -> bool:
    """Return whether two names are of one model: one may be dated, or have the provider in front."""
    one, other = one.rpartition("/")[2], other.rpartition("/")[2]
    return one.startswith(other) or other.startswith(one)


SPANS: Final = SpanRegistry()
"""The one of this process, as the hook is."""
