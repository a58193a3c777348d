"""Price a usage, or estimate a call before it is made."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tollspan.model.records import Billable, Call, Cost, Usage
from tollspan.prices import price
from tollspan.settings import load
from tollspan.setup.instrument import current
from tollspan.setup.prices import price_source
from tollspan.setup.providers import active_providers
from tollspan.tokens.estimates import input_tokens
from tollspan.tokens.model_families import family_of
from tollspan.wire.providers import COMPATIBLE

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from tollspan.prices import PriceTable
    from tollspan.tokens.prompting import Prompting
    from tollspan.wire.providers import Directory, Provider


def cost_of(  # noqa: PLR0913 - what a price depends on
    model: str,
    usage: Usage,
    *,
    provider: str,
    at: datetime | None = None,
    tier: str | None = None,
    geography: str | None = None,
    speed: str | None = None,
    region: str | None = None,
    operation: str = "chat",
) -> Cost:
    """Price a usage exactly, by the active price table.

    Args:
        model: as the provider names it.
        usage: the counts; input includes the cache, output the reasoning.
        provider: a provider's key (`tollspan providers`), its `gen_ai.provider.name`, or a LiteLLM provider label.
        at: the time of the call, for dated prices and off-peak hours; now by default.
        tier: the served service tier in the provider's word (flex, priority, batch...).
        geography: where the call ran, as the provider states it (Anthropic's `inference_geo`).
        speed: Anthropic's `speed`.
        region: the cloud region, if prices differ by region.
        operation: the conventions' operation name.

    Returns:
        The cost in atto-dollars (`tollspan.usd` gives dollars), with its breakdown; `amount` is None without a price.
    """
    billable = Billable(
        usage=usage,
        price_providers=labels_of(provider),
        model=model,
        operation=operation,
        tier=tier,
        geography=geography,
        speed=speed,
        region=region,
    )
    return price(billable, price_table()(), at or datetime.now(UTC))


def estimate(  # noqa: PLR0913 - what a price depends on
    model: str,
    request: str | Mapping[str, Any],
    *,
    provider: str,
    output: int | None = None,
    tier: str | None = None,
    region: str | None = None,
) -> Cost:
    """Estimate the cost of a call before it is made; nothing is sent.

    Args:
        model: as the provider names it.
        request: the request's JSON object, or the text of a prompt.
        provider: as for `cost_of`.
        output: the expected output tokens; by default the request's limit, else the most that the model can produce.
        tier: the requested service tier.
        region: the cloud region, if prices differ by region.

    Returns:
        A cost of quality `estimated`, with bounds in `low` (no output at all) and `high`; unpriced without a price.
    """
    body = {"messages": [{"role": "user", "content": request}]} if isinstance(request, str) else request
    read = input_tokens(body, family_of(model), by=_prompting(provider, model))
    low, value, high = read or (0, 0, 0)
    most = output if output is not None else _limit(body)
    if most is None:
        billable = Billable(usage=Usage(), price_providers=labels_of(provider), model=model)
        tariff = price_table()().tariff(billable, model, None, datetime.now(UTC))
        most = (tariff.row.max_output if tariff is not None else None) or 0

    def priced(input_: int, output_: int) -> Cost:
        return cost_of(model, Usage(input=input_, output=output_), provider=provider, tier=tier, region=region)

    best = priced(value, most)
    if best.amount is None:
        return best
    return replace(best, quality="estimated", low=priced(low, 0).amount, high=priced(high, most).amount)


_LIMITS: Final = ("max_completion_tokens", "max_output_tokens", "max_tokens")


def _limit(body: Mapping[str, Any]) -> int | None:
    return next((value for key in _LIMITS if isinstance(value := body.get(key), int)), None)


def labels_of(provider: str) -> tuple[str, ...]:
    """Return the LiteLLM labels of a provider's key or name; any other string is a label itself."""
    known = _providers()
    if provider in known:
        return known[provider].labels
    return next((entry.labels for entry in known.values() if entry.name == provider), (provider,))


def labels_now(call: Call, directory: Directory) -> tuple[str, ...]:
    """Return the LiteLLM labels by which to price a recorded call again: usually those it was recorded with.

    If its host was unrecognized and has a provider now (TOLLSPAN_HOSTS), they are that provider's, from `directory`.
    """
    if call.provider.endswith(COMPATIBLE) and call.server_address is not None:
        known = {provider.labels for provider in directory.of_host(call.server_address, call.server_port)}
        if len(known) == 1:
            return known.pop()
    return call.price_labels or labels_of(call.provider)


def _prompting(provider: str, model: str) -> Prompting | None:
    known = _providers().get(provider)
    return None if known is None else known.prompting(model)


def provider_name(provider: str) -> str:
    """Return the `gen_ai.provider.name` of a provider's key; any other string is a name itself."""
    known = _providers().get(provider)
    return known.name if known is not None else provider


def price_table() -> Callable[[], PriceTable]:
    """Return the function that returns the active price table: of `instrument()`, else of the settings."""
    recorder = current()
    return recorder.table if recorder is not None else _source()


@cache
def _providers() -> dict[str, Provider]:
    return active_providers(load())


@cache
def _source() -> Callable[[], PriceTable]:
    return price_source(load())
