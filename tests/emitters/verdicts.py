"""What a case of a scenario comes to: its inference spans, what they sum up to, and who recorded which metric.

Written without tollspan's own reading of spans, so that it can judge it.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

COST = "gen_ai.usage.cost.amount"
OPERATIONS = {"chat", "text_completion", "generate_content", "embeddings"}
INPUT = ("gen_ai.usage.input_tokens", "llm.token_count.prompt")
OUTPUT = ("gen_ai.usage.output_tokens", "llm.token_count.completion")
DURATION, TOKENS = "gen_ai.client.operation.duration", "gen_ai.client.token.usage"
FIRST_CHUNK = "gen_ai.client.operation.time_to_first_chunk"
OURS = "tollspan"


def is_inference(span: dict[str, Any]) -> bool:
    """Return whether a span is one call of a model."""
    attributes = span["attributes"]
    return (
        attributes.get("gen_ai.operation.name") in OPERATIONS
        or attributes.get("openinference.span.kind") in {"LLM", "EMBEDDING"}
        or attributes.get("langfuse.observation.type") in {"generation", "embedding"}
    )


def first(span: dict[str, Any], names: tuple[str, ...]) -> int | None:
    """Return the first of some counts that a span has."""
    return next((span["attributes"][name] for name in names if name in span["attributes"]), None)


@dataclass(frozen=True)
class Verdict:
    """What a case comes to."""

    inferences: list[dict[str, Any]]
    priced: list[dict[str, Any]]
    metrics: Counter[tuple[str, str]]
    case: dict[str, Any]

    @property
    def foreign(self) -> int:
        """Return how many inference spans are others'."""
        return sum(span["scope"] != OURS for span in self.inferences)

    @property
    def ours(self) -> int:
        """Return how many inference spans are tollspan's."""
        return len(self.inferences) - self.foreign

    @property
    def input(self) -> int:
        """Return the input tokens of all inference spans."""
        return sum(first(span, INPUT) or 0 for span in self.inferences)

    @property
    def output(self) -> int:
        """Return the output tokens of all inference spans."""
        return sum(first(span, OUTPUT) or 0 for span in self.inferences)

    @property
    def cost(self) -> Decimal:
        """Return the cost of all priced spans."""
        return sum((Decimal(str(span["attributes"][COST])) for span in self.priced), Decimal(0))

    @property
    def tally(self) -> dict[str, Any]:
        """Return the provider's books."""
        found: dict[str, Any] = self.case["tally"]
        return found

    def recorders(self, metric: str) -> dict[str, int]:
        """Return who recorded a metric, and how many values."""
        return {scope: count for (name, scope), count in self.metrics.items() if name == metric}


def verdict(case: dict[str, Any]) -> Verdict:
    """Judge a case."""
    metrics: Counter[tuple[str, str]] = Counter()
    for metric in case["metrics"]:
        metrics[metric["name"], metric["scope"]] += metric["count"]
    return Verdict(
        inferences=[span for span in case["spans"] if is_inference(span)],
        priced=[span for span in case["spans"] if COST in span["attributes"]],
        metrics=metrics,
        case=case,
    )
