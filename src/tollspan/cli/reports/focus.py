"""Calls in the columns of FOCUS, the FinOps Open Cost and Usage Specification, version 1.3 (focus.finops.org).

There is one row for each day, provider, model, kind of charge and attribution. An unknown value is null, as the
specification requires: only the provider knows the invoice and the account. `ListCost` and `ContractedCost` are the
recorded cost, which includes custom prices. Version 1.3 deprecates `ProviderName` and `PublisherName`, and 1.4 removes
them; they are written for readers of 1.2. Columns that tollspan adds begin with `x_`, as the specification requires.
"""

from __future__ import annotations

import json
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import TYPE_CHECKING, Any, Final

from tollspan.ledger.conditions import DAY
from tollspan.ledger.invoice_lines import InvoiceLine, lines_of
from tollspan.model.money import usd
from tollspan.wire.providers import bundled

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from tollspan.ledger.queries import Kept
    from tollspan.model.records import Call

VERSION: Final = "1.3"

COLUMNS: Final = (
    "BilledCost",
    "BillingAccountId",
    "BillingAccountName",
    "BillingCurrency",
    "BillingPeriodEnd",
    "BillingPeriodStart",
    "ChargeCategory",
    "ChargeClass",
    "ChargeDescription",
    "ChargeFrequency",
    "ChargePeriodEnd",
    "ChargePeriodStart",
    "ConsumedQuantity",
    "ConsumedUnit",
    "ContractedCost",
    "EffectiveCost",
    "HostProviderName",
    "InvoiceIssuerName",
    "ListCost",
    "PricingCategory",
    "PricingQuantity",
    "PricingUnit",
    "ProviderName",
    "PublisherName",
    "RegionId",
    "ServiceCategory",
    "ServiceName",
    "ServiceProviderName",
    "ServiceSubcategory",
    "SkuId",
    "SkuMeter",
    "SkuPriceId",
    "Tags",
    "x_Calls",
    "x_CostQuality",
    "x_PriceTable",
    "x_Unpriced",
)

_Key = tuple[int, str, str, str, str, str, str, str, str]


class _Sum:
    """The sum of the calls of one row."""

    __slots__ = ("amount", "calls", "count", "unit", "unpriced")

    def __init__(self) -> None:
        self.amount = 0
        self.calls = 0
        self.unpriced = 0
        self.count: Decimal | None = Decimal(0)
        self.unit = "tokens"


def rows(calls: Iterable[Kept]) -> Iterator[dict[str, Any]]:
    """Yield the rows of billed calls, day by day. The sum of their amounts is exactly the cost of the calls."""
    sums: defaultdict[_Key, _Sum] = defaultdict(_Sum)
    for kept in calls:
        if kept.call.billable:
            _add(sums, kept.call)
    titles = {provider.name: provider.title for provider in reversed(bundled().values())}
    for key in sorted(sums):
        yield _row(key, sums[key], titles)


def _add(sums: defaultdict[_Key, _Sum], call: Call) -> None:
    cost = call.cost
    lines = lines_of(call)
    if cost.amount is None or sum(line.amount for line in lines) != cost.amount:
        lines = [InvoiceLine("", None, cost.amount or 0)]  # unpriced, or the provider stated the cost as one sum
    tags = json.dumps(dict(sorted(call.attribution.items())))
    start = (call.started_at // DAY, call.provider, call.model or "")
    end = (call.region or "", cost.price_key or "", cost.quality, cost.table_version or "", tags)
    for index, line in enumerate(lines):
        summed = sums[*start, line.kind, *end]
        summed.amount += line.amount
        summed.calls += index == 0
        summed.unpriced += cost.amount is None
        summed.unit = line.unit
        if line.count is None or summed.count is None:
            summed.count = None
        else:
            summed.count += Decimal(str(line.count))


def _row(key: _Key, summed: _Sum, titles: dict[str, str]) -> dict[str, Any]:
    day, provider, model, kind, region, price_key, quality, table, tags = key
    start = datetime.fromtimestamp(0, UTC) + timedelta(days=day)
    month = start.replace(day=1)
    next_month = (month + timedelta(days=32)).replace(day=1)
    title = titles.get(provider, provider)
    amount = f"{usd(summed.amount):f}"
    count = None if summed.count is None else f"{summed.count:f}"
    unit = None if count is None else summed.unit
    return {
        "BilledCost": amount,
        "BillingCurrency": "USD",
        "BillingPeriodStart": _time(month),
        "BillingPeriodEnd": _time(next_month),
        "ChargeCategory": "Usage",
        "ChargeDescription": f"{model} {kind}".strip(),
        "ChargeFrequency": "Usage-Based",
        "ChargePeriodStart": _time(start),
        "ChargePeriodEnd": _time(start + timedelta(days=1)),
        "ConsumedQuantity": count,
        "ConsumedUnit": unit,
        "ContractedCost": amount,
        "EffectiveCost": amount,
        "HostProviderName": title,
        "InvoiceIssuerName": title,
        "ListCost": amount,
        "PricingCategory": "Standard" if price_key else None,
        "PricingQuantity": count,
        "PricingUnit": unit,
        "ProviderName": title,
        "PublisherName": title,
        "RegionId": region or None,
        "ServiceCategory": "AI and Machine Learning",
        "ServiceName": model or title,
        "ServiceProviderName": title,
        "ServiceSubcategory": "Generative AI",
        "SkuId": price_key or None,
        "SkuMeter": kind or None,
        "SkuPriceId": f"{price_key}/{kind}" if price_key and kind else None,
        "Tags": tags if tags != "{}" else None,
        "x_Calls": summed.calls,
        "x_CostQuality": quality,
        "x_PriceTable": table or None,
        "x_Unpriced": summed.unpriced,
    }


def _time(moment: datetime) -> str:
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")
