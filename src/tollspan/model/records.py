"""The facts that every layer shares: the usage of one HTTP attempt, its cost, and its course.

Three sorts of object, in the order in which they come to be:

- `Facts`: mutable, written by a dialect while the wire speaks. One per attempt, never shared.
- `Billable`: frozen, the input of the price engine. `Cost`: frozen, its output.
- `Call`: frozen, the one record of one attempt. Spans, metrics, counters, budgets and the ledger are views of it.

Conventions, everywhere (docs/explanation/accounting.md): `input` includes cache reads and cache writes, `output`
includes reasoning. None = not reported, 0 = reported as zero. Money is an integer number of atto-dollars (10**-18 USD),
so that sums are exact; `usd()` converts it to a Decimal at the edge.

This module imports the standard library only and does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from tollspan.model.money import Number
    from tollspan.model.refusal import Refusal


Quality = Literal["measured", "provider", "estimated", "floor", "unpriced"]
"""How reliable a figure is: docs/explanation/accounting.md has the table."""

UNCERTAIN: Final = frozenset({"estimated", "floor"})
"""The qualities of inexact figures."""

Outcome = Literal["ok", "error", "aborted", "denied"]
"""How a call ended."""

DENIED: Final = "denied"
"""The outcome of a call that a budget refused."""

Source = Literal["provider", "local"]
"""The origin of a cost: stated in the response, or computed here (semantic-conventions-genai PR 443)."""


def draft_of(record: type[Any]) -> Any:
    """Return a class with the slots of a frozen one, to be set field by field; `draft.__class__ = record` freezes it.

    For the few records that every call makes. The initializer of a frozen dataclass sets each field by a call of
    `object.__setattr__`, which takes eight times as long as an assignment: 6 microseconds for a `Call`, not 1.
    """
    return type(record.__name__, (), {"__slots__": tuple(field.name for field in fields(record))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts and other billable units of one call. Every sub-count lies inside `input` or `output`.

    `units` has the amounts that are billed in other units than tokens, under the names in `UNITS`.
    """

    input: int | None = None
    output: int | None = None
    cache_read: int | None = None
    cache_write: int | None = None
    cache_write_5m: int | None = None
    cache_write_30m: int | None = None
    cache_write_1h: int | None = None
    cache_write_12h: int | None = None
    reasoning: int | None = None
    input_text: int | None = None
    input_audio: int | None = None
    input_image: int | None = None
    input_video: int | None = None
    output_text: int | None = None
    output_audio: int | None = None
    output_image: int | None = None
    output_video: int | None = None
    cache_read_audio: int | None = None
    cache_read_image: int | None = None
    units: Mapping[str, Number] = field(default_factory=dict)


_UsageDraft: Final = draft_of(Usage)


def text_usage(  # noqa: PLR0913 - one argument per count
    *,
    tokens_in: int,
    tokens_out: int,
    cache_read: int | None,
    reasoning: int | None,
    audio_in: int | None,
    audio_out: int | None,
) -> Usage:
    """Return the usage of the usual call, which reports these counts and no others."""
    usage = _UsageDraft()
    usage.input, usage.output = tokens_in, tokens_out
    usage.cache_read, usage.reasoning = cache_read, reasoning
    usage.input_audio, usage.output_audio = audio_in, audio_out
    usage.cache_write = usage.cache_write_5m = usage.cache_write_30m = usage.cache_write_1h = usage.cache_write_12h = (
        None
    )
    usage.input_text = usage.input_image = usage.input_video = None
    usage.output_text = usage.output_image = usage.output_video = None
    usage.cache_read_audio = usage.cache_read_image = None
    usage.units = {}
    usage.__class__ = Usage
    return usage  # type: ignore[no-any-return]


UNITS: Final = frozenset(
    {
        "web_searches",  # searches run by the provider's server-side tool
        "maps_groundings",  # Google Maps grounding queries
        "search_units",  # rerank and search units (Cohere)
        "pages",  # OCR pages
        "annotated_pages",  # OCR pages with annotations
        "input_seconds",  # audio or video sent
        "output_seconds",  # audio or video received
        "input_characters",  # speech synthesis text
        "output_characters",
        "input_images",
        "output_images",
        "output_pixels",
        "queries",  # per-query billing (embeddings, rerank)
        "requests",  # per-request billing
        "citation_tokens",  # Perplexity deep research
        "web_search_previews",  # those by the preview version of OpenAI's tool, which has its own price
        "code_sessions",  # sessions of a container (code interpreter, shell), each counted by its GB of memory
        "file_searches",  # file search tool calls
    }
)
"""The names allowed in `Usage.units`; a unit that is not here is not billable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A part of a call that is billed at its own model's price (Anthropic's `usage.iterations`)."""

    kind: str
    model: str | None
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Billable:
    """The facts of one call that its price depends on.

    Attributes:
        usage: the token counts and units.
        price_providers: LiteLLM provider labels, best first.
        model: the served model.
        request_model: the requested model.
        operation: `gen_ai.operation.name`.
        tier: the served tier, in the provider's own words; `geography` and `speed` likewise.
        region: the cloud region, read from host or path.
        search_context: the size of the search context, of models that are billed by it.
        parts: if there are any, they are priced instead of `usage`.
        provider_cost: the cost that the provider stated, in US dollars.
        upstream_cost: what it states to have charged the customer's own upstream key in addition, in US dollars.
    """

    usage: Usage
    price_providers: tuple[str, ...] = ()
    model: str | None = None
    request_model: str | None = None
    operation: str = "chat"
    tier: str | None = None
    geography: str | None = None
    speed: str | None = None
    region: str | None = None
    search_context: str | None = None
    parts: tuple[Part, ...] = ()
    provider_cost: Decimal | None = None
    upstream_cost: Decimal | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """The cost of a call. Amounts are integers in atto-dollars; None = unpriced, never 0.

    Attributes:
        amount: the cost.
        source: whether the provider stated it, or it was computed.
        quality: how reliable it is.
        currency: always USD.
        breakdown: amounts by usage; they sum to `computed`.
        computed: the computed cost, kept beside a provider-stated `amount`.
        savings: what the cache reads would have cost more at the full input rate, less the surcharge of cache writes.
        low: the lower bound of an uncertain cost.
        high: the upper bound; None = no bound is known.
        price_key: the row of the price table.
        rule: the rule of the price table that applied.
        table_version: the version of the price table.
        missing: what is billed but cannot be seen on the wire.
        note: what was clamped or assumed, in words.
    """

    amount: int | None = None
    source: Source | None = None
    quality: Quality = "unpriced"
    currency: str = "USD"
    breakdown: Mapping[str, int] = field(default_factory=dict)
    computed: int | None = None
    savings: int = 0
    low: int | None = None
    high: int | None = None
    price_key: str | None = None
    rule: str | None = None
    table_version: str | None = None
    missing: tuple[str, ...] = ()
    note: str | None = None


UNPRICED: Final = Cost()


class Facts:
    """The facts of one attempt so far: a dialect writes them, the record is made from them.

    Every field starts as "not reported". `output_seen` becomes true at the first event that carries output of any kind
    (text, reasoning, tool call, audio); `output_events` counts the events of a stream. `pending` is true if the
    provider goes on with the response in the background: it is billed when it is done, which a later request shows.
    """

    __slots__ = (
        "cached_by",
        "choice_count",
        "complete",
        "error_type",
        "finish_reasons",
        "geography",
        "max_output",
        "operation",
        "output_events",
        "output_seen",
        "output_type",
        "parts",
        "pending",
        "previous_response_id",
        "provider_cost",
        "reasoning_level",
        "region",
        "request_model",
        "request_tier",
        "response_id",
        "response_model",
        "scratch",
        "search_context",
        "speed",
        "stream",
        "thinking_budget",
        "tier",
        "upstream_cost",
        "usage",
    )

    def __init__(self, operation: str = "chat") -> None:
        self.operation = operation
        self.request_model: str | None = None
        self.request_tier: str | None = None
        self.stream = False
        self.max_output: int | None = None
        self.choice_count: int | None = None
        self.output_type: str | None = None
        self.reasoning_level: str | None = None
        self.thinking_budget: int | None = None
        self.previous_response_id: str | None = None
        self.response_id: str | None = None
        self.response_model: str | None = None
        self.finish_reasons: list[str] = []
        self.usage: Usage | None = None
        self.parts: tuple[Part, ...] = ()
        self.tier: str | None = None
        self.geography: str | None = None
        self.speed: str | None = None
        self.region: str | None = None
        self.search_context: str | None = None
        self.provider_cost: Decimal | None = None
        self.upstream_cost: Decimal | None = None
        self.error_type: str | None = None
        self.cached_by: str | None = None
        self.complete = False
        self.pending = False
        self.output_seen = False
        self.output_events = 0
        self.scratch: dict[str, object] | None = None


_BillableDraft: Final = draft_of(Billable)


def billable_of(facts: Facts, price_providers: tuple[str, ...], usage: Usage) -> Billable:
    """Return the facts that the price of a call depends on, if it used `usage`."""
    billable = _BillableDraft()
    billable.usage = usage
    billable.price_providers = price_providers
    billable.model = facts.response_model
    billable.request_model = facts.request_model
    billable.operation = facts.operation
    billable.tier = facts.tier
    billable.geography = facts.geography
    billable.speed = facts.speed
    billable.region = facts.region
    billable.search_context = facts.search_context
    billable.parts = facts.parts
    billable.provider_cost = facts.provider_cost
    billable.upstream_cost = facts.upstream_cost
    billable.__class__ = Billable
    return billable  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The record of one HTTP attempt (docs/explanation/architecture.md).

    Times: `started_at` is Unix time in nanoseconds; `duration`, `time_to_first_chunk` and `time_to_first_token` are
    seconds from the sending of the request. `id` identifies the attempt, `operation_id` the caller's logical call,
    which retries share. `resend_count` is None for a first attempt. `outcome` is "ok", "error", "aborted" or "denied".
    `usage_quality` says how reliable the usage is, with or without a price: "measured", "estimated" or "floor".
    `refusal` says why a budget refused a denied call, which was never sent.
    `avoided` is what a response from a cache would have cost, in atto-dollars; its `cost` is 0. `output_most` is the
    most output tokens that a call can have used whose usage was not reported in full; None = no such limit is known.

    `price_labels` and `search_context` are further facts that a price depends on: a call can be repriced with them.

    A response that the provider works on in the background has two records: that of the request, which is `pending` and
    not billable, and that of the later request that finds the response done. The latter bills it, has the operation of
    the former, and names it in `settles`. A response that its process never fetches stays pending. A batch has a
    pending record in the same way; each of its results, once they are downloaded, is a call that settles it.
    """

    id: str
    operation_id: str
    provider: str
    operation: str
    started_at: int
    duration: float
    outcome: Outcome = "ok"
    request_model: str | None = None
    response_model: str | None = None
    response_id: str | None = None
    finish_reasons: tuple[str, ...] = ()
    stream: bool = False
    server_address: str | None = None
    server_port: int | None = None
    http_status: int | None = None
    error_type: str | None = None
    resend_count: int | None = None
    time_to_first_chunk: float | None = None
    time_to_first_token: float | None = None
    usage: Usage | None = None
    usage_quality: Quality = "measured"
    output_most: int | None = None
    cost: Cost = UNPRICED
    avoided: int | None = None
    tier: str | None = None
    geography: str | None = None
    speed: str | None = None
    region: str | None = None
    search_context: str | None = None
    price_labels: tuple[str, ...] = ()
    parts: tuple[Part, ...] = ()
    cached_by: str | None = None
    billable: bool = True
    pending: bool = False
    settles: str | None = None
    trace_id: str | None = None
    span_id: str | None = None
    attribution: Mapping[str, str] = field(default_factory=dict)
    refusal: Refusal | None = None

    @property
    def model(self) -> str | None:
        """Return the served model, or the requested one if the provider did not state it."""
        return self.response_model or self.request_model

    @property
    def counted(self) -> Literal["calls", "denied", "failed", "pending"]:
        """Return the sum that this record is counted in, everywhere: completed calls, denied, failed or pending ones.

        A pending record leaves its sum when another one settles it. A denied call has not failed: it was never sent.
        """
        if self.billable:
            return "calls"
        if self.pending:
            return "pending"
        return "denied" if self.outcome == DENIED else "failed"
