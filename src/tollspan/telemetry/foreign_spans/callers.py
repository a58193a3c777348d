"""The emitter whose code sends a request, recognized by its wrapper on the stack if no span shows it.

Two kinds of emitter have no open span when a request is sent. One starts its span when the response has arrived
(OpenLLMetry around OpenAI's Responses): `late_span()`. The span of the other was dropped by a sampler, but its metrics
are recorded nevertheless: `recorded()`. A coroutine that awaits another is on that one's stack, too.

LangChain's callbacks start their spans in threads. What it passes down to the model instead names the run:
`run_span()`.

If none of these emitters is imported, each function is one look into `sys.modules`.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.emitters import UNKNOWN, Emitter, emitter

if TYPE_CHECKING:
    from types import FrameType

    from tollspan.telemetry.foreign_spans.emitters import LateSpan

_ROOTS: Final = (
    "opentelemetry.instrumentation.anthropic",
    "opentelemetry.instrumentation.genai",
    "opentelemetry.instrumentation.openai",
    "opentelemetry.instrumentation.openai_v2",
    "pydantic_ai.capabilities.instrumentation",
    "pydantic_ai.models.instrumented",  # before version 2
)
"""Modules whose functions wrap an SDK's; those of OpenTelemetry have the name of their scope."""
_SCOPES: Final = {root: "pydantic-ai" for root in _ROOTS if root.startswith("pydantic_ai.")}
_SPANLESS: Final = {
    # It reads a plain response only for the span, and counts its tokens while it does.
    ("opentelemetry.instrumentation.anthropic", False): frozenset({names.OPERATION_DURATION}),
}
"""The metrics that an emitter records if a sampler drops its span, if not all: by module, and whether it streams."""
_SILENT: Final = (
    "opentelemetry.instrumentation.openai.shared.image_gen_wrappers",
    "opentelemetry.instrumentation.openai.v1",
)
"""OpenLLMetry's wrappers that record none of the conventions' metrics."""
_RUNS: Final = "openinference.instrumentation.langchain"
_NOTHING: Final[frozenset[str]] = frozenset()


def late_span() -> LateSpan | None:
    """Return the span that the sending emitter starts when the response has arrived, or None."""
    if _ROOTS[2] not in sys.modules:
        return None
    module, known = _on_stack()
    return known.late if known.late is not None and known.late.module == module else None


def recorded(*, stream: bool) -> frozenset[str]:
    """Return the metrics that the sending emitter records, though it has no open span.

    Args:
        stream: whether the request wants a streamed response.
    """
    if sys.modules.keys().isdisjoint(_ROOTS):
        return _NOTHING
    module, known = _on_stack()
    return _NOTHING if module.startswith(_SILENT) else _SPANLESS.get((module, stream), known.metrics)


def run_span() -> Any:
    """Return the span of the LangChain run that sends a request, or None.

    LangChain passes `run_manager` to every method of a model. OpenInference's tracer is among its handlers and returns
    a run's span with `get_span`, which is public.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as below
    while frame is not None:
        if "run_manager" in frame.f_code.co_varnames:
            manager: Any = frame.f_locals.get("run_manager")
            for handler in getattr(manager, "handlers", None) or ():
                get_span = getattr(handler, "get_span", None) if type(handler).__module__.startswith(_RUNS) else None
                span = None if get_span is None else get_span(manager.run_id)
                if span is not None:
                    return span
        frame = frame.f_back
    return None


def _on_stack() -> tuple[str, Emitter]:
    """Return the innermost emitter's module on the stack, and the emitter."""
    frame: FrameType | None = sys._getframe(2)  # noqa: SLF001 - documented, and in every interpreter that SDKs run on
    while frame is not None:
        module = frame.f_globals.get("__name__", "")
        if (known := _known(module)) is not UNKNOWN:
            return module, known
        frame = frame.f_back
    return "", UNKNOWN


@cache
def _known(module: str) -> Emitter:
    return emitter(_SCOPES.get(module, module)) if module.startswith(_ROOTS) else UNKNOWN
