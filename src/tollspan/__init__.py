"""Price every LLM call of a Python program, as it is seen on the wire: OpenTelemetry spans, metrics and budgets.

    import tollspan
    tollspan.instrument()

Names are loaded at their first use, so `import tollspan` is nearly free.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tollspan.api.calls import UsageRecord, last_call, record, subscribe
    from tollspan.api.pricing import cost_of, estimate
    from tollspan.api.spending import reset, summary
    from tollspan.attribution import AttributionMiddleware, attribution, carry
    from tollspan.budget.api import API as budget  # noqa: N811 - the name that users know
    from tollspan.budget.tools import tool
    from tollspan.model.errors import BudgetExceeded, PriceTableError, SettingsError, TollspanError
    from tollspan.model.money import usd
    from tollspan.model.records import Call, Cost, Usage
    from tollspan.setup.instrument import flush, instrument, uninstrument
    from tollspan.telemetry.foreign_spans.processor import TollspanCostExporter, TollspanCostProcessor
    from tollspan.version import __version__

__all__ = [
    "AttributionMiddleware",
    "BudgetExceeded",
    "Call",
    "Cost",
    "PriceTableError",
    "SettingsError",
    "TollspanCostExporter",
    "TollspanCostProcessor",
    "TollspanError",
    "Usage",
    "UsageRecord",
    "__version__",
    "attribution",
    "budget",
    "carry",
    "cost_of",
    "estimate",
    "flush",
    "instrument",
    "last_call",
    "record",
    "reset",
    "subscribe",
    "summary",
    "tool",
    "uninstrument",
    "usd",
]

_HOMES = {
    "AttributionMiddleware": "attribution",
    "BudgetExceeded": "model.errors",
    "Call": "model.records",
    "Cost": "model.records",
    "PriceTableError": "model.errors",
    "SettingsError": "model.errors",
    "TollspanCostExporter": "telemetry.foreign_spans.processor",
    "TollspanCostProcessor": "telemetry.foreign_spans.processor",
    "TollspanError": "model.errors",
    "Usage": "model.records",
    "UsageRecord": "api.calls",
    "__version__": "version",
    "attribution": "attribution",
    "budget": "budget",
    "carry": "attribution",
    "cost_of": "api.pricing",
    "estimate": "api.pricing",
    "flush": "setup.instrument",
    "instrument": "setup.instrument",
    "last_call": "api.calls",
    "record": "api.calls",
    "reset": "api.spending",
    "subscribe": "api.calls",
    "summary": "api.spending",
    "tool": "budget.tools",
    "uninstrument": "setup.instrument",
    "usd": "model.money",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        message = f"module 'tollspan' has no attribute {name!r}"
        raise AttributeError(message)
    # Not kept in this module: `tollspan.instrument` is the function here, and a module in an import statement.
    return getattr(import_module(f"tollspan.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
