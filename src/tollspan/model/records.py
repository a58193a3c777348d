"""The facts every layer speaks: what one HTTP attempt used, what it cost, how it went.

Three kinds of object, in the order in which they come to be:

- `Facts`: mutable, filled by a dialect while the wire speaks. One per attempt, never shared.
- `Billable`: frozen, what the price engine is given.  `Cost`: frozen, what it gives back.
- `Call`: frozen, the one record of one attempt. Spans, metrics, counters, budgets and ledger are views of it.

Conventions, everywhere (design.md, rule 2): `input` includes cache reads and cache writes, `output`
includes reasoning. None = not reported, 0 = reported zero. Money is an integer number of atto-dollars
(10**-18 USD), so that sums are exact; `usd()` turns it into a Decimal at the edge.

This module imports the standard library only and does no I/O.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any, Final, Literal

if TYPE_CHECKING:
    from collections.abc import Mapping
    from decimal import Decimal

    from tollspan.model.money import Number


Quality = Literal["measured", "provider", "estimated", "floor", "unpriced"]
"""How good a figure is: see the table in design.md, "The one record"."""

UNCERTAIN: Final = frozenset({"estimated", "floor"})
"""The qualities of a figure that is no exact one."""

Source = Literal["provider", "local"]
"""Where a cost comes from: stated in the response, or computed here (semantic-conventions-genai PR 443)."""


def draft_of(kind: type[Any]) -> Any:
    """Return a class with the slots of a frozen one, to be written field by field; `made.__class__ = kind` freezes it.

    For the few records that every call makes. The initialiser of a frozen dataclass sets each field by a call of
    `object.__setattr__`, which takes eight times as long as an assignment: 6 microseconds for a `Call`, not 1.
    """
    return type(kind.__name__, (), {"__slots__": tuple(field.name for field in fields(kind))})


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """Token counts and other billable units of one call. Every sub-count lies inside `input` or `output`.

    `units` holds what is billed by something else than tokens, under the names in `UNITS`.
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
        "code_sessions",  # code interpreter sessions
        "file_searches",  # file search tool calls
    }
)
"""Names allowed in `Usage.units`; a count whose unit is not here is not billable."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """A pass inside a call that is billed at its own model's price (Anthropic `usage.iterations`)."""

    kind: str
    model: str | None
    usage: Usage


@dataclass(frozen=True, slots=True, kw_only=True)
class Billable:
    """What the price engine needs to know of one call.

    `price_providers` are LiteLLM provider labels, best first; `model` is the served model, `request_model` the one
    asked for. `tier`, `geography`, `speed` are the provider's own words, as served; `region` is the cloud region
    read from host or path. `parts` replace `usage` in the price where there are any. `provider_cost` is the cost the
    provider stated, `upstream_cost` what it says one's own key was charged on top (both US dollars).
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
    """What a call cost. Amounts are integers in atto-dollars; None = unpriced, never 0.

    `breakdown` sums to `computed`; `computed` is kept beside a provider-stated `amount`. `savings` is what the cache
    reads would have cost more at the full input rate, less what the cache writes cost extra. `missing` names what is
    billed but cannot be seen on the wire; `note` says in words what was clamped or assumed.
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
    """What the wire has said so far of one attempt: a dialect writes it, the record is made from it.

    Every field starts at "not said". `output_seen` turns true at the first event that carries output of any kind
    (text, reasoning, tool call, audio); `output_events` counts the events of a stream. `pending` is true where the
    provider goes on with the response by itself: it is billed when it is done, which a later request tells.
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
    """Return what the price engine needs to know of a call, if it used `usage`."""
    made = _BillableDraft()
    made.usage = usage
    made.price_providers = price_providers
    made.model = facts.response_model
    made.request_model = facts.request_model
    made.operation = facts.operation
    made.tier = facts.tier
    made.geography = facts.geography
    made.speed = facts.speed
    made.region = facts.region
    made.search_context = facts.search_context
    made.parts = facts.parts
    made.provider_cost = facts.provider_cost
    made.upstream_cost = facts.upstream_cost
    made.__class__ = Billable
    return made  # type: ignore[no-any-return]


@dataclass(frozen=True, slots=True, kw_only=True)
class Call:
    """The record of one HTTP attempt (design.md, "The one record").

    Times: `started_at` is Unix time in nanoseconds; `duration`, `time_to_first_chunk` and `time_to_first_token` are
    seconds from the sending of the request. `id` names the attempt, `operation_id` the caller's logical call that its
    retries share. `resend_count` is None for a first attempt. `outcome` is "ok", "error", "aborted" or "denied".
    `usage_quality` says how good the usage is, whether or not it has a price: "measured", "estimated" or "floor".
    `avoided` is what an answer out of a cache would have cost, in atto-dollars; its `cost` is 0.

    `price_labels` and `search_context` are what a price depends on besides: with them a call can be priced again.

    A response that the provider works on in the background has two records: that of the request, which is `pending` and
    not billable, and that of the later request which found the response done. The latter bills it, has the operation of
    the former, and names it in `settles`. What is never fetched in the process that asked for it stays pending. A batch
    has a pending record in the same way, and each of its results, once they are downloaded, is a call that settles it.
    """

    id: str
    operation_id: str
    provider: str
    operation: str
    started_at: int
    duration: float
    outcome: Literal["ok", "error", "aborted", "denied"] = "ok"
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

    @property
    def model(self) -> str | None:
        """Return the served model, or the one asked for where the provider did not say."""
        return self.response_model or self.request_model

    @property
    def counted(self) -> Literal["calls", "failed", "pending"]:
        """Return the sum that this record is counted in, everywhere: what was answered, what was not, what will be.

        A pending record leaves its sum when another one settles it.
        """
        if self.billable:
            return "calls"
        return "pending" if self.pending else "failed"
