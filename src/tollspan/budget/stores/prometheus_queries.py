"""PromQL for budgets: the sums of a fleet's counters, by what a budget matches and is kept by.

`matchers_of(budget, select)` returns the label matchers of a budget's series, and raises SettingsError if Prometheus
does not have what the budget needs. `increase` and `difference` return queries.
"""

from __future__ import annotations

import json
import math
import re
from typing import TYPE_CHECKING, Final

from tollspan.model.errors import SettingsError

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from tollspan.budget.policy.budget import Budget

COUNTERS: Final = {
    "usd": ("tollspan_spend_total", ""),
    "tokens": ("tollspan_tokens_total", 'gen_ai_token_type=~"input|output"'),
    "calls": ("tollspan_calls_total", 'tollspan_outcome!="denied"'),
}
"""The counter that a budget of each unit reads, by its name in Prometheus, and the matcher of its series."""

LABELS: Final = {
    "provider": "gen_ai_provider_name",
    "model": "gen_ai_response_model",
    "operation": "gen_ai_operation_name",
    "user": "user_id",
    "session": "session_id",
    "run": "tollspan_run_id",
    "step": "tollspan_step",
    "agent": "gen_ai_agent_name",
}
"""The label of each key that a budget can match or be kept by. Metrics have only the attribution allowed on them."""

PERIODS: Final = ("hour", "day", "week", "month", "rolling")
LOOKBACK: Final = "5m"
"""How far back Prometheus looks for a series' value at a time, by default."""


def increase(series: str, labels: Sequence[str], since: float, now: float) -> str:
    """Return the PromQL for the increase of counters: exact (`anchored`), also if a counter was restarted."""
    return f"{_sum(labels)}(increase({series}[{_length(since, now)}] anchored))"


def difference(series: str, labels: Sequence[str], since: float, now: float) -> str:
    """Return the PromQL for the same on a Prometheus without extended range selectors.

    It is exact if each process has its own series, as with the `service.instance.id` of the SDK. A counter that was
    restarted under the same labels counts from its restart.
    """
    last = f"last_over_time({series}[{_length(since, now)}])"
    return f"{_sum(labels)}({last} - (last_over_time({series}[{LOOKBACK}] @ {since:.3f}) or 0 * {last}))"


def _sum(labels: Sequence[str]) -> str:
    return f"sum by ({', '.join(labels)}) " if labels else "sum"


def _length(since: float, now: float) -> str:
    return f"{max(math.ceil((now - since) * 1000), 1)}ms"


def matchers_of(budget: Budget, select: str) -> str:
    """Return the label matchers of a budget's series, with those of the option `select`.

    Raises:
        SettingsError: Prometheus does not have the budget's unit, period or labels.
    """
    problem = f"budget {budget.name!r} cannot be read from Prometheus"
    if budget.limit.unit not in COUNTERS:
        raise SettingsError(f"{problem}: no metric counts {budget.limit.unit} calls; expected USD, tokens or calls")
    if budget.period.kind not in PERIODS:
        raise SettingsError(
            f"{problem}: its period is {budget.period}, and Prometheus can only sum up spend since a time; expected "
            f"one of {', '.join(PERIODS)}, such as {budget.limit}/day"
        )
    matchers = [COUNTERS[budget.limit.unit][1], select]
    try:
        matchers += [f"{label_of(key)}=~{_pattern(patterns)}" for key, patterns in budget.match.items()]
        for key in budget.per:
            label_of(key)
    except LookupError as error:
        raise SettingsError(
            f"{problem}: metrics have no label for {error.args[0]}; expected one of {', '.join(LABELS)} and tag.NAME"
        ) from None
    return ",".join(matcher for matcher in matchers if matcher)


def label_of(key: str) -> str:
    """Return the label for a key that a budget matches or is kept by. Raises LookupError if there is none."""
    if key.startswith("tag."):
        return "tollspan_tag_" + re.sub(r"\W", "_", key.removeprefix("tag."), flags=re.ASCII)
    return LABELS[key]


_PART: Final = re.compile(r"\[(!?)(\]?[^\]]*)\]|.", re.DOTALL)


def _pattern(patterns: Iterable[str]) -> str:
    """Return shell patterns as one PromQL regular expression, quoted."""

    def translate(part: re.Match[str]) -> str:
        if part[2] is not None:
            return f"[{'^' if part[1] else ''}{part[2].replace(chr(92), chr(92) * 2).replace('[', chr(92) + '[')}]"
        return {"*": ".*", "?": "."}.get(part[0]) or re.escape(part[0])

    return json.dumps("|".join(_PART.sub(translate, pattern) for pattern in patterns), ensure_ascii=False)
