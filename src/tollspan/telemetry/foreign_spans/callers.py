"""Which emitter's code a request is sent from, where no span tells: its wrapper is on the stack of whoever sends.

Two kinds of emitter are not seen in any span when a request goes out. One starts its span when the answer is there
(OpenLLMetry around OpenAI's Responses). The span of the other was dropped by a sampler, and its metrics are recorded
all the same. A coroutine that awaits another is on the stack of the other too.

LangChain has its callbacks' spans started in threads. What it hands down to the model instead names the run.

Nobody pays for this who has none of them loaded.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import TYPE_CHECKING, Any, Final

from tollspan.telemetry import names
from tollspan.telemetry.foreign_spans.emitters import UNKNOWN, Emitter, emitter

if TYPE_CHECKING:
    from types import FrameType

    from tollspan.telemetry.foreign_spans.emitters import Belated

_ROOTS: Final = (
    "opentelemetry.instrumentation.anthropic",
    "opentelemetry.instrumentation.genai",
    "opentelemetry.instrumentation.openai",
    "opentelemetry.instrumentation.openai_v2",
    "pydantic_ai.capabilities.instrumentation",
    "pydantic_ai.models.instrumented",  # before version 2
)
"""Modules whose functions stand between an application and an SDK; what OpenTelemetry's do is known by their scope."""
_SCOPES: Final = {root: "pydantic-ai" for root in _ROOTS if root.startswith("pydantic_ai.")}
_SPANLESS: Final = {
    # It reads a plain answer for the span's sake only, and counts its tokens on the way.
    ("opentelemetry.instrumentation.anthropic", False): frozenset({names.OPERATION_DURATION}),
}
"""What an emitter records where a sampler drops its span, if not all: by module, and whether a stream was asked for."""
_SILENT: Final = (
    "opentelemetry.instrumentation.openai.shared.image_gen_wrappers",
    "opentelemetry.instrumentation.openai.v1",
)
"""Those of OpenLLMetry's wrappers that record none of the conventions' metrics."""
_RUNS: Final = "openinference.instrumentation.langchain"
_NOTHING: Final[frozenset[str]] = frozenset()


def belated() -> Belated | None:
    """Return the span that the emitter which a request is being sent from starts when the answer is there."""
    if _ROOTS[2] not in sys.modules:
        return None
    module, known = _on_stack()
    return known.belated if known.belated is not None and known.belated.module == module else None


def recorded(*, stream: bool) -> frozenset[str]:
    """Return the metrics that the emitter which a request is being sent from records, though it has no span."""
    if sys.modules.keys().isdisjoint(_ROOTS):
        return _NOTHING
    module, known = _on_stack()
    return _NOTHING if module.startswith(_SILENT) else _SPANLESS.get((module, stream), known.metrics)


def run_span() -> Any:
    """Return the span of the LangChain run that sends a request, as its tracer keeps it, or None.

    LangChain passes `run_manager` to every method of a model; OpenInference's tracer, among its handlers, is asked by
    `get_span`, which is public.
    """
    frame: FrameType | None = sys._getframe(1)  # noqa: SLF001 - as below
    while frame is not None:
        if "run_manager" in frame.f_code.co_varnames:
            manager: Any = frame.f_locals.get("run_manager")
            for handler in getattr(manager, "handlers", None) or ():
                find = getattr(handler, "get_span", None) if type(handler).__module__.startswith(_RUNS) else None
                span = None if find is None else find(manager.run_id)
                if span is not None:
                    return span
        frame = frame.f_back
    return None


def _on_stack() -> tuple[str, Emitter]:
    """Return the innermost of the modules that is on the stack, and its emitter."""
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
