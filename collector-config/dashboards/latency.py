"""The dashboard Latency: how long users wait, how fast tokens come, what fails."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.panels import COUNT, MOST, SECONDS, SHARE, board, chart, choices, clouds, figure, ranking

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

FIRST_TOKEN: Final = "tollspan_time_to_first_token_seconds"
FIRST_CHUNK: Final = "gen_ai_client_operation_time_to_first_chunk_seconds"
DURATION: Final = "gen_ai_client_operation_duration_seconds"
CHUNKS: Final = "gen_ai_client_operation_time_per_output_chunk_seconds"
TOKEN_USAGE: Final = "gen_ai_client_token_usage"

# Of calls that ended well: those that failed are fast or slow for reasons of their own.
WELL: Final = ',error_type=""'


def _quantile(share: float, histogram: str, by: str = "", more: str = "", over: str = "$__rate_interval") -> str:
    labels = "le" + (f", {by}" if by else "")
    chosen = f"{{{more}}}" if more else "{}"
    return f"histogram_quantile({share}, sum by ({labels}) (increase({histogram}_bucket{chosen}[{over}] anchored)))"


def dashboard() -> Dashboard:
    """Make the dashboard."""
    made = board("tollspan-latency", "Latency", "How long calls of models take, and how many fail.", choices())
    for row in (_now, _waiting, _duration, _speed, _errors):
        made = row(made)
    return made


def _now(made: Dashboard) -> Dashboard:
    errors = (
        '(sum(increase(tollspan_calls_total{,tollspan_outcome=~"error|aborted"}[$__range] anchored)) or vector(0))'
        " / sum(increase(tollspan_calls_total{}[$__range] anchored))"
    )
    return (
        made.with_row(builders.Row("In the dashboard's time"))
        .with_panel(
            figure(
                "First token, median", _quantile(0.5, FIRST_TOKEN, over="$__range"), SECONDS, "Of any kind of output."
            )
        )
        .with_panel(
            figure(
                "First token, p95",
                _quantile(0.95, FIRST_TOKEN, over="$__range"),
                SECONDS,
                "One call in twenty waits longer.",
            )
        )
        .with_panel(
            figure(
                "Call, median", _quantile(0.5, DURATION, more=WELL, over="$__range"), SECONDS, "Calls that ended well."
            )
        )
        .with_panel(
            figure(
                "Call, p95", _quantile(0.95, DURATION, more=WELL, over="$__range"), SECONDS, "Calls that ended well."
            )
        )
        .with_panel(
            figure("Requests", "sum(increase(tollspan_calls_total{}[$__range] anchored))", COUNT, "Each retry is one.")
        )
        .with_panel(figure("Failed", errors, SHARE, "Of all requests: in error, or broken off.", warn=0.01, alarm=0.05))
    )


def _waiting(made: Dashboard) -> Dashboard:
    model = "gen_ai_response_model"
    return (
        made.with_row(builders.Row("Waiting for the first token"))
        .with_panel(
            chart(
                "Time to first token, p50, p95, p99",
                {f"p{round(share * 100)}": _quantile(share, FIRST_TOKEN) for share in (0.5, 0.95, 0.99)},
                SECONDS,
                "Until the first output of any kind: text, reasoning, a tool's call. A frame with a role is none.",
                exemplars=True,
            )
        )
        .with_panel(
            chart(
                "Time to first token by model, p95",
                {f"{{{{{model}}}}}": _quantile(0.95, FIRST_TOKEN, model)},
                SECONDS,
                "An alert tells when it is half as much again as the day before.",
            )
        )
        .with_panel(
            chart(
                "Time to first chunk by model, p95",
                {f"{{{{{model}}}}}": _quantile(0.95, FIRST_CHUNK, model)},
                SECONDS,
                "Until the first event of a stream, whatever is in it.",
            )
        )
        .with_panel(
            chart(
                "Time between chunks by model, p95",
                {f"{{{{{model}}}}}": _quantile(0.95, CHUNKS, model)},
                SECONDS,
                "Recorded where the application sets `chunk_metric`.",
            )
        )
    )


def _duration(made: Dashboard) -> Dashboard:
    model = "gen_ai_response_model"
    return (
        made.with_row(builders.Row("Duration"))
        .with_panel(
            chart(
                "Duration, p50, p95, p99",
                {f"p{round(share * 100)}": _quantile(share, DURATION, more=WELL) for share in (0.5, 0.95, 0.99)},
                SECONDS,
                "Of one request, until its last byte; calls that ended well.",
                exemplars=True,
            )
        )
        .with_panel(
            chart(
                "Duration by model, p95",
                {f"{{{{{model}}}}}": _quantile(0.95, DURATION, model, WELL)},
                SECONDS,
                "Calls that ended well.",
            )
        )
        .with_panel(
            clouds(
                "Durations",
                f"sum by (le) (increase({DURATION}_bucket{{}}[$__rate_interval] anchored))",
                SECONDS,
                "All calls. A point is an exemplar: click it for the trace.",
            )
        )
    )


def _speed(made: Dashboard) -> Dashboard:
    by = "sum by (gen_ai_response_model)"
    output = f'{by} (increase(tollspan_tokens_total{{,gen_ai_token_type="output"}}[$__rate_interval] anchored))'
    taken = f"{by} (increase({DURATION}_sum{{{WELL}}}[$__rate_interval] anchored))"
    return (
        made.with_row(builders.Row("Tokens"))
        .with_panel(
            chart(
                "Output tokens a second of a call",
                {"{{gen_ai_response_model}}": f"{output} / ({taken} > 0)"},
                COUNT,
                "Output tokens divided by the seconds that calls took, waiting included: what one user sees.",
            )
        )
        .with_panel(
            chart(
                "Tokens a second",
                {
                    "{{gen_ai_token_type}}": "sum by (gen_ai_token_type)"
                    " (rate(tollspan_tokens_total{}[$__rate_interval] anchored))"
                },
                COUNT,
                "Of all calls together. Cache reads and writes are in input, reasoning is in output.",
            )
        )
        .with_panel(
            chart(
                "Input tokens of a call, p50, p95",
                {
                    f"p{round(share * 100)}": _quantile(share, TOKEN_USAGE, more=',gen_ai_token_type="input"')
                    for share in (0.5, 0.95)
                },
                COUNT,
                "The longer the prompt, the later the first token.",
            )
        )
        .with_panel(
            chart(
                "Output tokens of a call, p50, p95",
                {
                    f"p{round(share * 100)}": _quantile(share, TOKEN_USAGE, more=',gen_ai_token_type="output"')
                    for share in (0.5, 0.95)
                },
                COUNT,
                "Reasoning included.",
            )
        )
    )


def _errors(made: Dashboard) -> Dashboard:
    retried = "sum by (gen_ai_provider_name) (increase(tollspan_retried_calls_total{}[$__interval] anchored))"
    kinds = f'sum by (error_type) (increase({DURATION}_count{{,error_type!=""}}[$__interval] anchored))'
    return (
        made.with_row(builders.Row("Errors"))
        .with_panel(
            chart(
                "Requests by outcome",
                {
                    "{{tollspan_outcome}}": "sum by (tollspan_outcome)"
                    " (increase(tollspan_calls_total{}[$__interval] anchored))"
                },
                COUNT,
                "ok, error, aborted (the application or the network ended it), denied (a budget did).",
                bars=True,
            )
        )
        .with_panel(
            chart(
                "Errors by type",
                {"{{error_type}}": f"topk({MOST}, {kinds}) > 0"},
                COUNT,
                "In the provider's words.",
                bars=True,
            )
        )
        .with_panel(
            chart(
                "Retries",
                {"{{gen_ai_provider_name}}": retried},
                COUNT,
                "Requests that sent an operation again.",
                bars=True,
            )
        )
        .with_panel(
            ranking(
                "Errors by provider and type",
                "sum by (gen_ai_provider_name, error_type)"
                f' (increase({DURATION}_count{{,error_type!=""}}[$__range] anchored)) > 0',
                "{{gen_ai_provider_name}}: {{error_type}}",
                COUNT,
                "Over the dashboard's time.",
            )
        )
    )
