"""The dashboard Spend: how much, how fast, for what, and what of it was for nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from grafana_foundation_sdk.builders import dashboard as builders

from dashboards.panels import (
    COUNT,
    DAY,
    MONTH,
    MOST,
    SECONDS,
    SHARE,
    USD,
    board,
    chart,
    choices,
    figure,
    listing,
    ranking,
)

if TYPE_CHECKING:
    from grafana_foundation_sdk.builders.dashboard import Dashboard

SPENT: Final = "sum(increase(tollspan_spend_total{}[$__range] anchored))"
PROJECTED: Final = f"{SPENT} / $__range_s * 86400 * days_in_month()"
HOURLY: Final = "sum(rate(tollspan_spend_total{}[1h] anchored)) * 3600"

SPLITS: Final = (
    "job,gen_ai_operation_name,user_id,gen_ai_agent_name,session_id,tollspan_tag_tier,"
    "service_version,deployment_environment_name"
)
"""Labels to split spend by, beside provider and model. Attribution is there for the keys in `metric_attributes`."""

# A gauge that falls as well as rises, by process: what it came to, less what it had come to when the time began.
SAVED: Final = (
    "sum(last_over_time(tollspan_cache_savings{}[$__range]))"
    " - (sum(tollspan_cache_savings{} offset $__range) or vector(0))"
)
CACHED: Final = (
    'sum(increase(tollspan_tokens_total{,gen_ai_token_type="cache_read"}[$__range] anchored))'
    ' / (sum(increase(tollspan_tokens_total{,gen_ai_token_type="input"}[$__range] anchored)) > 0)'
)
BUDGET: Final = "tollspan_budget_name, tollspan_budget_period, tollspan_budget_unit"


def dashboard() -> Dashboard:
    """Make the dashboard."""
    made = board("tollspan-spend", "Spend", "What calls of models cost.", [*choices(), _split()])
    for row in (_now, _what_for, _budgets, _cache, _wasted):
        made = row(made)
    return made


def _split() -> builders.CustomVariable:
    return builders.CustomVariable("split").label("Split by").values(SPLITS).allow_custom_value(allow_custom_value=True)


def _now(made: Dashboard) -> Dashboard:
    return (
        made.with_row(builders.Row("Now"))
        .with_panel(figure("Today", SPENT, USD, "Since midnight, in the browser's time zone.", time=DAY))
        .with_panel(figure("Burn rate, an hour", HOURLY, USD, "What the last hour has cost."))
        .with_panel(figure("This month", SPENT, USD, "Since the first of the month.", time=MONTH))
        .with_panel(
            figure(
                "Month's projection",
                PROJECTED,
                USD,
                "If the rest of the month goes as it has so far; the month's length is taken in UTC.",
                time=MONTH,
            )
        )
        .with_panel(figure("In the dashboard's time", SPENT, USD, "The time chosen above."))
        .with_panel(
            figure(
                "A call",
                f'{SPENT} / sum(increase(tollspan_calls_total{{,tollspan_outcome="ok"}}[$__range] anchored))',
                USD,
                "Spend divided by the calls that ended well.",
            )
        )
        .with_panel(
            chart(
                "Burn rate",
                {"an hour": HOURLY, "a week ago": HOURLY.replace("anchored", "anchored offset 1w")},
                USD,
                "Dollars an hour, over the hour before.",
                width=24,
            )
        )
    )


def _what_for(made: Dashboard) -> Dashboard:
    by = "sum by ({by}) (increase(tollspan_spend_total{{}}[{over}] anchored))"
    provider = by.format(by="gen_ai_provider_name", over="$__interval")
    model = "gen_ai_provider_name, gen_ai_response_model"
    return (
        made.with_row(builders.Row("What for"))
        .with_panel(
            chart("By provider", {"{{gen_ai_provider_name}}": provider}, USD, "Each bar is what it brought.", bars=True)
        )
        .with_panel(
            chart(
                "By model",
                {"{{gen_ai_response_model}}": f"topk({MOST}, {by.format(by=model, over='$__interval')}) > 0"},
                USD,
                "The model that the provider says it served.",
                bars=True,
            )
        )
        .with_panel(
            ranking(
                "Dearest models",
                by.format(by=model, over="$__range"),
                "{{gen_ai_provider_name}} {{gen_ai_response_model}}",
                USD,
                "Over the dashboard's time.",
            )
        )
        .with_panel(
            ranking(
                "By $split",
                by.format(by="$split", over="$__range"),
                "{{$split}}",
                USD,
                "Any label. Users, sessions, agents and tags are there once `metric_attributes` names them.",
            )
        )
    )


def _budgets(made: Dashboard) -> Dashboard:
    columns = {
        "limit": f"max by ({BUDGET}) (tollspan_budget_limit)",
        "spent": f"max by ({BUDGET}) (tollspan_budget_spent)",
        "reserved": f"max by ({BUDGET}) (tollspan_budget_reserved)",
        "remaining": f"min by ({BUDGET}) (tollspan_budget_remaining)",
        "used": f"max by ({BUDGET}) (tollspan_budget_utilization_ratio)",
    }
    used = ranking(
        "Budgets used",
        "tollspan:budget_utilization:max",
        "{{tollspan_budget_name}}",
        SHARE,
        "Of a budget for each user or session, the fullest. Of one in the memory of several processes, the fullest.",
    )
    return (
        made.with_row(builders.Row("Budgets"))
        .with_panel(used.max(1))
        .with_panel(listing("Budgets", columns, "Amounts in the budget's unit: usd, tokens or calls."))
        .with_panel(
            chart(
                "Calls denied",
                {
                    "{{tollspan_budget_name}}: {{tollspan_budget_reason}}": "sum by (tollspan_budget_name, "
                    "tollspan_budget_reason) (increase(tollspan_budget_denied_total[$__interval] anchored))"
                },
                COUNT,
                "Calls that a budget did not let through; none of them has cost anything.",
                bars=True,
            )
        )
        .with_panel(
            chart(
                "How fast budgets are spent",
                {
                    "{{tollspan_budget_name}}, last hour": "tollspan:budget_burn:ratio1h",
                    "{{tollspan_budget_name}}, last 6 hours": "tollspan:budget_burn:ratio6h",
                },
                COUNT,
                "1 = used up exactly when it renews. Alerts at 10 over an hour, at 5 over six.",
            )
        )
        .with_panel(
            figure(
                "Denied",
                "sum(increase(tollspan_budget_denied_total[$__range] anchored))",
                COUNT,
                "Calls that a budget did not let through.",
                warn=1,
            )
        )
        .with_panel(
            figure(
                "Overshoot",
                "sum(increase(tollspan_budget_overshoot_total[$__range] anchored))",
                USD,
                "Spent past a limit, beyond what was reserved.",
                warn=0.01,
            )
        )
        .with_panel(
            figure(
                "Store errors",
                "sum(increase(tollspan_budget_store_errors_total[$__range] anchored))",
                COUNT,
                "Times that a budget's store failed or did not answer in time.",
                warn=1,
                alarm=10,
            )
        )
    )


def _cache(made: Dashboard) -> Dashboard:
    share = CACHED.replace("sum(", "sum by (gen_ai_response_model) (").replace("$__range", "$__rate_interval")
    return (
        made.with_row(builders.Row("Cache"))
        .with_panel(
            figure(
                "Saved by caches", SAVED, USD, "Less what writing to the caches cost; below zero where that was more."
            )
        )
        .with_panel(figure("Input from caches", CACHED, SHARE, "Of all input tokens."))
        .with_panel(
            chart(
                "Input from caches by model",
                {"{{gen_ai_response_model}}": share},
                SHARE,
                "Of a model's input tokens.",
                width=16,
            )
        )
    )


def _wasted(made: Dashboard) -> Dashboard:
    failed = "sum(increase(tollspan_failed_spend_total{}[$__range] anchored))"
    retried = "sum(increase(tollspan_retried_spend_total{}[$__range] anchored))"
    return (
        made.with_row(builders.Row("Doubtful"))
        .with_panel(
            figure("On calls that broke off", failed, USD, "Streams that ended early, billed all the same.", warn=0.01)
        )
        .with_panel(figure("On retries", retried, USD, "What attempts cost that sent an operation again.", warn=0.01))
        .with_panel(
            figure(
                "Share of both", f"({failed} + {retried}) / ({SPENT} > 0)", SHARE, "Of all spend.", warn=0.05, alarm=0.2
            )
        )
        .with_panel(
            figure(
                "Unpriced calls",
                "sum(increase(tollspan_unpriced_calls_total{}[$__range] anchored))",
                COUNT,
                "Calls with usage and no price: they are in no amount here.",
                warn=1,
            )
        )
        .with_panel(
            figure(
                "Age of the prices",
                'max(tollspan_prices_age_seconds{job=~"$service"})',
                SECONDS,
                "Since the price table in use was last known to be current; the oldest of all services.",
                warn=30 * 86400,
                alarm=45 * 86400,
            )
        )
        .with_panel(
            figure(
                "tollspan's own failures",
                'sum(increase(tollspan_internal_errors_total{job=~"$service"}[$__range] anchored)) or vector(0)',
                COUNT,
                "Calls were not affected, unless the kind is budget; figures may be incomplete. The log has the cause.",
                warn=1,
            )
        )
        .with_panel(
            chart(
                "Money on failures and retries",
                {
                    "broke off": failed.replace("$__range", "$__interval"),
                    "retries": retried.replace("$__range", "$__interval"),
                },
                USD,
                "A retry that ends well is in the second only.",
                bars=True,
            )
        )
        .with_panel(
            ranking(
                "Models without a price",
                "sum by (gen_ai_provider_name, gen_ai_response_model)"
                " (increase(tollspan_unpriced_calls_total{}[$__range] anchored)) > 0",
                "{{gen_ai_provider_name}} {{gen_ai_response_model}}",
                COUNT,
                "Calls, over the dashboard's time.",
            )
        )
    )
