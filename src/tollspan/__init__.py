"""tollspan reads the toll of every LLM call off the wire: priced OpenTelemetry spans, metrics, and what was spent.

    import tollspan
    tollspan.instrument()

Names are loaded when they are first used: `import tollspan` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tollspan.attribution import AttributionMiddleware, attribution, carry
    from tollspan.budget.scope import API as budget  # noqa: N811 - the name that users know
    from tollspan.budget.tools import tool
    from tollspan.errors import BudgetExceeded, PriceTableError, SettingsError, TollspanError
    from tollspan.instrument import flush, instrument, uninstrument
    from tollspan.library import UsageRecord, cost_of, estimate, last_call, record, subscribe
    from tollspan.spending import reset, summary
    from tollspan.telemetry.processor import TollspanCostExporter, TollspanCostProcessor
    from tollspan.usage import Call, Cost, Usage, usd
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
    "BudgetExceeded": "errors",
    "Call": "usage",
    "Cost": "usage",
    "PriceTableError": "errors",
    "SettingsError": "errors",
    "TollspanCostExporter": "telemetry.processor",
    "TollspanCostProcessor": "telemetry.processor",
    "TollspanError": "errors",
    "Usage": "usage",
    "UsageRecord": "library",
    "__version__": "version",
    "attribution": "attribution",
    "budget": "budget",
    "carry": "attribution",
    "cost_of": "library",
    "estimate": "library",
    "flush": "instrument",
    "instrument": "instrument",
    "last_call": "library",
    "record": "library",
    "reset": "spending",
    "subscribe": "library",
    "summary": "spending",
    "tool": "budget.tools",
    "uninstrument": "instrument",
    "usd": "usage",
}


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        message = f"module 'tollspan' has no attribute {name!r}"
        raise AttributeError(message)
    # Not kept in this module: `tollspan.instrument` is the function here and the module's name in an import statement.
    return getattr(import_module(f"tollspan.{home}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
