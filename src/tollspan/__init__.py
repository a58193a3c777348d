"""tollspan reads the toll of every LLM call off the wire: priced OpenTelemetry spans, metrics, and what was spent.

    import tollspan
    tollspan.instrument()

Names are loaded when they are first used: `import tollspan` costs next to nothing.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tollspan.errors import PriceTableError, SettingsError, TollspanError
    from tollspan.instrument import flush, instrument, last_call, uninstrument
    from tollspan.usage import Call, Cost, Usage, usd
    from tollspan.version import __version__

__all__ = [
    "Call",
    "Cost",
    "PriceTableError",
    "SettingsError",
    "TollspanError",
    "Usage",
    "__version__",
    "flush",
    "instrument",
    "last_call",
    "uninstrument",
    "usd",
]

_HOMES = {
    "Call": "usage",
    "Cost": "usage",
    "PriceTableError": "errors",
    "SettingsError": "errors",
    "TollspanError": "errors",
    "Usage": "usage",
    "__version__": "version",
    "flush": "instrument",
    "instrument": "instrument",
    "last_call": "instrument",
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
