"""The dashboard Call explorer: from a figure to the trace of a call that is behind it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.builders import text

from dashboards.panels import COUNT, LOW, USD, WIDTH, board, chart, choice, choices, clouds, listing, searched

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

COST: Final = "gen_ai_client_operation_cost"

HOW: Final = """\
Each pink or round point is an **exemplar**: one call, with its cost. Click it and choose *Query with Jaeger* to see its
trace: model, tokens, cost and how it came about are attributes of its span. Dear calls are in the upper rows.

Where a fleet's gateways sample traces, those of dear, failed, denied and unpriced calls are kept, and a share of the
others: the exemplar of a cheap call may lead to a trace that was not kept.
"""


def dashboard() -> Dashboard:
    """Make the dashboard."""
    services = [choice("service", "Service", "label_values(tollspan_calls_total, job)", several=False), *choices()[1:]]
    made = board("tollspan-calls", "Call explorer", "From a figure to the calls behind it.", services)
    return _traces(_costs(made.with_panel(text.Panel().title("How to").content(HOW).height(LOW).span(WIDTH))))


def _costs(made: Dashboard) -> Dashboard:
    model = "gen_ai_provider_name, gen_ai_response_model"
    spent = f"sum by ({model}) (increase({COST}_sum{{}}[$__range] anchored))"
    number = f"sum by ({model}) (increase({COST}_count{{}}[$__range] anchored))"
    p99 = f"histogram_quantile(0.99, sum by (le, {model}) (increase({COST}_bucket{{}}[$__range] anchored)))"
    return (
        made.with_row(builders.Row("Costs of calls"))
        .with_panel(
            clouds(
                "Cost of each call",
                f"sum by (le) (increase({COST}_bucket{{}}[$__rate_interval] anchored))",
                USD,
                "How many calls cost how much. A point is an exemplar: click it for the trace.",
            )
        )
        .with_panel(
            chart(
                "Cost of a call by model, p95",
                {
                    "{{gen_ai_response_model}}": "histogram_quantile(0.95, sum by (le, gen_ai_response_model)"
                    f" (increase({COST}_bucket{{}}[$__rate_interval] anchored)))"
                },
                USD,
                "With exemplars: click one for the trace.",
                exemplars=True,
            )
        )
        .with_panel(
            listing(
                "Models",
                {"calls": f"{number} > 0", "spent": f"{spent} > 0", "a call": f"{spent} / ({number} > 0)", "p99": p99},
                "Dollars over the dashboard's time, and of a call.",
            )
        )
        .with_panel(
            chart(
                "Calls that cost more than 0.10 USD",
                {
                    "{{gen_ai_response_model}}": f'sum by (gen_ai_response_model) (increase({COST}_bucket{{,le="+Inf"}}'
                    "[$__interval] anchored)) - sum by (gen_ai_response_model)"
                    f' (increase({COST}_bucket{{,le="0.1"}}[$__interval] anchored))'
                },
                COUNT,
                "Gateways keep the traces of all of these.",
                width=WIDTH,
                bars=True,
                exemplars=True,
            )
        )
    )


def _traces(made: Dashboard) -> Dashboard:
    return (
        made.with_row(builders.Row("Traces in Jaeger"))
        .with_panel(searched("Latest calls", "tollspan.outcome=ok", "Of the chosen service, that ended well."))
        .with_panel(searched("Failed calls", "tollspan.outcome=error", "Answered with an error, or broken."))
        .with_panel(
            searched("Calls that broke off", "tollspan.outcome=aborted", "The application or the network ended them.")
        )
        .with_panel(searched("Calls that a budget denied", "tollspan.outcome=denied", "They cost nothing."))
        .with_panel(searched("Calls without a price", "tollspan.cost.quality=unpriced", "In no amount of money."))
        .with_panel(
            searched("Retries", "http.request.resend_count=1", "First retries; each links to its first attempt.")
        )
    )
