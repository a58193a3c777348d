"""The context key under which instrumentations are suppressed: `get_value(SUPPRESSED)` is true while they are.

`opentelemetry.instrumentation.utils.suppress_instrumentation` sets the API's key and its older name, a plain string.
Exporters of the SDK set the API's key alone, for their own requests.
"""

from __future__ import annotations

from typing import Final

from opentelemetry import context

SUPPRESSED: Final[str] = getattr(context, "_SUPPRESS_INSTRUMENTATION_KEY", "suppress_instrumentation")
